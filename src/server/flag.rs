//! A flag: its name, how its value is parsed, its default, its help, and by type the effect that it has.
//!
//! ```text
//!  Flag<T>          has an effect: `get` returns its value, and a test fails if no code calls it
//!  Flag<T, Warned>  accepted, without effect: no `get`; the start logs a warning if it is given
//!  Flag<T, Refused> asks for what this version lacks: no `get`; the member does not start if it is given
//! ```

use super::settings::Flags;

/// The notation of a value.
#[derive(Debug)]
pub(super) struct Syntax<T> {
    /// Parses a value. The error has the text of Go's packages or etcd.
    pub(super) parse: fn(&str) -> Result<T, String>,
    pub(super) form: Form,
}

/// The form of a value on the command line and in the configuration file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// A value after the flag.
    Value,
    /// A boolean: the flag alone means `true`.
    Switch,
    /// A value as above; in a file it is a whole number of nanoseconds.
    Duration,
}

/// The effect of a flag that the member acts on.
#[derive(Debug)]
pub(super) struct Used;

/// The effect of a flag that is accepted and changes nothing.
#[derive(Debug)]
pub(super) struct Warned;

/// The effect of a flag that asks for a feature that this version lacks.
#[derive(Debug)]
pub(super) struct Refused {
    /// The feature.
    pub(super) feature: &'static str,
}

/// A flag.
#[derive(Debug)]
pub(super) struct Flag<T: 'static, E = Used> {
    name: &'static str,
    syntax: Syntax<T>,
    default: &'static str,
    help: &'static str,
    effect: E,
}

/// A flag with an effect.
pub(super) const fn used<T>(
    name: &'static str,
    syntax: Syntax<T>,
    default: &'static str,
    help: &'static str,
) -> Flag<T> {
    Flag { name, syntax, default, help, effect: Used }
}

/// A flag without effect, whose default describes the member's behaviour.
pub(super) const fn warned<T>(
    name: &'static str,
    syntax: Syntax<T>,
    default: &'static str,
    help: &'static str,
) -> Flag<T, Warned> {
    Flag { name, syntax, default, help, effect: Warned }
}

/// A flag that asks for a feature that this version lacks, unless its value is the default.
pub(super) const fn refused<T>(
    name: &'static str,
    syntax: Syntax<T>,
    default: &'static str,
    help: &'static str,
    feature: &'static str,
) -> Flag<T, Refused> {
    Flag { name, syntax, default, help, effect: Refused { feature } }
}

impl<T> Flag<T> {
    /// The value: given, or the default.
    pub(super) fn get(&self, flags: &Flags) -> T {
        #[cfg(test)]
        flags.reads.note(self.name);
        self.parsed(self.text(flags))
    }
}

impl<T, E> Flag<T, E> {
    /// The value as text, for the checks that etcd makes whatever its effect is.
    pub(super) fn text<'a>(&self, flags: &'a Flags) -> &'a str {
        flags.given(self.name).unwrap_or(self.default)
    }

    /// True if a value was given.
    pub(super) fn is_set(&self, flags: &Flags) -> bool {
        flags.given(self.name).is_some()
    }

    fn parsed(&self, text: &str) -> T {
        (self.syntax.parse)(text).unwrap_or_else(|why| {
            // Defaults are parsed by a test, given values before they are stored in `Flags`.
            panic!("the value {text:?} of --{} was parsed before, and now: {why}", self.name)
        })
    }
}

impl<T: PartialEq, E> Flag<T, E> {
    /// True if a value was given that is not the default.
    pub(super) fn is_changed(&self, flags: &Flags) -> bool {
        let given = flags.given(self.name).map(|text| self.parsed(text));
        given.is_some_and(|value| value != self.parsed(self.default))
    }
}

/// A flag of any type, as a row of the table.
pub(super) trait Row: Sync {
    fn name(&self) -> &'static str;
    fn default(&self) -> &'static str;
    fn help(&self) -> &'static str;
    fn form(&self) -> Form;

    /// Parses a value.
    ///
    /// # Errors
    /// The error of the parser.
    fn check(&self, value: &str) -> Result<(), String>;

    /// The warning to log at the start: the flag was given and has no effect.
    fn warning(&self, flags: &Flags) -> Option<String>;

    /// The refusal to start: the flag was given and requests a missing feature.
    fn refusal(&self, flags: &Flags) -> Option<String>;

    /// True if the flag has an effect, so that its value must be read.
    #[cfg(test)]
    fn is_used(&self) -> bool;
}

/// The consequence of a flag that was given, by its effect.
pub(super) trait Effect: Sync {
    #[cfg(test)]
    const IS_USED: bool = false;

    /// The warning, if any.
    fn warning(&self, _name: &str, _is_changed: bool) -> Option<String> {
        None
    }

    /// The refusal to start, if any.
    fn refusal(&self, _name: &str, _is_changed: bool) -> Option<String> {
        None
    }
}

impl Effect for Used {
    #[cfg(test)]
    const IS_USED: bool = true;
}

impl Effect for Warned {
    fn warning(&self, name: &str, is_changed: bool) -> Option<String> {
        is_changed.then(|| format!("--{name} has no effect in this version of Basalt"))
    }
}

impl Effect for Refused {
    fn refusal(&self, name: &str, is_changed: bool) -> Option<String> {
        let Self { feature } = self;
        is_changed.then(|| format!("this version of Basalt does not support {feature} (--{name})"))
    }
}

impl<T: PartialEq, E: Effect> Row for Flag<T, E> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn default(&self) -> &'static str {
        self.default
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn form(&self) -> Form {
        self.syntax.form
    }

    fn check(&self, value: &str) -> Result<(), String> {
        (self.syntax.parse)(value).map(drop)
    }

    fn warning(&self, flags: &Flags) -> Option<String> {
        let is_changed = self.is_changed(flags);
        self.is_set(flags).then(|| self.effect.warning(self.name, is_changed)).flatten()
    }

    fn refusal(&self, flags: &Flags) -> Option<String> {
        self.effect.refusal(self.name, self.is_changed(flags))
    }

    #[cfg(test)]
    fn is_used(&self) -> bool {
        E::IS_USED
    }
}
