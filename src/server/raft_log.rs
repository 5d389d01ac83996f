//! Adapter of raft-rs's log lines to the member's log, with target `raft` and their own call sites.

use std::fmt::{Arguments, Write as _};

use serde_json::{Map, Value};
use slog::{Drain, KV as _, Key, Level, Never, OwnedKVList, Record, Serializer};

use super::log::RAFT;

/// The logger for raft-rs.
pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(Bridge, slog::o!())
}

/// Names of fields with member ids, which the log shows in hex as everywhere else.
const IDS: [&str; 7] = ["raft_id", "id", "from", "to", "leader_id", "leader", "candidate_id"];

/// Names of fields with whole messages or entries, which are left out: they hold the requests of clients, with values and
/// hashes of passwords.
const CONTENTS: [&str; 2] = ["msg", "ents"];

struct Bridge;

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        // raft-rs logs each message that it sends, and a level that is off must cost nothing.
        macro_rules! event {
            ($level:ident) => {
                if tracing::event_enabled!(target: RAFT, tracing::Level::$level) {
                    let about = fields(record, values);
                    let (file, line, message) = (record.file(), record.line(), record.msg());
                    tracing::event!(
                        target: RAFT, tracing::Level::$level,
                        from_file = file, from_line = line, about = %about, "{message}"
                    );
                }
            };
        }
        match record.level() {
            Level::Critical | Level::Error => event!(ERROR),
            Level::Warning => event!(WARN),
            Level::Info => event!(INFO),
            Level::Debug | Level::Trace => event!(DEBUG),
        }
        Ok(())
    }
}

/// The fields of a record and of its logger.
fn fields(record: &Record<'_>, values: &OwnedKVList) -> Value {
    let mut pairs = Pairs::default();
    // It only fails if `Pairs` does.
    let _ = record.kv().serialize(record, &mut pairs);
    let _ = values.serialize(record, &mut pairs);
    Value::Object(pairs.0)
}

/// Values by name.
#[derive(Default)]
struct Pairs(Map<String, Value>);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        if CONTENTS.contains(&key) {
            return Ok(());
        }
        let mut text = String::new();
        write!(text, "{value}")?;
        let id = text.parse::<u64>().ok().filter(|_| IDS.contains(&key));
        let text = id.map_or(text, |id| format!("{id:x}"));
        self.0.insert(key.replace('_', "-"), Value::String(text));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As raft-rs logs a message that it sends, and entries that it appends.
    #[test]
    fn requests_of_clients_are_not_logged() {
        let mut pairs = Pairs::default();
        for key in ["msg", "ents"] {
            pairs.emit_arguments(key, &format_args!("data: \"a value\"")).expect("taken");
        }
        pairs.emit_u64("to", 1).expect("taken");
        assert_eq!(Value::Object(pairs.0).to_string(), r#"{"to":"1"}"#);
    }

    #[test]
    fn values_are_kept_by_name_and_ids_in_hex() {
        let mut pairs = Pairs::default();
        pairs.emit_u64("from", 0x8e9e_05c5_2164_694d).expect("taken");
        pairs.emit_u64("term", 12).expect("taken");
        pairs.emit_str("pending_conf", "none").expect("taken");
        let text = Value::Object(pairs.0).to_string();
        assert_eq!(text, r#"{"from":"8e9e05c52164694d","pending-conf":"none","term":"12"}"#);
    }
}
