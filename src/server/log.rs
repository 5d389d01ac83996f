//! Logs in zap's format, one JSON object a line, so that tools for etcd's logs can read ours; or lines for people
//! (`--log-format console`).

mod limit;

use std::sync::Arc;
use std::time::Duration;

use gocompat::time::rfc3339_micros;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use self::limit::{Limiter, Site};
use super::settings::{Flags, Level, Note};
use super::table;
use crate::io::{self, Journal, LogOutput, LogQueue, Reports, RotatedFile, Rotation, clock};

/// The size past which the log's file is rotated if nothing else is said; lumberjack's, too.
const MEBIBYTES_DEFAULT: u64 = 100;

/// Events of this target end the process, and are logged with level fatal.
const FATAL: &str = "basalt::fatal";
/// The target of raft-rs's log lines; see [`super::raft_log`].
pub(super) const RAFT: &str = "raft";

/// The output of the log that is systemd's journal.
const JOURNAL: &str = "systemd/journal";

/// Options of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    level: LevelFilter,
    outputs: Vec<String>,
    console: bool,
    /// Of the one file among the outputs.
    rotation: Option<Rotation>,
}

impl Options {
    /// The options in the flags.
    ///
    /// # Errors
    /// The invalid flag.
    pub fn new(flags: &Flags) -> Result<Self, String> {
        let logger = table::LOGGER.get(flags);
        if logger != "zap" {
            return Err(format!("unknown logger option {logger:?}"));
        }
        let outputs = table::LOG_OUTPUTS.get(flags);
        if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
            return Err("multi logoutput for \"default\" is not supported yet".to_owned());
        }
        if outputs.len() > 1 && outputs.iter().any(|it| it == JOURNAL) {
            return Err(format!(
                "running with systemd/journal but other '--log-outputs' values ({outputs:?}) are configured with \
                 'default'; override 'default' value with something else"
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
        let rotation_json = table::LOG_ROTATION_CONFIG_JSON.get(flags);
        let rotation = match table::ENABLE_LOG_ROTATION.get(flags) {
            true => Some(rotation(&outputs, &rotation_json)?),
            false => None,
        };
        Ok(Self { level, outputs, console, rotation })
    }
}

impl Default for Options {
    /// The options before the flags are parsed.
    fn default() -> Self {
        Self { level: LevelFilter::INFO, outputs: Vec::new(), console: false, rotation: None }
    }
}

/// The value of `--log-rotation-config-json`; errors are etcd's texts.
fn rotation(outputs: &[String], json: &str) -> Result<Rotation, String> {
    let is_file = |output: &&String| !["default", "stderr", "stdout"].contains(&output.as_str());
    if outputs.iter().filter(is_file).count() != 1 {
        let text =
            "--log-outputs requires a single file path when --log-rotate-config-json is defined";
        return Err(text.to_owned());
    }
    #[derive(serde::Deserialize)]
    #[serde(default)]
    struct Settings {
        maxsize: u64,
        maxage: u64,
        maxbackups: usize,
        compress: bool,
    }
    impl Default for Settings {
        fn default() -> Self {
            Self { maxsize: MEBIBYTES_DEFAULT, maxage: 0, maxbackups: 0, compress: false }
        }
    }
    let settings: Settings = serde_json::from_str(json).map_err(|error| match error.is_data() {
        true => format!("invalid log rotation config: {error}"),
        false => format!("improperly formatted log rotation config: {error}"),
    })?;
    let mebibytes = if settings.maxsize == 0 { MEBIBYTES_DEFAULT } else { settings.maxsize };
    Ok(Rotation {
        bytes_max: mebibytes.saturating_mul(1 << 20),
        count_max: (settings.maxbackups > 0).then_some(settings.maxbackups),
        age_max: (settings.maxage > 0)
            .then(|| Duration::from_secs(settings.maxage.saturating_mul(86_400))),
        compressed: settings.compress,
    })
}

fn open(output: &str, rotation: Option<Rotation>) -> Result<LogOutput, String> {
    Ok(match output {
        "default" | "stderr" | "/dev/stderr" => LogOutput::Stderr,
        "stdout" | "/dev/stdout" => LogOutput::Stdout,
        JOURNAL => {
            let journal = Journal::connect();
            LogOutput::Journal(journal.map_err(|error| {
                let error = match error.kind() == std::io::ErrorKind::NotFound {
                    true => "no such file or directory".to_owned(),
                    false => error.to_string(),
                };
                format!("dial unixgram /run/systemd/journal/socket: connect: {error}")
            })?)
        }
        path => {
            if let Some(rotation) = rotation {
                let file = RotatedFile::open(path, rotation);
                return file
                    .map(LogOutput::Rotated)
                    .map_err(|error| format!("open {path}: {error}"));
            }
            LogOutput::file(path).map_err(|error| {
                let error = match error.kind() == std::io::ErrorKind::NotFound {
                    true => "no such file or directory".to_owned(),
                    false => error.to_string(),
                };
                format!("open sink {path:?}: open {path}: {error}")
            })?
        }
    })
}

/// Starts the log.
///
/// # Errors
/// A file cannot be opened.
pub fn start(options: &Options) -> Result<(), String> {
    let mut outputs = options
        .outputs
        .iter()
        .map(|output| open(output, options.rotation))
        .collect::<Result<Vec<_>, _>>()?;
    if outputs.is_empty() {
        outputs.push(LogOutput::Stderr);
    }
    // Of libraries only warnings and errors are logged.
    let ours = Targets::new()
        .with_target("basalt", options.level)
        .with_target(RAFT, options.level)
        .with_default(LevelFilter::WARN.min(options.level));
    let (format, limiter) = (Format { console: options.console }, Arc::<Limiter>::default());
    let reports = reports(format, Arc::clone(&limiter));
    let queue = io::start_log(outputs, reports).map_err(|fault| fault.to_string())?;
    let zap = Zap { queue, format, limiter };
    // It fails only if a log exists already, in a test.
    drop(tracing_subscriber::registry().with(zap.with_filter(ours)).try_init());
    Ok(())
}

/// Logs a note that was made before the log was started.
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
    queue: &'static LogQueue,
    format: Format,
    limiter: Arc<Limiter>,
}

/// Format of a line.
#[derive(Clone, Copy)]
struct Format {
    /// A line for people; else a JSON object.
    console: bool,
}

/// The fields of an event, in its order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
    /// The file of a library's line, if the event was made elsewhere.
    file: Option<String>,
    line: Option<u32>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            // Pairs whose names are not known at compile time.
            ("about", Value::String(text)) => {
                if let Ok(Value::Object(pairs)) = serde_json::from_str(&text) {
                    self.others.extend(pairs);
                }
            }
            // Fields of lines that were not made by tracing's macros.
            ("from_file", Value::String(file)) => self.file = Some(file),
            ("from_line", Value::Number(line)) => {
                self.line = line.as_u64().and_then(|line| u32::try_from(line).ok());
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
        let metadata = event.metadata();
        let time = clock::unix_time();
        let mut fields = Fields::default();
        let is_foreign = metadata.target() == RAFT;
        if is_foreign {
            event.record(&mut fields);
        }
        let file = fields.file.take().unwrap_or_else(|| metadata.file().unwrap_or_default().into());
        let site = (inside(&file).to_owned(), fields.line.or(metadata.line()).unwrap_or(0));
        if !self.limiter.admits(site.clone(), time.as_secs()) {
            return;
        }
        if !is_foreign {
            event.record(&mut fields);
        }
        let level = match *metadata.level() {
            tracing::Level::ERROR if metadata.target() == FATAL => "fatal",
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
        };
        let is_error = *metadata.level() == tracing::Level::ERROR;
        self.queue.push(self.format.line(time, level, &site, &fields).as_bytes(), is_error);
    }
}

