//! `basalt doctor`: examines the machine for the member that these flags, this environment or this configuration file
//! would run, and starts nothing. It may run beside the member.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | nothing stands in the way of this member |
//! | 1 | it would run, and something would hurt it: each such line has an advice |
//! | 2 | it would not start, or the command line is wrong |
//!
//! No file is left behind, and none that exists is changed.

mod checks;

use gocompat::time::rfc3339;
use serde_json::{Value, json};

use super::config::Config;
use super::flags::{Command, parse};
use super::settings::{Level, Note};
use crate::io::clock;

/// The subcommand's name.
pub const DOCTOR: &str = "doctor";

/// The outcome of one check, and of all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warn => 1,
            Self::Fail => 2,
        }
    }
}

/// One fact.
#[derive(Clone, PartialEq, Debug)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// Empty if all is well.
    advice: String,
    /// The same as numbers, for scripts.
    values: Value,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        let (found, advice) = (found.into(), String::new());
        Self { check, verdict: Verdict::Ok, found, advice, values: json!({}) }
    }

    fn values(self, values: Value) -> Self {
        Self { values, ..self }
    }

    /// Turns it into a warning under a condition.
    fn warn_if(self, is_so: bool, advice: impl FnOnce() -> String) -> Self {
        match is_so {
            true => Self { verdict: self.verdict.max(Verdict::Warn), advice: advice(), ..self },
            false => self,
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = advice.into();
        Self { verdict: Verdict::Fail, advice, ..Self::ok(check, found) }
    }
}

/// The form of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Table,
    Json,
}

/// Text for standard output, text for standard error, and the exit code.
pub type DoctorOutcome = (String, String, u8);

/// Examines; `arguments` are those behind the subcommand.
pub fn doctor(
    arguments: &[String],
    environment: impl Iterator<Item = (String, String)>,
    read: impl FnOnce(&str) -> std::io::Result<String>,
) -> DoctorOutcome {
    let misuse = |text: String| (String::new(), format!("{text}\n"), Verdict::Fail.exit_code());
    let (format, rest) = match own_arguments(arguments) {
        Ok(parsed) => parsed,
        Err(text) => return misuse(text),
    };
    let mut notes = Vec::new();
    let findings = match parse(rest.into_iter(), environment, read) {
        Command::Version | Command::Help => return (usage().to_owned(), String::new(), 0),
        Command::Misuse(text) => return misuse(text),
        Command::Refuse(note) => vec![refused(&note)],
        Command::Run(flags) => match Config::new(&flags, Vec::new()) {
            Err(note) => vec![refused(&note)],
            Ok(config) => {
                let told = flags.notes.iter().chain(&config.notes);
                notes.extend(told.filter(|note| note.level != Level::Info).map(text_of));
                checks::all(&config)
            }
        },
    };
    let report = Report { findings, notes };
    let verdict = report.verdict();
    (report.text(format), String::new(), verdict.exit_code())
}

/// The text of `doctor --help`.
fn usage() -> &'static str {
    "Usage:\n\
     \n  basalt doctor [-w table|json] [flags]\n    Examine the machine for the member that would run with these flags, or with\n    \
     the same environment or --config-file. Nothing is started, and no file is left behind.\n\
     \n    Exit code 0: all is well; 1: something would hurt the member; 2: it would not start.\n"
}

/// The flags of the subcommand itself, and all others.
fn own_arguments(arguments: &[String]) -> Result<(Format, Vec<String>), String> {
    let (mut format, mut rest) = (Format::Table, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let name = argument.trim_start_matches('-');
        let (name, given) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        if !argument.starts_with('-') || !["w", "write-out"].contains(&name) {
            rest.push(argument.clone());
            continue;
        }
        let value = given.or_else(|| arguments.next().map(String::as_str));
        format = match value {
            Some("table" | "simple") => Format::Table,
            Some("json") => Format::Json,
            Some(other) => return Err(format!("unknown output format {other:?}: table or json")),
            None => return Err(format!("flag needs an argument: -{name}")),
        };
    }
    Ok((format, rest))
}

