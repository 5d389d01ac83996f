//! A flag: its name, kind, default and description.

use crate::duration;

/// Type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    Int,
    Uint,
    Uint32,
    Duration,
    /// Separated by commas; a repeated flag adds to the list.
    Texts,
}

/// One flag of a command.
#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub default: &'static str,
    pub usage: &'static str,
    /// Not shown in help.
    pub hidden: bool,
    /// Not etcdctl's: shown nowhere, so that what is shown is what etcdctl shows.
    pub own: bool,
}

impl Flag {
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        usage: &'static str,
    ) -> Self {
        Self { name, short: None, kind, default, usage, hidden: false, own: false }
    }

    pub const fn switch(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Bool, "false", usage)
    }

    pub const fn text(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Text, "", usage)
    }

    pub const fn int(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Int, "0", usage)
    }

    pub const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    pub const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    pub const fn own(self) -> Self {
        Self { hidden: true, own: true, ..self }
    }

    /// The flag's name as help shows it: `-w, --write-out string`.
    pub fn heading(&self) -> String {
        let short = self.short.map_or("    ".to_owned(), |it| format!("-{it}, "));
        let kind = match self.kind {
            Kind::Bool => "",
            Kind::Text => " string",
            Kind::Int => " int",
            Kind::Uint => " uint",
            Kind::Uint32 => " uint32",
            Kind::Duration => " duration",
            Kind::Texts => " strings",
        };
        format!("  {short}--{}{kind}", self.name)
    }

    /// The default as help shows it; empty for zero values.
    pub fn default_note(&self) -> String {
        match (self.kind, self.default) {
            (_, "" | "false" | "0" | "0s") if self.kind != Kind::Text => String::new(),
            (Kind::Text, "") => String::new(),
            (Kind::Text, default) => format!(" (default \"{default}\")"),
            (Kind::Texts, default) => format!(" (default [{default}])"),
            (Kind::Bool | Kind::Int | Kind::Uint | Kind::Uint32 | Kind::Duration, default) => {
                format!(" (default {default})")
            }
        }
    }

    /// Checks a value and returns it in its stored form.
    ///
    /// # Errors
    /// Go's error text.
    pub fn check(&self, value: &str) -> Result<String, String> {
        use crate::number::{parse_bool, parse_int, parse_uint, parse_uint32};
        match self.kind {
            Kind::Bool => parse_bool(value).map(|it| it.to_string()),
            Kind::Int => parse_int(value, 0).map(|it| it.to_string()),
            Kind::Uint => parse_uint(value, 0).map(|it| it.to_string()),
            Kind::Uint32 => parse_uint32(value).map(|it| it.to_string()),
            Kind::Duration => duration::parse(value).map(duration::text),
            Kind::Text | Kind::Texts => Ok(value.to_owned()),
        }
    }
}

/// A flag as a line of help.
pub struct Line {
    name: &'static str,
    heading: String,
    usage: String,
}

impl Line {
    /// The line of a flag.
    pub fn of(flag: &Flag) -> Self {
        let usage = format!("{}{}", flag.usage, flag.default_note());
        Self { name: flag.name, heading: flag.heading(), usage }
    }

    /// The line of the flag that every command has.
    pub fn help(command: &str) -> Self {
        let usage = format!("help for {command}");
        Self { name: "help", heading: "  -h, --help".to_owned(), usage }
    }
}

/// The lines by name, their descriptions below each other.
pub fn listed(mut lines: Vec<Line>) -> String {
    lines.sort_by_key(|it| it.name);
    let width = lines.iter().map(|it| it.heading.len()).max().unwrap_or(0);
    lines.iter().map(|it| format!("{:width$}   {}\n", it.heading, it.usage)).collect()
}
