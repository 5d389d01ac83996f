//! Durations, times and sizes as Go's packages parse and print them. etcd's flags, command lines and logs contain them, and
//! scripts parse them.

pub mod bytes;
pub mod duration;
pub mod time;
