//! Completion in shells, for programs that print the candidates themselves.
//!
//! ```text
//! TAB ─► script in the shell ─► <program> __complete <words> ─► one candidate a line, `:directive`
//! ```
//!
//! The protocol is cobra's, so that scripts made for etcd's programs work with ours as well.

/// The shells with a script.
pub const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "powershell"];

/// Instructions to the shell about the candidates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directive {
    /// Files may be offered if there are no candidates.
    Default = 0,
    /// Files must not be offered.
    NoFiles = 4,
    /// Only directories may be offered.
    Directories = 16,
}

impl Directive {
    /// cobra's name, for debug output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "ShellCompDirectiveDefault",
            Self::NoFiles => "ShellCompDirectiveNoFileComp",
            Self::Directories => "ShellCompDirectiveFilterDirs",
        }
    }
}

/// The script for a shell; `None` for an unknown shell.
pub fn script(shell: &str, program: &str) -> Option<String> {
    let script = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => POWERSHELL,
        _ => return None,
    };
    Some(script.replace("PROGRAM", program))
}

/// Bash splits a word at `=`; it is joined again, and the candidates replace the part
/// after the `=`.
const BASH: &str = r#"# bash completion for PROGRAM
_PROGRAM() {
    local line directive=0 word words=() current="${COMP_WORDS[COMP_CWORD]#=}"
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        if [ "${#words[@]}" -gt 0 ] && { [ "$word" = = ] || [[ "${words[-1]}" == -*= ]]; }; then
            words[-1]+="$word"
        else
            words+=("$word")
        fi
    done
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            :*) directive="${line#:}" ;;
            "$current"*) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
    if [ "${#COMPREPLY[@]}" -eq 0 ]; then
        case "$directive" in
            0) compopt -o default 2>/dev/null ;;
            16) compopt -o dirnames 2>/dev/null ;;
        esac
    fi
}
complete -F _PROGRAM PROGRAM
"#;

/// Candidates for a value behind `--flag=` stand for the value alone.
const ZSH: &str = r#"#compdef PROGRAM
_PROGRAM() {
    local line directive=0
    local -a found
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case "$line" in
            :*) directive="${line#:}" ;;
            *) found+=("${${line//:/\\:}/$'\t'/:}") ;;
        esac
    done
    [[ "${words[CURRENT]}" == -*=* ]] && compset -P '*='
    if (( ${#found} )); then
        _describe 'PROGRAM' found
    elif [[ "$directive" == 0 ]]; then
        _files
    elif [[ "$directive" == 16 ]]; then
        _files -/
    fi
}
if [ "$funcstack[1]" = "_PROGRAM" ]; then
    _PROGRAM
else
    compdef _PROGRAM PROGRAM
fi
"#;

/// Fish replaces the whole word: a candidate contains the part before the `=` too.
const FISH: &str = r"# fish completion for PROGRAM
function __PROGRAM_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    # Without a flag this is one empty text, not none.
    set -l flag (string match -r -- '^-.*=' $current; or echo)
    set -l found ($words[1] __complete $words[2..-1] $current 2>/dev/null)
    set -l directive $found[-1]
    set -e found[-1]
    if test (count $found) -gt 0
        printf '%s\n' $flag$found
    else if test $directive = :0
        __fish_complete_path (string replace -- $flag '' $current)
    else if test $directive = :16
        __fish_complete_directories (string replace -- $flag '' $current)
    end
end
complete -c PROGRAM -e
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
";

/// Texts and offsets are those of the whole line, so that a command behind another one, and a cursor
/// inside of it, are understood. It uses only features of a constrained session, except one class, which it
/// then does without.
const POWERSHELL: &str = r#"# powershell completion for PROGRAM
Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($wordToComplete, $ast, $position)

    # What stands before the cursor; a blank there begins a new word.
    $words = @()
    $word = ''
    foreach ($element in $ast.CommandElements) {
        $length = $position - $element.Extent.StartOffset
        if ($length -le 0) { break }
        $text = $element.Extent.Text
        if ($length -lt $text.Length) { $text = $text.Substring(0, $length) }
        $text = $text.Trim('"', "'")
        if ($element.Extent.EndOffset -ge $position) { $word = $text } else { $words += $text }
    }
    if ($words.Count -eq 0) { return }
    $program = $words[0]
    $before = @($words | Select-Object -Skip 1)

    # Sessions that hand on arguments in the old way lose an empty one.
    $last = $word
    $isOld = -not (Test-Path Variable:PSNativeCommandArgumentPassing) -or
        $PSNativeCommandArgumentPassing -eq 'Legacy'
    if ($isOld -and $word -eq '') { $last = '""' }
    $answer = @(& $program __complete @before $last 2>$null)
    if ($answer.Count -eq 0 -or $answer[-1] -notmatch '^:(\d+)$') { return }
    $directive = [int]$Matches[1]

    # After an error (1) nothing is offered; files by extension (8) and directories (16) are left to the shell.
    if ($directive -band 25) { return }
    $flag = ''
    if ($word -like '--*=*') {
        $flag, $word = $word -split '=', 2
        $flag += '='
    }
    $width = 0
    $found = @(foreach ($line in $answer | Select-Object -SkipLast 1) {
        $name, $about = $line -split "`t", 2
        if (-not $name.StartsWith($word, 'OrdinalIgnoreCase')) { continue }
        if (-not $about) { $about = ' ' }
        if ($width -lt "$flag$name".Length) { $width = "$flag$name".Length }
        @{ Name = "$flag$name"; About = $about }
    })
    if (-not ($directive -band 32)) { $found = @($found | Sort-Object { $_.Name }) }
    # An empty text keeps the shell from offering files.
    if ($found.Count -eq 0 -and ($directive -band 4)) { return '' }

    $space = if ($directive -band 2) { '' } else { ' ' }
    $mode = (Get-PSReadLineKeyHandler | Where-Object { $_.Key -eq 'Tab' }).Function
    foreach ($it in $found) {
        $shown = $it.Name
        $text = $it.Name -replace '[\s#@$;,''{}()"`|<>&]', '`$&'
        if ($mode -eq 'Complete' -and $found.Count -gt 1) {
            # Here descriptions are seen only if they are part of the list.
            if ($it.About -ne ' ') { $shown = $it.Name.PadRight($width) + "  ($($it.About))" }
            $text = $shown
        } elseif ($mode -eq 'Complete' -or $mode -eq 'MenuComplete') {
            $text += $space
        }
        if ($ExecutionContext.SessionState.LanguageMode -eq 'FullLanguage') {
            [System.Management.Automation.CompletionResult]::new($text, $shown, 'ParameterValue', $it.About)
        } else {
            $text
        }
    }
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_names_the_program() {
        for shell in SHELLS {
            let script = script(shell, "etcdctl").expect("there is one");
            assert!(script.contains("etcdctl") && !script.contains("PROGRAM"), "{shell}");
        }
        assert_eq!(script("tcsh", "etcdctl"), None);
    }
}
