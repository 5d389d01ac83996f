//! The server; with `gateway` or `grpc-proxy` as its first word, a program of the crate `proxy` instead, with `pod` that of
//! the crate `pod`.

use std::fs::read_to_string;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use basalt::io::{flush_log, make_self_signed};
use basalt::server::{self, Command, Config, Flags, Level, LogOptions, MemberFiles, Note};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of Go's flag package.
const MISUSE: u8 = 2;

fn main() -> ExitCode {
    let code = start();
    flush_log();
    code
}

fn start() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if proxy::is_meant(&arguments) {
        return ExitCode::from(proxy::run(&arguments, self_sign));
    }
    if arguments.get(1).is_some_and(|first| first == server::DOCTOR) {
        return doctor(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|first| first == pod::WORD) {
        return ExitCode::from(as_pod(&arguments[2..]));
    }
    match server::parse(arguments.iter().skip(1).cloned(), std::env::vars(), |path| {
        read_to_string(path)
    }) {
        Command::Version => {
            say(&version());
            ExitCode::SUCCESS
        }
        Command::Help => {
            eprint!("{}", server::usage());
            say(&server::help());
            ExitCode::SUCCESS
        }
        Command::Misuse(text) => {
            eprintln!("{text}");
            eprint!("{}", server::usage());
            ExitCode::from(MISUSE)
        }
        Command::Refuse(note) => refuse(&LogOptions::default(), &[], &note),
        Command::Run(flags) => run(&flags, arguments),
    }
}

/// The certificate of `grpc-proxy --auto-tls`.
fn self_sign(dir: &Path, hosts: &[String], years: u64) -> Result<(PathBuf, PathBuf), String> {
    let made = make_self_signed(dir, hosts, years, true).map_err(|fault| fault.to_string())?;
    Ok((made.certificate, made.key))
}

/// Runs a member as a pod of a StatefulSet.
fn as_pod(arguments: &[String]) -> u8 {
    let (values, rest) = match pod::parse(arguments) {
        pod::Parsed::Help(text) => {
            print!("{text}");
            return 0;
        }
        pod::Parsed::Misuse(text) => {
            eprint!("{text}");
            return MISUSE;
        }
        pod::Parsed::Run(values, rest) => (values, rest),
    };
    let parsed = server::parse(rest.iter().cloned(), std::env::vars(), |path| read_to_string(path));
    let files = match parsed {
        Command::Run(flags) => MemberFiles::of(&flags),
        Command::Misuse(text) => Err(text),
        Command::Refuse(note) => {
            server::say(&note);
            Err(note.message)
        }
        Command::Version | Command::Help => Err("expected the flags of a member".to_owned()),
    };
    match files {
        Ok(MemberFiles { name, data_dir, wal_dir, ca, certificate, key }) => {
            let dirs = pod::DataDirs { data: data_dir, log: wal_dir };
            pod::run(&values, pod::Member { name, dirs, ca, certificate, key }, rest)
        }
        Err(text) => {
            eprintln!("{text}");
            MISUSE
        }
    }
}

/// Examines the machine; the exit codes are in the documentation of [`server::doctor`].
fn doctor(arguments: &[String]) -> ExitCode {
    let (out, error, code) =
        server::doctor(arguments, std::env::vars(), |path| read_to_string(path));
    say(&out);
    eprint!("{error}");
    ExitCode::from(code)
}

/// Four lines as etcd's, which scripts read, and one of Basalt.
fn version() -> String {
    format!(
        "etcd Version: {}\nGit SHA: Not provided\nGo Version: none (Rust)\nGo OS/Arch: linux/{}\nBasalt Version: {}\n",
        basalt::cluster::Version::SERVER,
        server::go_arch(),
        env!("CARGO_PKG_VERSION")
    )
}

/// Writes to standard output. A reader that has gone, as `head` does, is no fault.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Logs the reason why the member does not run.
fn refuse(options: &LogOptions, notes: &[Note], why: &Note) -> ExitCode {
    if let Err(text) = server::start_log(options) {
        eprintln!("{text}");
        return ExitCode::FAILURE;
    }
    notes.iter().for_each(server::say);
    server::say(why);
    ExitCode::FAILURE
}

fn run(flags: &Flags, arguments: Vec<String>) -> ExitCode {
    let outcome = LogOptions::new(flags).and_then(|options| {
        server::start_log(&options)?;
        Ok(options)
    });
    let log = match outcome {
        Ok(options) => options,
        Err(text) => {
            let message = "failed to verify flags".to_owned();
            let why = Note { level: Level::Warn, message, about: vec![("error", text)] };
            return refuse(&LogOptions::default(), &flags.notes, &why);
        }
    };
    let config = match Config::new(flags, arguments) {
        Ok(config) => config,
        Err(why) => return refuse(&log, &flags.notes, &why),
    };
    flags.notes.iter().chain(&config.notes).for_each(server::say);
    let about = serde_json::json!({ "args": config.command_line });
    tracing::info!(%about, "Running: ");
    match server::run(config, flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            let message = "the member cannot run".to_owned();
            let about = vec![("error", fault.to_string())];
            server::say(&Note { level: Level::Fatal, message, about });
            ExitCode::FAILURE
        }
    }
}
