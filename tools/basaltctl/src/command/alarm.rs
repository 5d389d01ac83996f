//! alarm list, alarm disarm.

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::{AlarmRequest, AlarmResponse};
use tokio::time::Instant;

use crate::Failure;
use crate::client::Client;
use crate::client::error::Refusal;
use crate::command::Context;

const METHOD: &str = "/etcdserverpb.Maintenance/Alarm";

/// All alarms of all members.
///
/// # Errors
/// The server refused.
pub(crate) async fn all(
    client: &Client,
    deadline: Option<Instant>,
) -> Result<AlarmResponse, Refusal> {
    let action = AlarmAction::Get.into();
    let request = AlarmRequest { action, member_id: 0, alarm: 0 };
    client.call(METHOD, &request, deadline).await
}

/// # Errors
/// The server refused.
pub(crate) async fn list(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "alarm list command accepts no arguments")?;
    let (client, printer) = context.connect().await?;
    printer.show(&all(&client, client.deadline()).await?)
}

/// # Errors
/// The server refused.
pub(crate) async fn disarm(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "alarm disarm command accepts no arguments")?;
    let (client, printer) = context.connect().await?;
    let deadline = client.deadline();
    let mut disarmed = AlarmResponse::default();
    for alarm in all(&client, deadline).await?.alarms {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let answer: AlarmResponse = client.call(METHOD, &request, deadline).await?;
        disarmed.alarms.extend(answer.alarms);
    }
    printer.show(&disarmed)
}
