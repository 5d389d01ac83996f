//! The values of flags: parsed as pflag parses them, then completed from the environment where a program does so.

use crate::flags::flag::{Flag, Kind};
use crate::quote::{quote, quote_char};

/// Text of the command line, which need not be UTF-8.
pub type Word = Vec<u8>;

/// Every flag of a command with its value, and the other arguments.
#[derive(Debug)]
pub struct Values {
    entries: Vec<Entry>,
    /// The arguments that are no flags.
    pub args: Vec<Word>,
}

#[derive(Debug)]
struct Entry {
    flag: &'static Flag,
    text: String,
    list: Vec<String>,
    changed: bool,
    /// The flag belongs to a command above.
    above: bool,
}

/// The flag that every command has.
pub static HELP: Flag = Flag::switch("help", "").short('h');

impl Values {
    /// Every flag with its default: those of the command itself, and those of the commands above.
    fn new(
        local: impl Iterator<Item = &'static Flag>,
        above: impl Iterator<Item = &'static Flag>,
    ) -> Self {
        let entry = |flag: &'static Flag, above| Entry {
            flag,
            text: flag.default.to_owned(),
            list: split(flag.default),
            changed: false,
            above,
        };
        let local = local.chain([&HELP]).map(|it| entry(it, false));
        let entries = local.chain(above.map(|it| entry(it, true))).collect();
        Self { entries, args: Vec::new() }
    }

    /// Parses the words after a command.
    ///
    /// # Errors
    /// pflag's text: an unknown flag, a flag without its value, an invalid value.
    pub fn read(
        local: impl Iterator<Item = &'static Flag>,
        above: impl Iterator<Item = &'static Flag>,
        words: &[Word],
    ) -> Result<Self, String> {
        let mut values = Self::new(local, above);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = String::from_utf8_lossy(word).into_owned();
            if text == "--" {
                values.args.extend(words.cloned());
                break;
            }
            if let Some(long) = text.strip_prefix("--") {
                values.long(long, &mut words)?;
            } else if text.len() > 1 && text.starts_with('-') {
                values.shorts(&text[1..], &mut words)?;
            } else {
                values.args.push(word.clone());
            }
        }
        Ok(values)
    }

    fn long(&mut self, text: &str, words: &mut std::slice::Iter<'_, Word>) -> Result<(), String> {
        if text.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: --{text}"));
        }
        let (name, given) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let at = self.position(name).ok_or_else(|| format!("unknown flag: --{name}"))?;
        let value = match given {
            Some(value) => value,
            None if self.entries[at].flag.kind == Kind::Bool => "true".to_owned(),
            None => next(words).ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set_at(at, &value)
    }

    fn shorts(&mut self, text: &str, words: &mut std::slice::Iter<'_, Word>) -> Result<(), String> {
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let Some(at) = self.entries.iter().position(|it| it.flag.short == Some(c)) else {
                return Err(format!("unknown shorthand flag: {} in -{rest}", quote_char(c)));
            };
            let tail = &rest[c.len_utf8()..];
            let (value, left) = match tail.strip_prefix('=') {
                Some(value) if !value.is_empty() => (value.to_owned(), ""),
                _ if self.entries[at].flag.kind == Kind::Bool => ("true".to_owned(), tail),
                _ if !tail.is_empty() => (tail.to_owned(), ""),
                _ => {
                    let missing =
                        || format!("flag needs an argument: {} in -{rest}", quote_char(c));
                    (next(words).ok_or_else(missing)?, "")
                }
            };
            self.set_at(at, &value)?;
            rest = left;
        }
        Ok(())
    }

    fn set_at(&mut self, at: usize, value: &str) -> Result<(), String> {
        let entry = &mut self.entries[at];
        let kept = entry.flag.check(value).map_err(|why| {
            let short = entry.flag.short.map_or(String::new(), |it| format!("-{it}, "));
            let name = quote(format!("{short}--{}", entry.flag.name));
            format!("invalid argument {} for {name} flag: {why}", quote(value))
        })?;
        match entry.changed {
            true => entry.list.extend(split(&kept)),
            false => entry.list = split(&kept),
        }
        entry.text = kept;
        entry.changed = true;
        Ok(())
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.entries.iter().position(|it| it.flag.name == name)
    }

    fn entry(&self, name: &str) -> &Entry {
        let at = self.position(name);
        &self.entries[at.unwrap_or_else(|| panic!("the command has no flag {name}"))]
    }

    pub fn text(&self, name: &str) -> &str {
        &self.entry(name).text
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        self.entry(name).list.clone()
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// A number; it was checked when it was set.
    pub fn int(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }

    pub fn duration(&self, name: &str) -> std::time::Duration {
        crate::duration::parse(self.text(name)).unwrap_or_default()
    }

    /// True if the flag was given, on the command line or by the environment.
    pub fn changed(&self, name: &str) -> bool {
        self.entry(name).changed
    }

    /// Flags of the commands above, by name, with their values as Go prints them.
    pub fn above(&self) -> Vec<(&'static str, String)> {
        let mut above: Vec<_> = self.entries.iter().filter(|it| it.above && !it.flag.own).collect();
        above.sort_by_key(|it| it.flag.name);
        above
            .into_iter()
            .map(|it| match it.flag.kind {
                Kind::Texts => (it.flag.name, format!("[{}]", it.list.join(","))),
                Kind::Bool
                | Kind::Text
                | Kind::Int
                | Kind::Uint
                | Kind::Uint32
                | Kind::Duration => (it.flag.name, it.text.clone()),
            })
            .collect()
    }

    /// Sets flags of the commands above that were not given, by the environment variables that `name_of` calls them; an
    /// invalid value is ignored, as etcdctl does. Returns the variables that were used, and those that a given flag overrides.
    pub fn fill(
        &mut self,
        name_of: impl Fn(&str) -> String,
        variable: impl Fn(&str) -> Option<String>,
    ) -> (Vec<String>, Vec<String>) {
        let (mut used, mut shadowed) = (Vec::new(), Vec::new());
        for at in 0..self.entries.len() {
            if !self.entries[at].above {
                continue;
            }
            let name = name_of(self.entries[at].flag.name);
            if self.entries[at].changed {
                shadowed.push(name);
            } else if let Some(value) = variable(&name).filter(|it| !it.is_empty()) {
                let _ = self.set_at(at, &value);
                used.push(name);
            }
        }
        (used, shadowed)
    }
}

fn next(words: &mut std::slice::Iter<'_, Word>) -> Option<String> {
    words.next().map(|it| String::from_utf8_lossy(it).into_owned())
}

fn split(text: &str) -> Vec<String> {
    match text {
        "" => Vec::new(),
        _ => text.split(',').map(str::to_owned).collect(),
    }
}
