//! Durations, times and sizes as Go's packages read and print them. etcd's flags, its command lines and its logs show them, and
//! scripts read them.

pub mod bytes;
pub mod duration;
pub mod time;
