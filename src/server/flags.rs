//! Sources of the configuration: a command line in Go's syntax (`-name value`, `--name=value`, and for booleans
//! `--name` or `--name=true` alone), environment variables (`ETCD_NAME_OF_FLAG`), or a file instead of both.

use std::collections::BTreeMap;

use super::flag::{Form, Row};
use super::gates::Gates;
use super::graduated::{self, Graduated, graduated};
use super::settings::{Flags, Level, Note};
use super::{file, table};

/// The action that the command line requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Run a member with these values; other flags have their default.
    Run(Flags),
    /// Print the version.
    Version,
    /// Print all flags.
    Help,
    /// The flags do not parse: print the message and the usage on stderr and exit with code 2.
    Misuse(String),
    /// The flags parse, but their combination is invalid: log the message and exit with code 1.
    Refuse(Note),
}

/// Reads a command line (without the program's name) and the environment. `read` reads a file.
pub fn parse(
    arguments: impl Iterator<Item = String>,
    environment: impl Iterator<Item = (String, String)>,
    read: impl FnOnce(&str) -> std::io::Result<String>,
) -> Command {
    let mut flags = Flags::default();
    match command_line(arguments, &mut flags) {
        Ok(()) => (),
        Err(command) => return command,
    }
    if table::VERSION.get(&flags) {
        return Command::Version;
    }
    let mut environment: BTreeMap<String, String> =
        environment.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut file = table::CONFIG_FILE.get(&flags);
    if file.is_empty() {
        file = environment.get("ETCD_CONFIG_FILE").cloned().unwrap_or_default();
    }
    if !file.is_empty() {
        return match file::load(&file, read) {
            Ok(flags) => Command::Run(flags),
            Err(text) => refuse(&text),
        };
    }
    if let Some(value) = environment.remove("ETCD_VERSION").filter(|value| !value.is_empty()) {
        let note = Note::new(Level::Warn, "cannot set special environment variable");
        flags.note(note.about("key", "ETCD_VERSION").about("value", value));
    }
    let applied = apply_environment(&environment, &mut flags)
        .and_then(|known| apply_older(&environment, &known, &mut flags));
    match applied {
        Ok(()) => {
            graduated::settle_gates(&mut flags);
            Command::Run(flags)
        }
        Err(command) => command,
    }
}

fn refuse(error: &str) -> Command {
    Command::Refuse(Note::new(Level::Warn, "failed to verify flags").about("error", error))
}

const PREFIX: &str = "ETCD_";

/// Variables with this prefix that belong to no flag.
const SPECIAL: &[&str] = &["ETCD_UNSUPPORTED_ARCH", "ETCD_CONFIG_FILE", "ETCD_VERIFY"];

fn command_line(arguments: impl Iterator<Item = String>, flags: &mut Flags) -> Result<(), Command> {
    let mut rest = arguments;
    while let Some(argument) = rest.next() {
        let Some(name) = argument.strip_prefix('-').filter(|name| !name.is_empty()) else {
            return Err(refuse(&format!("{argument:?} is not a valid flag")));
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        if name.is_empty() {
            // Go stops parsing flags at `--`.
            return match rest.next() {
                Some(other) => Err(refuse(&format!("{other:?} is not a valid flag"))),
                None => Ok(()),
            };
        }
        if name.starts_with(['-', '=']) {
            return Err(Command::Misuse(format!("bad flag syntax: {argument}")));
        }
        let (name, given) = match name.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (name.to_owned(), None),
        };
        if given.is_none() && (name == "h" || name == "help") {
            return Err(Command::Help);
        }
        one_flag(&name, given, &mut rest, flags)?;
    }
    Ok(())
}

/// Parses one flag, and its value if that is the next argument.
fn one_flag(
    name: &str,
    given: Option<String>,
    rest: &mut impl Iterator<Item = String>,
    flags: &mut Flags,
) -> Result<(), Command> {
    if table::IGNORED.contains(&name) {
        let text = format!("ignored deprecated flag --{name}");
        flags.note(Note::new(Level::Warn, text));
        return Ok(());
    }
    let flag = match (table::find(name), graduated(name)) {
        (Some(flag), _) => flag,
        (None, Some(Graduated::Flag(flag))) => {
            flags.note(graduated::note(&format!("--{name}"), &format!("--{}", flag.name())));
            flag
        }
        (None, Some(Graduated::Gate(gate))) => {
            let on = given.unwrap_or_else(|| "true".to_owned());
            return graduated::put_gate(format!("--{name}"), gate, &on, flags).map_err(|()| {
                Command::Misuse(format!("invalid boolean value {on:?} for -{name}: parse error"))
            });
        }
        (None, None) => {
            return Err(Command::Misuse(format!("flag provided but not defined: -{name}")));
        }
    };
    let value = match given {
        Some(value) => value,
        None if flag.form() == Form::Switch => "true".to_owned(),
        None => rest
            .next()
            .ok_or_else(|| Command::Misuse(format!("flag needs an argument: -{name}")))?,
    };
    flag.check(&value).map_err(|error| Command::Misuse(misuse(flag, name, &value, &error)))?;
    flags.put(flag.name(), value);
    Ok(())
}