fn text_of(note: &Note) -> String {
    let about = note.about.iter().map(|(name, value)| format!(" ({name}: {value})"));
    std::iter::once(note.message.clone()).chain(about).collect()
}

fn refused(note: &Note) -> Finding {
    Finding::fail("configuration", text_of(note), "correct the flags; the member does not start")
}

/// All findings, and warnings that the start would log.
struct Report {
    findings: Vec<Finding>,
    notes: Vec<String>,
}

impl Report {
    fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }

    fn text(&self, format: Format) -> String {
        match format {
            Format::Table => self.table(),
            Format::Json => format!("{}\n", self.json()),
        }
    }

    fn json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "check": finding.check,
                "verdict": finding.verdict.name(),
                "found": finding.found,
                "advice": finding.advice,
                "values": finding.values,
            })
        });
        json!({
            "verdict": self.verdict().name(),
            "time": rfc3339(clock::unix_time()),
            "basalt_version": env!("CARGO_PKG_VERSION"),
            "checks": findings.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    fn table(&self) -> String {
        let width = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { check, verdict, found, advice, .. } in &self.findings {
            let verdict = verdict.name().to_uppercase();
            text.push_str(&format!("{verdict:<4}  {check:<width$}  {found}\n"));
            if !advice.is_empty() {
                text.push_str(&format!("{:6}{:width$}  -> {advice}\n", "", ""));
            }
        }
        for note in &self.notes {
            text.push_str(&format!("note  {note}\n"));
        }
        let count = |verdict| self.findings.iter().filter(|it| it.verdict == verdict).count();
        let (warnings, failures) = (count(Verdict::Warn), count(Verdict::Fail));
        text.push_str(&match (warnings, failures) {
            (0, 0) => "nothing stands in the way of this member\n".to_owned(),
            (_, 0) => format!("the member would run; {warnings} to look at\n"),
            _ => format!(
                "the member would not start: {failures} to correct, {warnings} to look at\n"
            ),
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> DoctorOutcome {
        let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
        doctor(&arguments, std::iter::empty(), |_| Err(std::io::Error::other("no file")))
    }

    #[test]
    fn its_own_flags_are_told_from_the_members() {
        let own = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
            own_arguments(&arguments)
        };
        let rest = vec!["--name=a".to_owned(), "--data-dir".to_owned(), "b".to_owned()];
        assert_eq!(own(&["--name=a", "-w", "json", "--data-dir", "b"]), Ok((Format::Json, rest)));
        assert_eq!(own(&["--write-out=table"]), Ok((Format::Table, Vec::new())));
        assert!(own(&["-w", "yaml"]).is_err() && own(&["-w"]).is_err());
    }

    #[test]
    fn wrong_flags_are_told_with_the_code_of_a_member_that_does_not_start() {
        let (out, error, code) = run(&["--foo"]);
        assert_eq!((out.as_str(), code), ("", 2));
        assert!(error.contains("flag provided but not defined: -foo"), "{error}");
        let (out, _, code) = run(&["--heartbeat-interval=500"]);
        assert_eq!(code, 2);
        assert!(out.starts_with("FAIL  configuration  failed to verify flags"), "{out}");
        assert_eq!(run(&["--help"]).2, 0);
    }

    #[test]
    fn the_worst_finding_decides() {
        let fine = Finding::ok("a", "b");
        let warning = fine.clone().warn_if(true, || "c".into());
        let report = |findings| Report { findings, notes: Vec::new() }.verdict().exit_code();
        assert_eq!(report(vec![fine.clone()]), 0);
        assert_eq!(report(vec![warning.clone(), fine.clone()]), 1);
        assert_eq!(report(vec![warning.clone(), Finding::fail("d", "e", "f"), fine]), 2);
        assert!(
            Report { findings: vec![warning], notes: vec!["n".into()] }.table().contains("-> c")
        );
    }
}
