//! Completion in shells, for programs that are asked what could come next.
//!
//! ```text
//! TAB ─► script in the shell ─► <program> __complete <words> ─► one candidate a line, `:directive`
//! ```
//!
//! The question and its answer are cobra's, so that scripts made for etcd's programs ask ours as well.

/// The shells that there are scripts for.
pub const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "powershell"];

/// What the shell is to make of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Directive {
    /// Files may be offered if there are no candidates.
    Default = 0,
    /// Files make no sense.
    NoFiles = 4,
    /// Only directories make sense.
    Directories = 16,
}

impl Directive {
    /// As cobra names it for those who look for mistakes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "ShellCompDirectiveDefault",
            Self::NoFiles => "ShellCompDirectiveNoFileComp",
            Self::Directories => "ShellCompDirectiveFilterDirs",
        }
    }
}

/// The script for a shell, or nothing if there is none for it.
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

/// Bash takes a word apart at `=`; it is put together again, and the answer stands for what is
/// behind the `=`.
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

/// Fish wants the whole word back: what is before the `=` too.
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

const POWERSHELL: &str = r#"# powershell completion for PROGRAM
Register-ArgumentCompleter -Native -CommandName 'PROGRAM' -ScriptBlock {
    param($word, $ast, $position)
    $words = @($ast.CommandElements | ForEach-Object { "$_" })
    $before = @($words | Select-Object -Skip 1 | Where-Object { $_ -ne $word })
    & $words[0] __complete @before "$word" 2>$null | Where-Object { $_ -notmatch '^:\d+$' } | ForEach-Object {
        $name, $about = $_ -split "`t", 2
        if (-not $about) { $about = $name }
        [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $about)
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
