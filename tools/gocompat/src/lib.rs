//! Texts of Go's standard library and of the libraries that etcd's programs use with it: durations, times, sizes, quoted
//! strings, numbers, flags and log lines. etcd's command lines, errors and logs contain them, and scripts parse them.

pub mod bytes;
pub mod duration;
pub mod flags;
pub mod json;
pub mod number;
pub mod quote;
pub mod time;
pub mod zap;
