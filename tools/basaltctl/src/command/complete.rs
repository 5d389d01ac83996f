//! Completion: the candidates that the scripts for shells offer.

use shells::{Directive, SHELLS};

use crate::Failure;
use crate::cli::action::Action;
use crate::cli::command::Path;
use crate::cli::tree::ROOT;
use crate::cli::{find, help};
use crate::command::Context;
use crate::exit;
use crate::print::out;
use gocompat::flags::{Flag, Kind};
use gocompat::flags::{HELP, Word};
use gocompat::quote::quote;

/// Values of flags.
const CHOICES: &[(&str, &[&str])] = &[
    ("write-out", &["fields", "json", "protobuf", "simple", "table"]),
    ("consistency", &["l", "s"]),
    ("order", &["ASCEND", "DESCEND"]),
    ("sort-by", &["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]),
    ("load", &["small", "medium", "large", "xLarge"]),
];

/// # Errors
/// No shell, or an unknown one.
pub(crate) fn script(context: &Context) -> Result<(), Failure> {
    let wrong = |text: String| {
        out::error(&format!("Error: {text}\n{}", help::usage(&context.path)));
        Failure::silent(exit::ERROR)
    };
    if context.args().len() != 1 {
        let count = context.args().len();
        return Err(wrong(format!("accepts 1 arg(s), received {count}")));
    }
    let shell = context.arg(0);
    let script = shells::script(&shell, "etcdctl").ok_or_else(|| {
        wrong(format!("invalid argument {} for \"etcdctl completion\"", quote(&shell)))
    })?;
    out::text(&script);
    Ok(())
}

/// Prints the candidates for the last word, and the directive for the shell.
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
    out::line(&format!(":{}", directive as u32));
    out::error(&format!("Completion ended with directive: {}", directive.name()));
}

type Choices = Vec<(String, String)>;

fn choices(path: &Path, rest: &[Word], begun: &str) -> (Choices, Directive) {
    let starts = |name: &str, begun: &str| name.starts_with(begun);
    // The shell picks the candidates that fit.
    let values = |name: &str| -> Choices {
        let of = CHOICES.iter().find(|it| it.0 == name).map_or(&[][..], |it| it.1);
        of.iter().map(|it| ((*it).to_owned(), String::new())).collect()
    };
    let waiting = rest.last().map(|it| String::from_utf8_lossy(it).into_owned());
    if let Some(flag) = waiting.as_deref().and_then(|it| flag_of(path, it))
        && flag.kind != Kind::Bool
    {
        return (values(flag.name), Directive::Default);
    }
    if let Some(flag) = begun.split_once('=').and_then(|it| flag_of(path, it.0)) {
        return (values(flag.name), Directive::Default);
    }
    if begun.starts_with('-') {
        return (flags(path, begun), Directive::NoFiles);
    }
    let command = path.command();
    if command.action == Some(Action::Completion) {
        let shells = SHELLS.into_iter().filter(|it| starts(it, begun) && rest.is_empty());
        return (shells.map(|it| (it.to_owned(), String::new())).collect(), Directive::NoFiles);
    }
    if find::first_bare(path, rest).is_some() {
        return (Choices::new(), Directive::Default);
    }
    let mut names: Choices = command
        .shown()
        .filter(|it| starts(it.name(), begun))
        .map(|it| (it.name().to_owned(), it.short.to_owned()))
        .collect();
    names.sort();
    let directive =
        if command.children.is_empty() { Directive::Default } else { Directive::NoFiles };
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
