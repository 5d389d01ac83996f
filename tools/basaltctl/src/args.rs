//! The command line as cobra reads it: flags anywhere, `--flag=value` or `--flag value`, `-w json`,
//! `--` ends them; every global flag also from `ETCDCTL_*`; commands by any unambiguous beginning.

use std::collections::BTreeMap;

use crate::{Failure, exit};

/// Flags that take a value, and flags that are switches.
#[derive(Clone, Copy)]
pub struct Spec {
    /// Name of each flag of the command that takes a value.
    pub values: &'static [&'static str],
    /// Name of each switch of the command.
    pub switches: &'static [&'static str],
}

const GLOBAL: Spec = Spec {
    values: &["endpoints", "write-out", "command-timeout", "dial-timeout"],
    switches: &["hex", "debug", "insecure-transport", "insecure-skip-tls-verify"],
};

/// What was typed, read by a [`Spec`].
#[derive(Debug, Default)]
pub struct Args {
    flags: BTreeMap<String, String>,
    /// What is no flag.
    pub positional: Vec<String>,
}

const COMMANDS: &[&str] =
    &["put", "get", "del", "compaction", "watch", "lease", "endpoint", "member", "version", "help"];
const BELOW: &[(&str, &[&str])] = &[
    ("lease", &["grant", "revoke", "timetolive", "list", "keep-alive"]),
    ("endpoint", &["health", "status", "hashkv"]),
    ("member", &["list"]),
];

/// Takes the words of the command off the front; flags before them stay.
pub(crate) fn command(arguments: Vec<String>) -> Result<(Vec<String>, Vec<String>), Failure> {
    let (mut words, mut rest) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter();
    let mut choices = COMMANDS;
    while let Some(argument) = arguments.next() {
        if argument.starts_with('-') || choices.is_empty() {
            let name = argument.trim_start_matches('-');
            let takes_value = GLOBAL.values.contains(&name) || name == "w";
            rest.push(argument.clone());
            if takes_value && !choices.is_empty() {
                rest.extend(arguments.next());
            }
            continue;
        }
        let word = resolve(&argument, choices).ok_or_else(|| {
            Failure::new(exit::ERROR, format!("unknown command {argument:?} for \"etcdctl\""))
        })?;
        choices = BELOW.iter().find(|(name, _)| *name == word).map_or(&[], |(_, below)| below);
        words.push(word.to_owned());
    }
    Ok((words, rest))
}

/// The command that a word begins, if it is one.
fn resolve(word: &str, choices: &[&'static str]) -> Option<&'static str> {
    let exact = choices.iter().find(|choice| **choice == word);
    let mut begun = choices.iter().filter(|choice| choice.starts_with(word));
    exact.or_else(|| begun.next().filter(|_| begun.next().is_none())).copied()
}

impl Args {
    /// Reads what follows a command.
    ///
    /// # Errors
    /// A flag that nobody knows, or one without its value.
    pub fn read(rest: Vec<String>, spec: Spec) -> Result<Self, Failure> {
        let mut args = Self::default();
        let mut rest = rest.into_iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                args.positional.extend(rest);
                break;
            }
            let flag = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
            let Some(flag) = flag.filter(|flag| !flag.is_empty()) else {
                args.positional.push(argument);
                continue;
            };
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let name = if name == "w" { "write-out" } else { name };
            let switch = spec.switches.contains(&name) || GLOBAL.switches.contains(&name);
            let known = switch || spec.values.contains(&name) || GLOBAL.values.contains(&name);
            let value = match given {
                _ if !known => {
                    return Err(Failure::new(exit::ERROR, format!("unknown flag: --{name}")));
                }
                Some(value) => value,
                None if switch => "true".to_owned(),
                None => rest.next().ok_or_else(|| {
                    Failure::new(exit::ERROR, format!("flag needs an argument: --{name}"))
                })?,
            };
            args.flags.insert(name.to_owned(), value);
        }
        Ok(args)
    }

    /// The value of a flag: given, or from the environment, or the default.
    pub fn get(&self, name: &str, default: &str) -> String {
        let variable = format!("ETCDCTL_{}", name.to_uppercase().replace('-', "_"));
        let given = self.flags.get(name).cloned().or_else(|| std::env::var(variable).ok());
        given.unwrap_or_else(|| default.to_owned())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name, "false") == "true"
    }

    /// A number.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, name: &str) -> Result<i64, Failure> {
        let text = self.get(name, "0");
        let invalid = || {
            Failure::new(exit::ERROR, format!("invalid argument {text:?} for \"--{name}\" flag"))
        };
        text.parse().map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec { values: &["limit"], switches: &["prefix"] };

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn commands_are_found_by_their_beginning() {
        let (found, rest) = command(words("-w json le gr 10")).expect("it is one");
        assert_eq!((found, rest), (words("lease grant"), words("-w json 10")));
        assert!(command(words("nothing")).is_err());
        assert!(command(words("e")).is_ok_and(|(found, _)| found == ["endpoint"]));
    }

    #[test]
    fn flags_stand_anywhere() {
        let args = Args::read(words("a --limit=3 --prefix b -- --c"), SPEC).expect("it is known");
        assert_eq!(args.positional, ["a", "b", "--c"]);
        assert_eq!((args.number("limit"), args.is_on("prefix")), (Ok(3), true));
        let unknown = Args::read(words("--nope"), SPEC).expect_err("nobody knows it");
        assert_eq!(unknown.text, "unknown flag: --nope");
    }
}