fn misuse(flag: &dyn Row, name: &str, value: &str, error: &str) -> String {
    if flag.form() == Form::Switch {
        return format!("invalid boolean value {value:?} for -{name}: {error}");
    }
    format!("invalid value {value:?} for flag -{name}: {error}")
}

/// Applies the variables of flags, and returns the names of all such variables.
fn apply_environment(
    environment: &BTreeMap<String, String>,
    flags: &mut Flags,
) -> Result<Vec<String>, Command> {
    let mut known = Vec::new();
    for flag in table::all() {
        let variable = format!("{PREFIX}{}", flag.name().to_uppercase().replace('-', "_"));
        let value = environment.get(&variable).filter(|value| !value.is_empty());
        known.push(variable.clone());
        let Some(value) = value else { continue };
        if flags.given(flag.name()).is_some() {
            let text = "conflicting environment variable is shadowed by corresponding \
                command-line flag (either unset environment variable or disable flag))";
            let note = Note::new(Level::Fatal, text).about("environment-variable", variable);
            return Err(Command::Refuse(note));
        }
        flag.check(value)
            .map_err(|error| refuse(&format!("invalid value {value:?} for {variable}: {error}")))?;
        let note = Note::new(Level::Info, "recognized and used environment variable");
        flags.note(note.about("variable-name", variable).about("variable-value", value));
        flags.put(flag.name(), value);
    }
    Ok(known)
}

/// Applies the variables by which flags of older versions were set, and notes those that belong to no flag.
fn apply_older(
    environment: &BTreeMap<String, String>,
    known: &[String],
    flags: &mut Flags,
) -> Result<(), Command> {
    let is_known = |name: &String| known.contains(name) || SPECIAL.contains(&name.as_str());
    for (name, value) in environment.iter().filter(|(name, _)| !is_known(name)) {
        let invalid = |error: &str| refuse(&format!("invalid value {value:?} for {name}: {error}"));
        match name.strip_prefix(PREFIX).and_then(graduated::of_variable) {
            _ if value.is_empty() => (),
            Some(Graduated::Gate(gate)) => {
                graduated::put_gate(name.clone(), gate, value, flags)
                    .map_err(|()| invalid("parse error"))?;
            }
            Some(Graduated::Flag(flag)) if flags.given(flag.name()).is_some() => {
                flags.note(graduated::shadowed(name, &format!("--{}", flag.name())));
            }
            Some(Graduated::Flag(flag)) => {
                flag.check(value).map_err(|error| invalid(&error))?;
                flags.note(graduated::note(name, &format!("--{}", flag.name())));
                flags.put(flag.name(), value);
            }
            None => {
                let note = Note::new(Level::Warn, "unrecognized environment variable");
                // etcd prints the value, too, which may be a password under a misspelled name.
                flags.note(note.about("environment-variable", name));
            }
        }
    }
    Ok(())
}

/// A short usage text.
pub fn usage() -> &'static str {
    "Usage:\n\
     \n  etcd [flags]\n    Run a member.\n\
     \n  etcd doctor [-w table|json] [flags]\n    Examine the machine for the member of these flags.\n\
     \n  etcd --version\n    Print the version.\n\
     \n  etcd -h | --help\n    Print all flags.\n\
     \n  etcd --config-file\n    Run a member as a YAML or JSON file says. All other flags and the \
     environment are then ignored.\n    Times in the file are whole nanoseconds, as in 600000000000 \
     for ten minutes.\n\
     \n  etcd gateway\n    Pass TCP connections on to members.\n\
     \n  etcd grpc-proxy\n    Pass gRPC calls on to members, with shared watches and a cache.\n\n"
}

