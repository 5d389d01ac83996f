//! A command, and the path from the root to one.

use crate::cli::action::Action;
use gocompat::flags::Flag;

/// One command: a group of others, or an action.
#[derive(Debug)]
pub(crate) struct Command {
    /// Name, then the arguments.
    pub(crate) usage: &'static str,
    pub(crate) short: &'static str,
    pub(crate) long: &'static str,
    pub(crate) example: &'static str,
    /// Title of the group it is listed under.
    pub(crate) group: &'static str,
    pub(crate) flags: &'static [Flag],
    /// Flags of the command and of all below it.
    pub(crate) inherited: &'static [Flag],
    pub(crate) children: &'static [Command],
    pub(crate) action: Option<Action>,
    /// Not etcdctl's: shown and completed nowhere, and named in full.
    pub(crate) own: bool,
}

impl Command {
    /// A command with an action.
    pub(crate) const fn leaf(usage: &'static str, short: &'static str, action: Action) -> Self {
        Self {
            usage,
            short,
            long: "",
            example: "",
            group: "",
            flags: &[],
            inherited: &[],
            children: &[],
            action: Some(action),
            own: false,
        }
    }

    /// A command that only contains others.
    pub(crate) const fn branch(
        usage: &'static str,
        short: &'static str,
        long: &'static str,
        children: &'static [Command],
    ) -> Self {
        Self {
            usage,
            short,
            long,
            example: "",
            group: "",
            flags: &[],
            inherited: &[],
            children,
            action: None,
            own: false,
        }
    }

    pub(crate) const fn group(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    pub(crate) const fn own(self) -> Self {
        Self { own: true, ..self }
    }

    /// The commands below it that etcdctl has too.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &'static Self> + use<> {
        self.children.iter().filter(|it| !it.own)
    }

    pub(crate) const fn long(self, long: &'static str) -> Self {
        Self { long, ..self }
    }

    pub(crate) const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    pub(crate) const fn flags(self, flags: &'static [Flag]) -> Self {
        Self { flags, ..self }
    }

    pub(crate) const fn inherited(self, inherited: &'static [Flag]) -> Self {
        Self { inherited, ..self }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

/// From the root to a command.
#[derive(Clone, Debug)]
pub(crate) struct Path(pub(crate) Vec<&'static Command>);

impl Path {
    pub(crate) fn command(&self) -> &'static Command {
        self.0[self.0.len() - 1]
    }

    /// `etcdctl lease grant`.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|it| it.name()).collect::<Vec<_>>().join(" ")
    }

    /// Flags of the command itself.
    pub(crate) fn local(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        let command = self.command();
        command.flags.iter().chain(command.inherited)
    }

    /// Flags of the commands above.
    pub(crate) fn above(&self) -> impl Iterator<Item = &'static Flag> + '_ {
        self.0[..self.0.len() - 1].iter().rev().flat_map(|it| it.inherited)
    }

    /// Flags of the command and of those above.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &'static Flag> + '_ {
        self.local().chain(self.above())
    }
}
