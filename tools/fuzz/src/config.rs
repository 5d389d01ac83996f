//! Text from operators: flags, environment, configuration files, URLs, durations.

use basalt::server::{Command, Config, Flags, parse};

/// Arguments and environment, one a line; those of the environment begin with `ETCD_`.
pub(crate) fn flags(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let is_variable = |line: &&str| line.starts_with("ETCD_");
    let variables = text.lines().filter(is_variable).filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let arguments = text.lines().filter(|line| !is_variable(line)).map(str::to_owned);
    let absent = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    checked(parse(arguments, variables, absent));
    let _ = gocompat::duration::parse(&text).map(gocompat::duration::text);
}

/// A configuration file.
pub(crate) fn config(bytes: &[u8]) {
    let arguments = ["--config-file=c".to_owned()].into_iter();
    let read = |_: &str| Ok(String::from_utf8_lossy(bytes).into_owned());
    checked(parse(arguments, std::iter::empty(), read));
}

fn checked(command: Command) {
    if let Command::Run(flags) = command {
        member(&flags);
    }
}

fn member(flags: &Flags) {
    let _ = Config::new(flags, Vec::new());
}
