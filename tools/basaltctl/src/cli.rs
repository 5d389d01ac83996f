//! The command line as cobra reads it: the table of commands and flags, the search for a command, the
//! parsing of flags, the texts of help and errors. Contains nothing about servers.

pub(crate) mod action;
pub(crate) mod command;
pub(crate) mod find;
pub(crate) mod help;
pub(crate) mod tree;
