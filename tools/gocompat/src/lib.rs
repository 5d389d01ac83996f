//! Durations and times as Go's packages parse and print them. etcd's flags, its command lines and its logs contain them, and
//! scripts parse them.

pub mod duration;
pub mod time;
