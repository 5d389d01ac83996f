//! `basaltutl`: etcdutl's commands, flags, output and exit codes, for snapshots of etcd and of Basalt.
//!
//! [`command`] lists commands and flags, [`args`] parses the command line as cobra does, [`cluster`] its member lists,
//! [`restore`] makes a data directory, [`member`] inspects one, [`log`] one that does not start, [`complete`] serves shells,
//! [`output`] prints.

mod args;
mod cluster;
mod command;
mod complete;
mod log;
mod member;
mod output;
mod restore;
mod usage;

use std::path::Path;

use basalt::cluster::Version;
use basalt::io::BoltFile;
use basalt::snapshot;
use basalt::snapshot::bolt::Reader;

use self::args::Args;
use self::command::Command;
use self::output::Format;

/// etcdutl's exit codes.
pub(crate) mod exit {
    /// The command failed.
    pub(crate) const ERROR: u8 = 1;
    /// The output format is unknown.
    pub(crate) const BAD_FEATURE: u8 = 4;
    /// The arguments are invalid.
    pub(crate) const BAD_ARGS: u8 = 128;
}

/// An early end of a command: text for standard error, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Printed after `Error: `.
    pub(crate) text: String,
    /// Printed before, if the command line itself is invalid.
    pub(crate) usage: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { text: text.into(), usage: None, code }
    }

    pub(crate) fn error(text: impl ToString) -> Self {
        Self::new(exit::ERROR, text.to_string())
    }

    /// A failed operation on a file, with Go's text of the system's error.
    pub(crate) fn file(deed: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::error(format!("{deed} {}: {}", path.display(), go_text(error)))
    }
}

/// The system's error text, as Go prints it.
pub(crate) fn go_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Runs one command; returns the exit code.
pub fn run(arguments: Vec<String>) -> u8 {
    match dispatch(arguments) {
        Ok(()) => 0,
        Err(Failure { text, usage, code }) => {
            if let Some(usage) = usage {
                output::error(&format!("Error: {text}\n{usage}"));
            }
            output::error(&format!("Error: {text}"));
            code
        }
    }
}

fn dispatch(arguments: Vec<String>) -> Result<(), Failure> {
    if let Some((first, words)) = arguments.split_first()
        && ["__complete", "__completeNoDesc"].contains(&first.as_str())
    {
        complete::complete(words, first == "__complete");
        return Ok(());
    }
    let args = args::read(arguments)?;
    if args.is_on("help") {
        output::text(&usage::of(args.command));
        return Ok(());
    }
    args.check_required()?;
    match args.command {
        Command::Completion => complete::script(&args)?,
        Command::Defrag => member::defrag(&args)?,
        Command::Help => usage::help(&args.positional),
        Command::Migrate => member::migrate(&args)?,
        Command::Root | Command::Snapshot => output::text(&usage::of(args.command)),
        Command::Version => {
            let (version, api) = (Version::SERVER, api_version());
            output::text(&format!("etcdutl version: {version}\nAPI version: {api}\n"));
        }
        Command::Status => status(&args)?,
        Command::HashKv => hash_kv(&args)?,
        Command::Restore => restore::restore(&args)?,
        Command::Save => log::save(&args)?,
        Command::Verify => log::verify(&args)?,
    }
    Ok(())
}

/// The version of etcd's API that Basalt serves: `X.Y`.
pub(crate) fn api_version() -> String {
    Version::SERVER.short()
}

fn status(args: &Args) -> Result<(), Failure> {
    let [path] = &args.positional[..] else {
        let text = "snapshot status requires exactly one argument";
        return Err(Failure::new(exit::BAD_ARGS, text));
    };
    let path = Path::new(path);
    path.metadata().map_err(|error| Failure::file("stat", path, &error))?;
    let format = Format::new(args.get("write-out"))?;
    let status = snapshot::status(&open(path)?).map_err(Failure::error)?;
    output::text(&format.status(&status)?);
    Ok(())
}

fn hash_kv(args: &Args) -> Result<(), Failure> {
    let [path] = &args.positional[..] else {
        let text = format!("accepts 1 arg(s), received {}", args.positional.len());
        return Err(usage::misuse(Command::HashKv, text));
    };
    let format = Format::new(args.get("write-out"))?;
    let path = Path::new(path);
    path.metadata().map_err(|error| Failure::file("stat", path, &error))?;
    let revision = args.number("rev")?;
    let found = snapshot::hash_kv(&open(path)?, revision).map_err(|error| {
        use basalt::types::{Error, Refusal};
        // Without the server's prefix.
        Failure::error(match error {
            Error::Refused(Refusal::Compacted) => {
                "mvcc: required revision has been compacted".to_owned()
            }
            Error::Refused(Refusal::FutureRev) => {
                "mvcc: required revision is a future revision".to_owned()
            }
            Error::Refused(refusal) => refusal.text().to_owned(),
            Error::Faulty(fault) => fault.to_string(),
        })
    })?;
    output::text(&format.hash_kv(&found)?);
    Ok(())
}

pub(crate) fn open(path: &Path) -> Result<Reader<BoltFile>, Failure> {
    let file = BoltFile::open(path).map_err(|error| Failure::file("open", path, &error))?;
    Reader::open(file).map_err(Failure::error)
}
