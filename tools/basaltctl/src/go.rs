//! JSON and fields of commands as Go reads and prints them; what other programs need, too, is in the crate `gocompat`.

pub(crate) mod json;
pub(crate) mod scan;
