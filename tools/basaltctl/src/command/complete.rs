//! Completion: short scripts for the shells, which ask `etcdctl __complete` what could come next.

use crate::Failure;
use crate::cli::command::Path;
use crate::cli::flag::{Flag, Kind};
use crate::cli::tree::ROOT;
use crate::cli::values::{HELP, Word};
use crate::cli::{find, help};
use crate::command::{Action, Context};
use crate::exit;
use crate::go::quote::quote;
use crate::print::out;

/// Files may be offered.
const FILES: u32 = 0;
/// They make no sense here.
const NO_FILES: u32 = 4;

/// Values that flags may have.
const CHOICES: &[(&str, &[&str])] = &[
    ("write-out", &["fields", "json", "protobuf", "simple", "table"]),
    ("consistency", &["l", "s"]),
    ("order", &["ASCEND", "DESCEND"]),
    ("sort-by", &["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]),
    ("load", &["small", "medium", "large", "xLarge"]),
];

/// # Errors
/// No shell, or one nobody knows.
pub(crate) fn script(context: &Context) -> Result<(), Failure> {
    let wrong = |text: String| {
        out::error(&format!("Error: {text}\n{}", help::usage(&context.path)));
        Failure::silent(exit::ERROR)
    };
    if context.args().len() != 1 {
        let count = context.args().len();
        return Err(wrong(format!("accepts 1 arg(s), received {count}")));
    }
    let script = match context.arg(0).as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => POWERSHELL,
        other => {
            let other = quote(other);
            return Err(wrong(format!("invalid argument {other} for \"etcdctl completion\"")));
        }
    };
    out::text(script);
    Ok(())
}

/// Prints what could stand in place of the last word, and what the shell is to make of it.
pub(crate) fn complete(words: &[Word]) {
    let described = words[0] == b"__complete";
    let Some((last, before)) = words[1..].split_last() else {
        out::text(":4\n");
        return;
    };
    let begun = String::from_utf8_lossy(last).into_owned();
    let (path, rest) = find::find(&ROOT, before);
    let (choices, directive) = choices(&path, &rest, &begun);
    for (choice, about) in choices {
        match described && !about.is_empty() {
            true => out::line(&format!("{choice}\t{about}")),
            false => out::line(&choice),
        }
    }
    out::line(&format!(":{directive}"));
    let name = if directive == NO_FILES {
        "ShellCompDirectiveNoFileComp"
    } else {
        "ShellCompDirectiveDefault"
    };
    out::error(&format!("Completion ended with directive: {name}"));
}

type Choices = Vec<(String, String)>;

fn choices(path: &Path, rest: &[Word], begun: &str) -> (Choices, u32) {
    let starts = |name: &str, begun: &str| name.starts_with(begun);
    let values = |name: &str, begun: &str| -> Choices {
        let of = CHOICES.iter().find(|it| it.0 == name).map_or(&[][..], |it| it.1);
        of.iter()
            .filter(|it| starts(it, begun))
            .map(|it| ((*it).to_owned(), String::new()))
            .collect()
    };
    let waiting = rest.last().map(|it| String::from_utf8_lossy(it).into_owned());
    if let Some(flag) = waiting.as_deref().and_then(|it| flag_of(path, it))
        && flag.kind != Kind::Bool
    {
        return (values(flag.name, begun), FILES);
    }
    if let Some((flag, begun)) =
        begun.split_once('=').and_then(|it| Some((flag_of(path, it.0)?, it.1)))
    {
        return (values(flag.name, begun), FILES);
    }
    if begun.starts_with('-') {
        return (flags(path, begun), NO_FILES);
    }
    let command = path.command();
    if command.action == Some(Action::Completion) {
        let shells = ["bash", "zsh", "fish", "powershell"].into_iter();
        let shells = shells.filter(|it| starts(it, begun) && rest.is_empty());
        return (shells.map(|it| (it.to_owned(), String::new())).collect(), NO_FILES);
    }
    let mut names: Choices = command
        .children
        .iter()
        .filter(|it| starts(it.name(), begun))
        .map(|it| (it.name().to_owned(), it.short.to_owned()))
        .collect();
    names.sort();
    let directive = if command.children.is_empty() { FILES } else { NO_FILES };
    (names, directive)
}

fn flag_of(path: &Path, word: &str) -> Option<&'static Flag> {
    match word.strip_prefix("--") {
        Some(name) => path.flags().find(|it| it.name == name),
        None => {
            let short = word.strip_prefix('-').filter(|it| it.chars().count() == 1)?;
            path.flags().find(|it| it.short.is_some_and(|c| short.starts_with(c)))
        }
    }
}

fn flags(path: &Path, begun: &str) -> Choices {
    let mut shown: Vec<_> = path.flags().filter(|it| !it.hidden).chain([&HELP]).collect();
    shown.sort_by_key(|it| it.name);
    let mut found = Choices::new();
    for flag in shown {
        let about = match flag.name {
            "help" => format!("help for {}", path.command().name()),
            _ => flag.usage.to_owned(),
        };
        let long = format!("--{}", flag.name);
        let short = flag.short.map(|it| format!("-{it}"));
        for name in [Some(long), short].into_iter().flatten().filter(|it| it.starts_with(begun)) {
            found.push((name, about.clone()));
        }
    }
    found
}

const BASH: &str = r#"# bash completion for etcdctl
_etcdctl() {
    local line directive=0 current="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    while IFS= read -r line; do
        case "$line" in
            :*) directive="${line#:}" ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" "$current" 2>/dev/null)
    if [ "${#COMPREPLY[@]}" -eq 0 ] && [ "$directive" = 0 ]; then
        compopt -o default 2>/dev/null
    fi
}
complete -F _etcdctl etcdctl
"#;

const ZSH: &str = r#"#compdef etcdctl
_etcdctl() {
    local line directive=0
    local -a found
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case "$line" in
            :*) directive="${line#:}" ;;
            *) found+=("${${line//:/\\:}/$'\t'/:}") ;;
        esac
    done
    if (( ${#found} )); then
        _describe 'etcdctl' found
    elif [[ "$directive" == 0 ]]; then
        _files
    fi
}
if [ "$funcstack[1]" = "_etcdctl" ]; then
    _etcdctl
else
    compdef _etcdctl etcdctl
fi
"#;

const FISH: &str = r"# fish completion for etcdctl
function __etcdctl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] __complete $words[2..-1] $current 2>/dev/null | string match -v -r '^:\d+$'
end
complete -c etcdctl -e
complete -c etcdctl -a '(__etcdctl_complete)'
";

const POWERSHELL: &str = r#"# powershell completion for etcdctl
Register-ArgumentCompleter -Native -CommandName 'etcdctl' -ScriptBlock {
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