/// The part of a library's path inside its crate.
fn inside(file: &str) -> &str {
    file.rsplit_once("src/").map_or(file, |(_, inside)| inside)
}

impl Format {
    fn line(self, time: Duration, level: &str, (file, line): &Site, fields: &Fields) -> String {
        let (time, caller) = (rfc3339_micros(time), format!("{file}:{line}"));
        match self.console {
            true => console(&time, level, &caller, fields),
            false => json(&time, level, &caller, fields),
        }
    }
}

/// Lines that report suppressed and dropped lines.
fn reports(format: Format, limiter: Arc<Limiter>) -> Reports {
    Box::new(move |dropped| {
        let time = clock::unix_time();
        let site = (inside(file!()).to_owned(), line!());
        let report = |message: &str, others: Vec<(String, Value)>| {
            let fields = Fields { message: message.to_owned(), others, ..Fields::default() };
            format.line(time, "warn", &site, &fields)
        };
        let count = |count: u64| ("count".to_owned(), count.into());
        let suppressed = limiter.take_suppressed(time.as_secs()).into_iter();
        let mut lines: Vec<_> = suppressed
            .map(|((file, line), lines)| {
                let of = ("suppressed-caller".to_owned(), format!("{file}:{line}").into());
                report(
                    "suppressed log lines of a call site that wrote too many",
                    vec![of, count(lines)],
                )
            })
            .collect();
        if dropped > 0 {
            let message = "dropped log lines: too many waited to be written";
            lines.push(report(message, vec![count(dropped)]));
        }
        lines
    })
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
