//! Logs in zap's shape, one JSON object a line, so that what reads etcd's logs reads ours; or a line for
//! people (`--log-format console`).

use std::fs::{File, OpenOptions};
use std::io::Write;

use gocompat::time::rfc3339_micros;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::settings::{Flags, Level, Note};
use super::table;
use crate::io::clock;

/// Events of this target end the process, and are told so.
const FATAL: &str = "basalt::fatal";

/// How logs are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    level: LevelFilter,
    outputs: Vec<String>,
    console: bool,
}

impl Options {
    /// As the flags say.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(flags: &Flags) -> Result<Self, String> {
        let logger = table::LOGGER.get(flags);
        if logger != "zap" {
            return Err(format!("unknown logger option {logger:?}"));
        }
        let outputs = table::LOG_OUTPUTS.get(flags);
        if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
            return Err("multi logoutput for \"default\" is not supported yet".to_owned());
        }
        if let Some(journal) = outputs.iter().find(|it| it.as_str() == "systemd/journal") {
            return Err(format!(
                "this version of Basalt does not write to {journal}; what it writes to stderr, systemd \
                 takes there"
            ));
        }
        let level = match table::LOG_LEVEL.get(flags).as_str() {
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" => LevelFilter::WARN,
            "error" | "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
            other => return Err(format!("unrecognized level: {other:?}")),
        };
        let console = match table::LOG_FORMAT.get(flags).as_str() {
            "json" | "" => false,
            "console" => true,
            other => {
                return Err(format!("unknown log format: {other}, supported values json, console"));
            }
        };
        Ok(Self { level, outputs, console })
    }
}

impl Default for Options {
    /// Before anything is known.
    fn default() -> Self {
        Self { level: LevelFilter::INFO, outputs: Vec::new(), console: false }
    }
}

enum Output {
    Stderr,
    Stdout,
    File(File),
}

impl Output {
    fn write(&self, line: &[u8]) {
        // Nobody can be told that the log cannot be written. Each line is one write, so that lines of several
        // threads do not mix.
        let _ = match self {
            Self::Stderr => std::io::stderr().write_all(line),
            Self::Stdout => std::io::stdout().write_all(line),
            Self::File(file) => (&*file).write_all(line),
        };
    }
}

fn open(output: &str) -> Result<Output, String> {
    Ok(match output {
        "default" | "stderr" | "/dev/stderr" => Output::Stderr,
        "stdout" | "/dev/stdout" => Output::Stdout,
        path => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Output::File(file.map_err(|error| {
                let error = match error.kind() == std::io::ErrorKind::NotFound {
                    true => "no such file or directory".to_owned(),
                    false => error.to_string(),
                };
                format!("open sink {path:?}: open {path}: {error}")
            })?)
        }
    })
}

/// Writes logs from now on.
///
/// # Errors
/// A file cannot be opened.
pub fn start(options: &Options) -> Result<(), String> {
    let mut outputs =
        options.outputs.iter().map(|output| open(output)).collect::<Result<Vec<_>, _>>()?;
    if outputs.is_empty() {
        outputs.push(Output::Stderr);
    }
    // Libraries speak only of what goes wrong.
    let ours = Targets::new()
        .with_target("basalt", options.level)
        .with_default(LevelFilter::WARN.min(options.level));
    let zap = Zap { outputs, console: options.console };
    // It fails only where logs are written already, in a test.
    drop(tracing_subscriber::registry().with(zap.with_filter(ours)).try_init());
    Ok(())
}

/// Logs what was noted before logs were written.
pub fn say(note: &Note) {
    let about: Vec<(&str, &str)> =
        note.about.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (message, about) = (note.message.as_str(), Value::from_iter(about));
    match note.level {
        Level::Info => tracing::info!(about = %about, "{message}"),
        Level::Warn => tracing::warn!(about = %about, "{message}"),
        Level::Fatal => tracing::error!(target: FATAL, about = %about, "{message}"),
    }
}

struct Zap {
    outputs: Vec<Output>,
    console: bool,
}

/// What an event says, in its order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            // Pairs whose names are not known when this is compiled.
            ("about", Value::String(text)) => {
                if let Ok(Value::Object(pairs)) = serde_json::from_str(&text) {
                    self.others.extend(pairs);
                }
            }
            (name, value) => self.others.push((name.replace('_', "-"), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

impl<S: Subscriber> Layer<S> for Zap {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing::Level::ERROR if metadata.target() == FATAL => "fatal",
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
        };
        let file = metadata.file().unwrap_or_default();
        // Of a library's path, what is inside it.
        let file = file.rsplit_once("src/").map_or(file, |(_, inside)| inside);
        let caller = format!("{file}:{}", metadata.line().unwrap_or(0));
        let time = rfc3339_micros(clock::unix_time());
        let line = match self.console {
            true => console(&time, level, &caller, &fields),
            false => json(&time, level, &caller, &fields),
        };
        self.outputs.iter().for_each(|output| output.write(line.as_bytes()));
    }
}

fn string(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn json(time: &str, level: &str, caller: &str, fields: &Fields) -> String {
    let (caller, message) = (string(caller), string(&fields.message));
    let mut line =
        format!(r#"{{"level":"{level}","ts":"{time}","caller":{caller},"msg":{message}"#);
    for (name, value) in &fields.others {
        line.push_str(&format!(",{}:{value}", string(name)));
    }
    line.push_str("}\n");
    line
}

fn console(time: &str, level: &str, caller: &str, fields: &Fields) -> String {
    let mut line = format!("{time}\t{level}\t{caller}\t{}", fields.message);
    let pairs = fields.others.iter().map(|(name, value)| format!("{}: {value}", string(name)));
    let pairs: Vec<_> = pairs.collect();
    if !pairs.is_empty() {
        line.push_str(&format!("\t{{{}}}", pairs.join(", ")));
    }
    line.push('\n');
    line
}
