//! downgrade validate, enable, cancel.

use basalt_proto::etcdserverpb::downgrade_request::DowngradeAction;
use basalt_proto::etcdserverpb::{DowngradeRequest, DowngradeResponse};

use crate::Failure;
use crate::cli::action::Action;
use crate::command::Context;
use crate::print::Printed;

/// # Errors
/// No version was given, or the server refused.
pub(crate) async fn downgrade(action: Action, mut context: Context) -> Result<(), Failure> {
    let (word, action) = if action == Action::DowngradeValidate {
        ("validate", DowngradeAction::Validate)
    } else if action == Action::DowngradeEnable {
        ("enable", DowngradeAction::Enable)
    } else {
        ("cancel", DowngradeAction::Cancel)
    };
    let version = match action {
        DowngradeAction::Cancel => String::new(),
        DowngradeAction::Validate | DowngradeAction::Enable => version(&context)?,
    };
    let (client, printer) = context.connect().await?;
    let request = DowngradeRequest { action: action.into(), version };
    let method = "/etcdserverpb.Maintenance/Downgrade";
    let answer: DowngradeResponse = client.call(method, &request, client.deadline()).await?;
    let text = format!("Downgrade {word} success, cluster version {}\n", answer.version);
    printer.show(&Printed::new("DowngradeResponse", &answer, text))
}

fn version(context: &Context) -> Result<String, Failure> {
    match context.args().len() {
        0 => Err(Failure::bad_args("TARGET_VERSION not provided")),
        1 if context.arg(0).is_empty() => Err(Failure::bad_args("target version not provided")),
        1 => Ok(context.arg(0)),
        _ => Err(Failure::bad_args("too many arguments")),
    }
}