/// All flags, with their defaults and descriptions.
pub fn help() -> String {
    let mut text = String::new();
    for (title, flags) in table::SECTIONS {
        text.push_str(&format!("\n{title}:\n"));
        for flag in *flags {
            let (name, default, help) = (flag.name(), flag.default(), flag.help());
            let default = if name == "data-dir" { "${name}.etcd" } else { default };
            text.push_str(&format!("  --{name} '{default}'\n    {help}\n"));
            if name == "feature-gates" {
                for (gate, stage, on) in Gates::default().all() {
                    text.push_str(&format!("    {gate}=true|false ({stage} - default={on})\n"));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let arguments = arguments.iter().map(|argument| (*argument).into());
        parse(arguments, environment, |_| Err(std::io::Error::other("no file")))
    }

    #[test]
    fn flags_come_in_gos_spellings() {
        let spelled =
            ["-name", "a", "--data-dir=/b", "--pre-vote=false", "-force-new-cluster", "--snapshot"];
        let Command::Run(flags) = run(&spelled, &[("ETCD_MAX_TXN_OPS", "9")]) else {
            panic!("all of it is known")
        };
        assert_eq!(table::NAME.get(&flags), "a");
        assert_eq!(table::DATA_DIR.get(&flags), "/b");
        assert!(!table::PRE_VOTE.get(&flags) && table::FORCE_NEW_CLUSTER.get(&flags));
        assert_eq!(table::MAX_TXN_OPS.get(&flags), 9);
        assert_eq!(table::LOGGER.get(&flags), "zap");
    }

    #[test]
    fn unknown_flags_are_refused_as_by_etcd() {
        let misuse = |arguments: &[&str]| {
            let Command::Misuse(text) = run(arguments, &[]) else {
                panic!("{arguments:?} is fine")
            };
            text
        };
        for (arguments, text) in [
            (&["--foo"][..], "flag provided but not defined: -foo"),
            (&["--discovery", "x"], "flag provided but not defined: -discovery"),
            (&["--name"], "flag needs an argument: -name"),
            (&["---x"], "bad flag syntax: ---x"),
            (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
            (
                &["--heartbeat-interval", "abc"],
                "invalid value \"abc\" for flag -heartbeat-interval: parse error",
            ),
            (
                &["--initial-cluster-state", "x"],
                "invalid value \"x\" for flag -initial-cluster-state: invalid value",
            ),
            (
                &["--feature-gates", "Foo=true"],
                "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
            ),
            (
                &["--grpc-keepalive-interval", "5"],
                "invalid value \"5\" for flag -grpc-keepalive-interval: parse error",
            ),
        ] {
            assert_eq!(misuse(arguments), text);
        }
    }

    #[test]
    fn positions_and_conflicts_are_refused() {
        let refused = |arguments: &[&str], environment: &[(&str, &str)]| {
            let Command::Refuse(note) = run(arguments, environment) else {
                panic!("{arguments:?} is fine")
            };
            (note.level, note.about[0].1.clone())
        };
        let position = (Level::Warn, "\"bar\" is not a valid flag".to_owned());
        assert_eq!(refused(&["bar"], &[]), position);
        assert_eq!(refused(&["--pre-vote", "bar"], &[]), position);
        assert_eq!(refused(&["--", "bar"], &[]), position);
        let both = (Level::Fatal, "ETCD_NAME".to_owned());
        assert_eq!(refused(&["--name", "a"], &[("ETCD_NAME", "b")]), both);
        let wrong = "invalid value \"x\" for ETCD_MAX_TXN_OPS: parse error";
        assert_eq!(refused(&[], &[("ETCD_MAX_TXN_OPS", "x")]).1, wrong);
    }

    #[test]
    fn environment_variables_are_logged() {
        let environment = [("ETCD_NAME", "a"), ("ETCD_FOO", "b"), ("HOME", "/")];
        let Command::Run(flags) = run(&[], &environment) else { panic!("it is fine") };
        let notes = flags.notes.iter().map(|note| (note.level, note.message.as_str()));
        let expected = [
            (Level::Info, "recognized and used environment variable"),
            (Level::Warn, "unrecognized environment variable"),
        ];
        assert_eq!(notes.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn flags_of_older_versions_are_understood() {
        let older = [
            "--experimental-initial-corrupt-check=true",
            "--experimental-watch-progress-notify-interval=5s",
        ];
        let Command::Run(flags) = run(&older, &[]) else { panic!("kubeadm uses them") };
        assert_eq!(table::FEATURE_GATES.text(&flags), "InitialCorruptCheck=true");
        assert_eq!(table::WATCH_PROGRESS_NOTIFY_INTERVAL.text(&flags), "5s");
        assert_eq!(flags.notes.len(), 2);
    }

    #[test]
    fn environment_variables_of_older_versions_mean_the_same() {
        let older = [
            ("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "true"),
            ("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s"),
            ("ETCD_EXPERIMENTAL_MAX_LEARNERS", "3"),
            ("ETCD_MAX_LEARNERS", "2"),
            ("ETCD_EXPERIMENTAL_FOO", "1"),
            ("ETCD_EXPERIMENTAL_MEMORY_MLOCK", ""),
        ];
        let Command::Run(flags) = run(&[], &older) else { panic!("kubespray uses them") };
        assert_eq!(table::FEATURE_GATES.text(&flags), "InitialCorruptCheck=true");
        assert_eq!(table::WATCH_PROGRESS_NOTIFY_INTERVAL.text(&flags), "5s");
        assert_eq!(table::MAX_LEARNERS.get(&flags), 2, "the newer name counts");
        let warned = |text: &str| flags.notes.iter().filter(|it| it.message.contains(text)).count();
        assert_eq!((warned("taken for"), warned("ignored beside")), (2, 1));
        assert_eq!(warned("unrecognized environment variable"), 1);
        let wrong = [("ETCD_EXPERIMENTAL_MAX_LEARNERS", "x")];
        assert!(matches!(run(&[], &wrong), Command::Refuse(_)));
        let wrong = [("ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK", "x")];
        assert!(matches!(run(&[], &wrong), Command::Refuse(_)));
    }

    #[test]
    fn every_default_is_a_value() {
        for flag in table::all() {
            assert_eq!(flag.check(flag.default()), Ok(()), "{}", flag.name());
        }
        assert!(help().contains("  --data-dir '${name}.etcd'\n"));
    }
}
