//! Runs `scripts/*.txt`: commands, `---`, and their whole output. With `UPDATE_SCRIPTS=1` in the environment the output
//! is written again: read the diff.
//!
//! ```text
//! config stream=500 …              bounds, before anything else
//! open 1 [interval=1000]           close 1
//! create 1 a [b] [start=3] [id=7] [prev_kv] [fragment] [notify] [no_put] [no_delete]
//! cancel 1 7      progress 1       refuse 1 because…       tick 1000
//! put a=1, delete b | put c=2      one batch of two revisions, published and sent to the hub
//! lose put a=1                     published, but the hub does not receive it
//! late put a=1                     published; the hub receives it at `arrive`
//! read                             performs the requested ReadHistory
//! take 1 [n]                       the client takes n responses, or all
//! compact 5       resync           stats
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use basalt_proto::mvccpb;
use bytes::Bytes;

use super::fixture::{Change, Store, typed};
use super::{Config, Hub, Input, Output, StreamId};
use crate::mvcc::Event;

struct Runner {
    config: Config,
    hub: Option<Hub>,
    store: Store,
    late: VecDeque<Input>,
    /// Costs of what each stream holds.
    held: BTreeMap<StreamId, VecDeque<usize>>,
    read: Option<(i64, usize, usize)>,
    text: String,
}

#[test]
fn conversations_are_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/watch/scripts");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let script = fs::read_to_string(&path).unwrap();
        let (commands, expected) = script.split_once("---\n").unwrap_or((&script, ""));
        let conversation = Runner::run(commands);
        if env::var_os("UPDATE_SCRIPTS").is_some() {
            fs::write(&path, format!("{commands}---\n{conversation}")).unwrap();
        } else {
            assert_eq!(conversation, expected, "{}", path.display());
        }
    }
}

impl Runner {
    fn run(commands: &str) -> String {
        let mut runner = Self {
            config: Config::new(2 << 20),
            hub: None,
            store: Store::default(),
            late: VecDeque::new(),
            held: BTreeMap::new(),
            read: None,
            text: String::new(),
        };
        for line in commands.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            writeln!(runner.text, "$ {line}").unwrap();
            let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
            runner.command(command, rest);
        }
        runner.text
    }

    fn command(&mut self, command: &str, rest: &str) {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let stream = || words[0].parse::<StreamId>().unwrap();
        let published = self.store.published();
        match command {
            "config" => words.iter().for_each(|word| self.configure(word)),
            "open" => {
                let progress_interval_ms = setting(&words, "interval").unwrap_or(600_000);
                self.tell(Input::Open { stream: stream(), progress_interval_ms });
            }
            "close" => self.tell(Input::Close(stream())),
            "create" => {
                self.tell(Input::Create { stream: stream(), request: create(&words), published })
            }
            "refuse" => {
                self.tell(Input::Refuse {
                    stream: stream(),
                    reason: words[1..].join(" "),
                    published,
                });
            }
            "cancel" => {
                let watch_id = words[1].parse().unwrap();
                self.tell(Input::Cancel { stream: stream(), watch_id, published });
            }
            "progress" => self.tell(Input::Progress { stream: stream(), published }),
            "tick" => self.tell(Input::Tick { now_ms: words[0].parse().unwrap() }),
            "put" | "delete" => {
                let input = self.apply(&format!("{command} {rest}"));
                self.tell(input);
            }
            "lose" => drop(self.apply(rest)),
            "late" => {
                let input = self.apply(rest);
                self.late.push_back(input);
            }
            "arrive" => {
                let input = self.late.pop_front().unwrap();
                self.tell(input);
            }
            "compact" => self.store.compact(words[0].parse().unwrap()),
            "resync" => self.tell(Input::Resync(published)),
            "read" => {
                let Some((from, revisions_max, bytes_max)) = self.read.take() else {
                    return self.text.push_str("  nothing to read\n");
                };
                let history = self.store.history(from, revisions_max, bytes_max);
                self.tell(Input::History(history));
            }
            "take" => self.take(stream(), words.get(1).map(|word| word.parse().unwrap())),
            "stats" => {
                let stats = self.hub().stats();
                writeln!(self.text, "  {stats:?}").unwrap();
            }
            other => panic!("unknown command {other}"),
        }
    }

    fn configure(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap();
        let value = value.parse().unwrap();
        let config = &mut self.config;
        *match name {
            "fragment" => &mut config.fragment_bytes,
            "response" => &mut config.response_bytes_max,
            "stream" => &mut config.stream_bytes_max,
            "share" => &mut config.stream_bytes_share,
            "hub" => &mut config.hub_bytes_max,
            "revisions" => &mut config.read_revisions_max,
            "watchers" => &mut config.watchers_max,
            other => panic!("unknown bound {other}"),
        } = value;
    }

    fn hub(&mut self) -> &mut Hub {
        self.hub.get_or_insert_with(|| Hub::new(self.config, 1))
    }

    fn apply(&mut self, batch: &str) -> Input {
        let revisions = batch.split('|').map(|revision| self.store.change(&changes(revision)));
        let events: Vec<Event> = revisions.flatten().collect();
        Input::Events { events: Arc::from(events), revision: self.store.revision() }
    }

    fn take(&mut self, stream: StreamId, count: Option<usize>) {
        let held = self.held.entry(stream).or_default();
        let bytes = held.drain(..count.unwrap_or(held.len())).sum();
        self.tell(Input::Sent { stream, bytes });
    }

    fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        self.hub().on(input, &mut out);
        for output in out {
            match output {
                Output::Send { stream, response, cost } => {
                    self.held.entry(stream).or_default().push_back(cost);
                    writeln!(self.text, "  to {stream}: {}", show(&typed(&response))).unwrap();
                }
                Output::ReadHistory { from, revisions_max, bytes_max } => {
                    self.read = Some((from, revisions_max, bytes_max));
                    writeln!(self.text, "  read from {from}").unwrap();
                }
            }
        }
    }
}

