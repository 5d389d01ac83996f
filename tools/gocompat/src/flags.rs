//! Flags of commands as Go's pflag, the library below cobra, reads and shows them.

mod flag;
mod values;

pub use self::flag::{Flag, Kind, Line, listed};
pub use self::values::{HELP, Values, Word};
