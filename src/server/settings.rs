//! The values of flags as given, as text, and notes about them for the log. [`super::flag`] parses them.

use std::collections::BTreeMap;

/// A line to log once the log is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Its level.
    pub level: Level,
    /// The message.
    pub message: String,
    /// Names and values of its fields.
    pub about: Vec<(&'static str, String)>,
}

/// The level of a [`Note`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Information.
    Info,
    /// A setting that may be a mistake.
    Warn,
    /// The member cannot run.
    Fatal,
}

impl Note {
    pub(super) fn new(level: Level, message: impl Into<String>) -> Self {
        Self { level, message: message.into(), about: Vec::new() }
    }

    pub(super) fn about(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.about.push((name, value.into()));
        self
    }
}

/// Values by name of flag. Each was parsed once by its flag before it was stored here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
    /// Lines to log.
    pub notes: Vec<Note>,
    /// Gates given by names of older versions: how they were spelled, the gate, on or off.
    pub(super) older_gates: Vec<(String, &'static str, bool)>,
    /// The values come from a configuration file.
    pub(super) from_file: bool,
    #[cfg(test)]
    pub(super) reads: reads::Reads,
}

impl Flags {
    /// The given value of a flag.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Stores a value that its flag has parsed.
    pub(super) fn put(&mut self, name: &'static str, value: impl Into<String>) {
        self.values.insert(name, value.into());
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}

/// Records the flags that were read: a test checks that each flag with an effect is.
#[cfg(test)]
pub(super) mod reads {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Debug, Default)]
    pub(in crate::server) struct Reads(Arc<Mutex<BTreeSet<&'static str>>>);

    impl Reads {
        pub(in crate::server) fn note(&self, name: &'static str) {
            self.0.lock().expect("no test panics with it").insert(name);
        }

        pub(in crate::server) fn contains(&self, name: &str) -> bool {
            self.0.lock().expect("no test panics with it").contains(name)
        }
    }

    /// Flags with equal values are equal, whichever of them were read.
    impl PartialEq for Reads {
        fn eq(&self, _: &Self) -> bool {
            true
        }
    }

    impl Eq for Reads {}
}
