//! The texts of Go's standard library that etcdctl's users see: quoted strings, numbers and their
//! errors, JSON. Durations and times are in the crate `gocompat`.

pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod quote;
pub(crate) mod scan;
