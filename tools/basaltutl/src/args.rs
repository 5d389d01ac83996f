//! The command line as cobra reads it: flags anywhere, `--flag=value` or `--flag value`, `-w json`, `--` ends
//! them; commands by any unambiguous prefix.

use std::collections::BTreeMap;
use std::num::{IntErrorKind, ParseIntError};

use crate::command::{Command, GLOBAL, Kind};
use crate::{Failure, usage};

/// The parsed command line.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) command: Command,
    flags: BTreeMap<&'static str, String>,
    /// The arguments that are no flags.
    pub(crate) positional: Vec<String>,
}

/// Parses the command line.
pub(crate) fn read(arguments: Vec<String>) -> Result<Args, Failure> {
    let (command, rest) = command(arguments)?;
    let mut args = Args { command, flags: BTreeMap::new(), positional: Vec::new() };
    let mut rest = rest.into_iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            args.positional.extend(rest);
            break;
        }
        match argument.strip_prefix('-') {
            Some(flag) if !flag.is_empty() => args.flag(flag, &mut rest)?,
            _ => args.positional.push(argument),
        }
    }
    Ok(args)
}

/// Takes the words of the command off the front; flags before them stay.
fn command(arguments: Vec<String>) -> Result<(Command, Vec<String>), Failure> {
    let (mut command, mut rest) = (Command::Root, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if command.below().is_empty() || argument == "--" {
            rest.push(argument);
            rest.extend(arguments);
            break;
        }
        if argument.starts_with('-') {
            // The flags without a value are not known yet, nor is the flag for help.
            let is_whole = argument.starts_with("--") || argument.len() == 2;
            let takes_next = is_whole && !argument.contains('=');
            rest.push(argument);
            if takes_next {
                rest.extend(arguments.next());
            }
            continue;
        }
        match command.find(&argument) {
            Some(below) => command = below,
            None if command == Command::Root => return Err(usage::unknown(&argument)),
            // A command that only contains others prints them.
            None => return Ok((command, Vec::new())),
        }
    }
    Ok((command, rest))
}

impl Args {
    fn flag(&mut self, flag: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Failure> {
        let (short, flag) = match flag.strip_prefix('-') {
            Some(long) => (false, long),
            None => (true, flag),
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // `-wjson`
            None if short && flag.starts_with('w') && flag.len() > 1 => {
                ("w", Some(flag[1..].to_owned()))
            }
            None => (flag, None),
        };
        if name == "help" && !short || name == "h" && short {
            self.flags.insert("help", "true".to_owned());
            return Ok(());
        }
        let name = match (short, name) {
            (true, "w") => "write-out",
            (true, _) => {
                let letter = name.chars().next().unwrap_or_default();
                let text = format!("unknown shorthand flag: {letter:?} in -{flag}");
                return Err(usage::misuse(self.command, text));
            }
            (false, name) => name,
        };
        let known = self.command.flags().iter().chain(GLOBAL).find(|it| it.0 == name);
        let Some((name, kind, ..)) = known else {
            return Err(usage::misuse(self.command, format!("unknown flag: --{name}")));
        };
        let value = match given {
            Some(value) => value,
            None if *kind == Kind::Switch => "true".to_owned(),
            None => rest.next().ok_or_else(|| {
                usage::misuse(self.command, format!("flag needs an argument: --{name}"))
            })?,
        };
        if let Some(reason) = wrong(*kind, &value) {
            let text = format!("invalid argument {value:?} for \"--{name}\" flag: {reason}");
            return Err(usage::misuse(self.command, text));
        }
        self.flags.insert(name, value);
        Ok(())
    }

    /// The value of a flag: given, or its default.
    pub(crate) fn get(&self, name: &str) -> &str {
        let known = self.command.flags().iter().chain(GLOBAL).find(|it| it.0 == name);
        self.flags.get(name).map(String::as_str).or(known.map(|it| it.2)).unwrap_or_default()
    }

    /// Refuses a command line that lacks a required flag.
    ///
    /// # Errors
    /// The missing flags.
    pub(crate) fn check_required(&self) -> Result<(), Failure> {
        let missing = self.command.required().iter().filter(|it| !self.flags.contains_key(**it));
        let missing: Vec<_> = missing.map(|it| format!("{it:?}")).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => {
                let text = format!("required flag(s) {} not set", missing.join(", "));
                Err(usage::misuse(self.command, text))
            }
        }
    }

    /// True if a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        switch(self.get(name)) == Some(true)
    }

    /// A whole number; it was checked when it was parsed.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, Failure> {
        let wrong = |_| Failure::error(format!("invalid argument for \"--{name}\" flag"));
        self.get(name).parse().map_err(wrong)
    }
}

/// Go's spellings of true and false.
fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The reason why a flag cannot have this value, in Go's words.
fn wrong(kind: Kind, value: &str) -> Option<String> {
    let go =
        |function: &str, why: &str| Some(format!("strconv.{function}: parsing {value:?}: {why}"));
    let why = |error: &ParseIntError| {
        let kind = error.kind();
        let is_beyond = [IntErrorKind::PosOverflow, IntErrorKind::NegOverflow].contains(kind);
        if is_beyond { "value out of range" } else { "invalid syntax" }
    };
    match kind {
        Kind::Text | Kind::Directory => None,
        Kind::Switch if switch(value).is_some() => None,
        Kind::Switch => go("ParseBool", "invalid syntax"),
        Kind::Int => value.parse::<i64>().err().and_then(|error| go("ParseInt", why(&error))),
        Kind::Uint => value.parse::<u64>().err().and_then(|error| go("ParseUint", why(&error))),
        Kind::Time => gocompat::duration::parse(value).err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Result<Args, Failure> {
        read(text.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn flags_stand_anywhere() {
        let args = typed("-w json snap stat --timeout=3s file -- -x").unwrap();
        assert_eq!(args.command, Command::Status);
        assert_eq!(args.positional, ["file", "-x"]);
        assert_eq!((args.get("write-out"), args.get("timeout")), ("json", "3s"));
        let args =
            typed("snapshot restore f --name a --skip-hash-check --bump-revision 7").unwrap();
        assert_eq!((args.get("name"), args.get("initial-cluster-token")), ("a", "etcd-cluster"));
        assert!(args.is_on("skip-hash-check") && !args.is_on("mark-compacted"));
        assert_eq!(args.number("bump-revision"), Ok(7_u64));
    }

    #[test]
    fn wrong_words_are_refused_in_cobras_words() {
        let text = |line| typed(line).unwrap_err().text;
        assert_eq!(text("nope"), "unknown command \"nope\" for \"etcdutl\"");
        assert_eq!(text("hashkv --nope"), "unknown flag: --nope");
        assert_eq!(text("hashkv -z"), "unknown shorthand flag: 'z' in -z");
        assert_eq!(text("hashkv --rev"), "flag needs an argument: --rev");
        assert_eq!(
            text("snapshot restore --bump-revision x"),
            "invalid argument \"x\" for \"--bump-revision\" flag: strconv.ParseUint: parsing \"x\": \
             invalid syntax"
        );
        assert_eq!(typed("snapshot nope").unwrap().command, Command::Snapshot);
    }
}
