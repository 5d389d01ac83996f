//! Feature gates: the names of etcd 3.7.1's, and those that have an effect on this member.

use std::fmt;

use super::values::{list, switch};

macro_rules! gates {
    ($($gate:ident $stage:ident $default:literal $has_effect:literal;)*) => {
        /// A feature gate.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Gate { $($gate,)* }

        /// All gates, in the order of `--help`, with their stages, defaults, and a flag for those with an effect here.
        const ROWS: &[Row] = &[
            $(Row {
                gate: Gate::$gate,
                name: stringify!($gate),
                stage: Stage::$stage,
                default: $default,
                has_effect: $has_effect,
            },)*
        ];
    };
}

gates! {
    AllAlpha Alpha false true;
    AllBeta Beta false true;
    CompactHashCheck Alpha false true;
    FastLeaseKeepAlive Beta true false;
    InitialCorruptCheck Alpha false true;
    LeaseCheckpoint Alpha false false;
    LeaseCheckpointPersist Alpha false false;
    PriorityRequest Alpha false false;
    SetMemberLocalAddr Alpha false false;
    StopGRPCServiceOnDefrag Alpha false false;
    TxnModeWriteWithSharedBuffer Beta true false;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

struct Row {
    gate: Gate,
    name: &'static str,
    stage: Stage,
    default: bool,
    has_effect: bool,
}

/// The enabled gates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Gates([bool; ROWS.len()]);

impl Gates {
    /// True if a gate is enabled.
    pub(super) fn is_on(&self, gate: Gate) -> bool {
        self.0[gate as usize]
    }

    /// Name, stage and state of each gate.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        ROWS.iter().map(|row| (row.name, row.stage.name(), self.is_on(row.gate)))
    }

    /// Gates that were changed and have no effect.
    pub(super) fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        let changed = ROWS.iter().filter(|row| self.is_on(row.gate) != row.default);
        changed.filter(|row| !row.has_effect).map(|row| row.name)
    }

    fn set_stage(&mut self, stage: Stage, on: bool) {
        for row in ROWS.iter().filter(|row| row.stage == stage) {
            self.0[row.gate as usize] = on;
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        let mut gates = Self([false; ROWS.len()]);
        ROWS.iter().for_each(|row| gates.0[row.gate as usize] = row.default);
        gates
    }
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.all().map(|(name, _, on)| (name, on))).finish()
    }
}

/// Parses gates, as in `A=true,B=false`.
///
/// # Errors
/// A gate does not exist, or its value is neither true nor false.
pub(super) fn parse(text: &str) -> Result<Gates, String> {
    let mut given = Vec::new();
    for part in list(text) {
        let (name, value) =
            part.split_once('=').ok_or_else(|| format!("missing bool value for {part}"))?;
        let (name, value) = (name.trim(), value.trim());
        let Some(row) = ROWS.iter().find(|row| row.name == name) else {
            return Err(format!("unrecognized feature gate: {name}"));
        };
        let on = switch(value).ok_or_else(|| {
            format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
        })?;
        given.push((row.gate, on));
    }
    let mut gates = Gates::default();
    // All gates of a stage first, then single ones, which have precedence.
    for (all, stage) in [(Gate::AllAlpha, Stage::Alpha), (Gate::AllBeta, Stage::Beta)] {
        if let Some((_, on)) = given.iter().find(|(gate, _)| *gate == all) {
            gates.set_stage(stage, *on);
        }
    }
    given.into_iter().for_each(|(gate, on)| gates.0[gate as usize] = on);
    Ok(gates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_have_stages() {
        let is_on = |text: &str, gate| parse(text).expect("it is right").is_on(gate);
        assert!(is_on("", Gate::FastLeaseKeepAlive) && !is_on("", Gate::LeaseCheckpoint));
        assert!(is_on("AllAlpha=true", Gate::LeaseCheckpoint));
        assert!(!is_on("LeaseCheckpoint=false,AllAlpha=true", Gate::LeaseCheckpoint));
        assert_eq!(parse("Foo=true"), Err("unrecognized feature gate: Foo".into()));
        assert_eq!(parse("AllBeta"), Err("missing bool value for AllBeta".into()));
        let gates = parse("LeaseCheckpoint=true,CompactHashCheck=true").expect("they are right");
        assert_eq!(gates.without_effect().collect::<Vec<_>>(), ["LeaseCheckpoint"]);
    }
}
