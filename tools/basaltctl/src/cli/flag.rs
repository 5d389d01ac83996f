//! A flag: its name, kind, default and description.

use gocompat::duration;

/// Type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Text,
    Int,
    Uint,
    Duration,
    /// Separated by commas; a repeated flag adds to the list.
    Texts,
}

/// One flag of a command.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) usage: &'static str,
    /// Not shown in help.
    pub(crate) hidden: bool,
    /// Not etcdctl's: shown nowhere, so that what is shown is what etcdctl shows.
    pub(crate) own: bool,
}

impl Flag {
    pub(crate) const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        usage: &'static str,
    ) -> Self {
        Self { name, short: None, kind, default, usage, hidden: false, own: false }
    }

    pub(crate) const fn switch(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Bool, "false", usage)
    }

    pub(crate) const fn text(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Text, "", usage)
    }

    pub(crate) const fn int(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Int, "0", usage)
    }

    pub(crate) const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    pub(crate) const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    pub(crate) const fn own(self) -> Self {
        Self { hidden: true, own: true, ..self }
    }

    /// The flag's name as help shows it: `-w, --write-out string`.
    pub(crate) fn heading(&self) -> String {
        let short = self.short.map_or("    ".to_owned(), |it| format!("-{it}, "));
        let kind = match self.kind {
            Kind::Bool => "",
            Kind::Text => " string",
            Kind::Int => " int",
            Kind::Uint => " uint",
            Kind::Duration => " duration",
            Kind::Texts => " strings",
        };
        format!("  {short}--{}{kind}", self.name)
    }

    /// The default as help shows it; empty for zero values.
    pub(crate) fn default_note(&self) -> String {
        match (self.kind, self.default) {
            (_, "" | "false" | "0" | "0s") if self.kind != Kind::Text => String::new(),
            (Kind::Text, "") => String::new(),
            (Kind::Text, default) => format!(" (default \"{default}\")"),
            (Kind::Texts, default) => format!(" (default [{default}])"),
            (Kind::Bool | Kind::Int | Kind::Uint | Kind::Duration, default) => {
                format!(" (default {default})")
            }
        }
    }

    /// Checks a value and returns it in its stored form.
    ///
    /// # Errors
    /// Go's error text.
    pub(crate) fn check(&self, value: &str) -> Result<String, String> {
        use crate::go::number::{parse_bool, parse_int, parse_uint};
        match self.kind {
            Kind::Bool => parse_bool(value).map(|it| it.to_string()),
            Kind::Int => parse_int(value, 0).map(|it| it.to_string()),
            Kind::Uint => parse_uint(value, 0).map(|it| it.to_string()),
            Kind::Duration => duration::parse(value).map(duration::text),
            Kind::Text | Kind::Texts => Ok(value.to_owned()),
        }
    }
}
