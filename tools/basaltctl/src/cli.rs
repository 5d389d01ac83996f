//! The command line as cobra reads it: a table of commands and flags, how a command is found, how
//! flags are read, what help and errors look like. Knows nothing of servers.

pub(crate) mod action;
pub(crate) mod command;
pub(crate) mod find;
pub(crate) mod flag;
pub(crate) mod help;
pub(crate) mod tree;
pub(crate) mod values;
