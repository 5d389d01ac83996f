//! Finds the command of a line: words that are no flags, one level after the other, by their name or
//! any prefix that only one command has.

use crate::cli::command::{Command, Path};
use gocompat::flags::Kind;
use gocompat::flags::Word;

/// The command, and the words without those that named it.
pub(crate) fn find(root: &'static Command, words: &[Word]) -> (Path, Vec<Word>) {
    let mut path = Path(vec![root]);
    let mut words = words.to_vec();
    while let Some(at) = first_bare(&path, &words) {
        let name = String::from_utf8_lossy(&words[at]).into_owned();
        let Some(next) = child(path.command(), &name) else { break };
        words.remove(at);
        path.0.push(next);
    }
    (path, words)
}

/// The first word that is neither a flag nor a flag's value.
pub(crate) fn first_bare(path: &Path, words: &[Word]) -> Option<usize> {
    let mut at = 0;
    while at < words.len() {
        let text = String::from_utf8_lossy(&words[at]);
        if text == "--" {
            return None;
        }
        if takes_next(path, &text) {
            at += 2;
            continue;
        }
        if !text.is_empty() && !text.starts_with('-') {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// An unknown flag counts as one with a value. Only the root knows `--help` at this point.
fn takes_next(path: &Path, text: &str) -> bool {
    let is_root = path.0.len() == 1;
    if text.contains('=') {
        return false;
    }
    let known = |found: &mut dyn FnMut(&str, Option<char>) -> bool| {
        let switch = path.flags().filter(|it| it.kind == Kind::Bool);
        switch.into_iter().any(|it| found(it.name, it.short))
            || (is_root && found("help", Some('h')))
    };
    if let Some(name) = text.strip_prefix("--") {
        return !known(&mut |it, _| it == name);
    }
    let mut chars = text.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('-'), Some(c), None) => !known(&mut |_, short| short == Some(c)),
        _ => false,
    }
}

fn child(command: &'static Command, name: &str) -> Option<&'static Command> {
    if let Some(exact) = command.children.iter().find(|it| it.name() == name) {
        return Some(exact);
    }
    let mut begun = command.shown().filter(|it| it.name().starts_with(name));
    begun.next().filter(|_| begun.next().is_none())
}

/// Similar names of commands, for `Did you mean this?`.
pub(crate) fn suggestions(command: &Command, typed: &str) -> Vec<&'static str> {
    let lower = typed.to_lowercase();
    let near = |name: &str| name.starts_with(&lower) || distance(&lower, name) <= 2;
    let names = command.shown().map(Command::name);
    names.filter(|it| *it != "help" && near(it)).collect()
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let cost = if l == *r { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = row[j + 1];
            row[j + 1] = cost;
        }
    }
    row[right.len()]
}
