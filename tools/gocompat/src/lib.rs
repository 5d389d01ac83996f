//! Durations and times as Go's packages read and print them. etcd's flags, its command lines and its logs show them, and
//! scripts read them.

pub mod duration;
pub mod time;