fn setting<T: std::str::FromStr>(words: &[&str], name: &str) -> Option<T> {
    let mut settings = words.iter().filter_map(|word| word.split_once('='));
    settings.find(|(known, _)| *known == name).and_then(|(_, value)| value.parse().ok())
}

/// `""` stands for an empty key and `0` for a zero byte.
fn key(word: &str) -> Bytes {
    match word {
        "\"\"" => Bytes::new(),
        "0" => Bytes::from_static(b"\0"),
        word => Bytes::copy_from_slice(word.as_bytes()),
    }
}

fn create(words: &[&str]) -> WatchCreateRequest {
    let has = |name: &str| words.contains(&name);
    let flags = ["prev_kv", "fragment", "notify", "no_put", "no_delete"];
    let end = words.get(2).filter(|word| !word.contains('=') && !flags.contains(word));
    let filters = ["no_put", "no_delete"].iter().enumerate().filter(|(_, name)| has(name));
    WatchCreateRequest {
        key: key(words[1]),
        range_end: end.map_or_else(Bytes::new, |word| key(word)),
        start_revision: setting(words, "start").unwrap_or(0),
        progress_notify: has("notify"),
        filters: filters.map(|(number, _)| number as i32).collect(),
        prev_kv: has("prev_kv"),
        watch_id: setting(words, "id").unwrap_or(0),
        fragment: has("fragment"),
    }
}

fn changes(revision: &str) -> Vec<Change> {
    let change = |text: &str| {
        let (verb, object) = text.trim().split_once(' ').unwrap();
        match verb {
            "put" => {
                let (key, value) = object.split_once('=').unwrap();
                // `x*500` is a long value.
                let value = match value.split_once('*') {
                    Some((letter, count)) => letter.repeat(count.parse().unwrap()),
                    None => value.to_owned(),
                };
                (key.to_owned(), Some(value))
            }
            "delete" => (object.to_owned(), None),
            other => panic!("unknown change {other}"),
        }
    };
    revision.split(',').map(change).collect()
}

fn show(response: &WatchResponse) -> String {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let mut text = format!("watch {} at {revision}", response.watch_id);
    for (flag, name) in [
        (response.created, "created"),
        (response.canceled, "canceled"),
        (response.fragment, "fragment"),
    ] {
        if flag {
            write!(text, " {name}").unwrap();
        }
    }
    if response.compact_revision != 0 {
        write!(text, " compacted={}", response.compact_revision).unwrap();
    }
    if !response.cancel_reason.is_empty() {
        write!(text, " reason={:?}", response.cancel_reason).unwrap();
    }
    response.events.iter().for_each(|event| text.push_str(&show_event(event)));
    text
}

fn show_event(event: &mvccpb::Event) -> String {
    let show = |kv: &mvccpb::KeyValue| {
        let value = String::from_utf8_lossy(&kv.value).into_owned();
        let value =
            if value.len() > 9 { format!("{}*{}", &value[..1], value.len()) } else { value };
        format!("{}={value}@{}", String::from_utf8_lossy(&kv.key), kv.mod_revision)
    };
    let verb = if event.r#type == 1 { "delete" } else { "put" };
    let prev =
        event.prev_kv.as_ref().map_or_else(String::new, |prev| format!(" was {}", show(prev)));
    format!(" [{verb} {}{prev}]", show(event.kv.as_ref().unwrap()))
}
