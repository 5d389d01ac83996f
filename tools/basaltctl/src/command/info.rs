//! help, options, version: they send no request.

use crate::cli::action::Action;
use crate::cli::tree::ROOT;
use crate::cli::{command, help};
use crate::command::Context;
use crate::print::out;
use crate::{API_VERSION, Failure, help_topic};

/// The version of etcd whose etcdctl this follows.
const VERSION: &str = "3.7.1";

/// # Errors
/// None; an unknown topic is no error.
pub(crate) fn info(action: Action, context: &Context) -> Result<(), Failure> {
    if action == Action::Version {
        out::line(&format!("etcdctl version: {VERSION}\nAPI version: {API_VERSION}"));
    } else if action == Action::Options {
        out::text(&help::options(&ROOT));
    } else if let Some(path) = help_topic(context.args()) {
        out::text(&help::help(&path));
    } else {
        let topics: Vec<String> =
            (0..context.args().len()).map(|at| format!("`{}`", context.arg(at))).collect();
        let usage = help::usage(&command::Path(vec![&ROOT]));
        let topics = topics.join(" ");
        out::error(&format!("Unknown help topic [{topics}]\n{}", usage.trim_end()));
    }
    Ok(())
}
