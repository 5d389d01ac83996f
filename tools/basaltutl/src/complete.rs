//! Completion: the candidates that the scripts for shells offer, in cobra's protocol.

use shells::{Directive, SHELLS};

use crate::args::Args;
use crate::command::{Command, Flag, GLOBAL, Kind};
use crate::{Failure, output, usage};

/// The script for a shell.
///
/// # Errors
/// No shell, or an unknown one.
pub(crate) fn script(args: &Args) -> Result<(), Failure> {
    let wrong = |text: String| usage::misuse(Command::Completion, text);
    let [shell] = &args.positional[..] else {
        let count = args.positional.len();
        return Err(wrong(format!("accepts 1 arg(s), received {count}")));
    };
    let script = shells::script(shell, "etcdutl")
        .ok_or_else(|| wrong(format!("invalid argument {shell:?} for \"etcdutl completion\"")))?;
    output::text(&script);
    Ok(())
}

/// Prints the candidates for the last word, and the directive for the shell.
pub(crate) fn complete(words: &[String], described: bool) {
    let Some((begun, before)) = words.split_last() else { return };
    let (candidates, directive) = candidates(&Typed::read(before), begun);
    let mut text = String::new();
    for (candidate, about) in candidates {
        text.push_str(&candidate);
        if described && !about.is_empty() {
            text.push('\t');
            text.push_str(&about);
        }
        text.push('\n');
    }
    output::text(&format!("{text}:{}\n", directive as u32));
    output::error(&format!("Completion ended with directive: {}", directive.name()));
}

/// The words before the one that is completed.
struct Typed {
    command: Command,
    /// Names of flags that were given.
    flags: Vec<&'static str>,
    /// The flag whose value comes next.
    waiting: Option<Flag<'static>>,
    positional: usize,
}

impl Typed {
    fn read(words: &[String]) -> Self {
        let mut typed =
            Self { command: Command::Root, flags: Vec::new(), waiting: None, positional: 0 };
        for word in words {
            if typed.waiting.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                let flag = flag(typed.command, word.split('=').next().unwrap_or_default());
                typed.flags.extend(flag.map(|it| it.0));
                typed.waiting = flag.filter(|it| it.1 != Kind::Switch && !word.contains('='));
            } else if let Some(below) = typed.command.find(word) {
                typed.command = below;
            } else {
                typed.positional += 1;
            }
        }
        typed
    }
}

/// The flag that a word names.
fn flag(command: Command, word: &str) -> Option<Flag<'static>> {
    let is = |it: &&Flag<'_>| {
        let short = usage::short(it.0).map(|it| format!("-{it}"));
        word.strip_prefix("--") == Some(it.0) || short.as_deref() == Some(word)
    };
    command.flags().iter().chain(GLOBAL).find(is).copied()
}

type Candidates = Vec<(String, String)>;

fn candidates(typed: &Typed, begun: &str) -> (Candidates, Directive) {
    let named = begun.split_once('=').and_then(|(name, _)| flag(typed.command, name));
    if let Some(flag) = typed.waiting.or(named) {
        return values(&flag);
    }
    if begun.starts_with('-') {
        return (flags(typed, begun), Directive::NoFiles);
    }
    let starts = |it: &&(&'static str, Command)| it.0.starts_with(begun);
    let names = |of: Command| -> Candidates {
        let below = of.below().iter().filter(starts);
        below.map(|(name, it)| ((*name).to_owned(), usage::about(*it).1.to_owned())).collect()
    };
    let plain = |names: &[&str]| -> Candidates {
        let begun = names.iter().filter(|it| it.starts_with(begun));
        begun.map(|it| ((*it).to_owned(), String::new())).collect()
    };
    match typed.command {
        Command::Root | Command::Snapshot if typed.positional == 0 => {
            (names(typed.command), Directive::NoFiles)
        }
        Command::Help => (names(Command::Root), Directive::NoFiles),
        Command::Completion if typed.positional == 0 => (plain(&SHELLS), Directive::NoFiles),
        Command::Root
        | Command::Snapshot
        | Command::Completion
        | Command::Defrag
        | Command::Migrate
        | Command::Version
        | Command::HashKv
        | Command::Status
        | Command::Restore
        | Command::Save
        | Command::Verify => {
            let missing = if begun.is_empty() { flags(typed, "--") } else { Vec::new() };
            let needed = |it: &(String, String)| {
                typed.command.required().contains(&it.0.trim_start_matches('-'))
            };
            (missing.into_iter().filter(needed).collect(), Directive::Default)
        }
    }
}

/// Values of a flag; the shell picks those that fit.
fn values(flag: &Flag<'_>) -> (Candidates, Directive) {
    let formats = ["fields", "json", "protobuf", "simple", "table"];
    match (flag.0, flag.1) {
        ("write-out", _) => {
            let formats = formats.map(|it| (it.to_owned(), String::new()));
            (formats.to_vec(), Directive::Default)
        }
        (_, Kind::Directory) => (Vec::new(), Directive::Directories),
        _ => (Vec::new(), Directive::Default),
    }
}

/// Flags that were not given yet: only the required ones as long as one of them is missing.
fn flags(typed: &Typed, begun: &str) -> Candidates {
    let help = format!("help for {}", usage::name(typed.command));
    let help: Flag<'_> = ("help", Kind::Switch, "false", &help);
    let mut own = [typed.command.flags(), &[help]].concat();
    own.sort_by_key(|it| it.0);
    let required = typed.command.required();
    let missing = |it: &Flag<'_>| required.contains(&it.0) && !typed.flags.contains(&it.0);
    let globals = GLOBAL.iter().copied();
    let mut all: Vec<Flag<'_>> = if typed.command == Command::Root {
        own.into_iter().chain(globals).collect()
    } else {
        globals.chain(own).collect()
    };
    if all.iter().any(missing) {
        all.retain(missing);
    }
    let new = all.into_iter().filter(|it| !typed.flags.contains(&it.0));
    let spelled = new.flat_map(|(name, _, _, purpose)| {
        let short = usage::short(name).map(|it| format!("-{it}"));
        let long = Some(format!("--{name}"));
        [long, short].into_iter().flatten().map(move |it| (it, purpose.to_owned()))
    });
    spelled.filter(|it| it.0.starts_with(begun)).collect()
}
