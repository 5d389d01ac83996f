//! endpoint health, status, hashkv, and defrag: commands that query every endpoint separately.

use std::time::Duration;

use basalt_proto::etcdserverpb::{
    AlarmType, DefragmentRequest, DefragmentResponse, HashKvRequest, HashKvResponse,
    MemberListRequest, MemberListResponse, StatusRequest, StatusResponse,
};
use gocompat::duration;
use tokio::time::Instant;

use crate::client::requests;
use crate::client::settings::Settings;
use crate::command::{Context, alarm};
use crate::print::cluster::{Hashes, Health, Healths, Statuses};
use crate::print::out;
use crate::print::progress::Progress;
use crate::{Failure, exit};

/// The endpoints typed, or with `--cluster` those that members advertise.
async fn endpoints(context: &Context, settings: &Settings) -> Result<Vec<String>, Failure> {
    if !context.values.is_on("cluster") {
        return Ok(context.values.list("endpoints"));
    }
    let client = settings.client().await?;
    let method = "/etcdserverpb.Cluster/MemberList";
    let request = MemberListRequest { linearizable: true };
    let answer: MemberListResponse =
        client.call(method, &request, client.deadline()).await.map_err(|it| {
            let why = it.text();
            Failure::error(format!(
                "failed to fetch endpoints from etcd cluster member list: {why}"
            ))
        })?;
    Ok(answer.members.into_iter().flat_map(|it| it.client_ur_ls).collect())
}

#[allow(clippy::disallowed_methods, reason = "what took how long is what is asked for")]
fn now() -> Instant {
    Instant::now()
}

fn text(took: Duration) -> String {
    duration::text(took)
}

/// # Errors
/// One of the endpoints is unhealthy.
pub(crate) async fn health(mut context: Context) -> Result<(), Failure> {
    let (settings, printer) = context.settings().await?;
    let mut checks = Vec::new();
    for endpoint in endpoints(&context, &settings).await? {
        let settings = settings.only(&endpoint);
        checks.push(tokio::task::spawn_local(check(settings, endpoint)));
    }
    let mut healths = Vec::new();
    for check in checks {
        healths.push(check.await.map_err(|it| Failure::error(it.to_string()))?);
    }
    let unwell = healths.iter().any(|it| !it.error.is_empty());
    printer.show(&Healths(healths))?;
    match unwell {
        true => Err(Failure::error("unhealthy cluster")),
        false => Ok(()),
    }
}

async fn check(settings: Settings, endpoint: String) -> Health {
    let mut health = Health { endpoint, healthy: false, took: String::new(), error: String::new() };
    let client = match settings.client_named("client").await {
        Ok(client) => client,
        Err(failure) => {
            health.error = failure.text.unwrap_or_default();
            return health;
        }
    };
    let began = now();
    let deadline = client.deadline();
    let answer = client.get(&requests::get("health"), deadline).await;
    health.took = text(began.elapsed());
    match answer {
        Err(refusal) if !refusal.is_permission_denied() => {
            health.error = refusal.text();
            return health;
        }
        _ => health.healthy = true,
    }
    match alarm::all(&client, deadline).await {
        Ok(answer) if answer.alarms.is_empty() => {}
        Ok(answer) => {
            health.healthy = false;
            health.error = "Active Alarm(s): ".to_owned();
            for alarm in answer.alarms {
                health.error.push_str(match alarm.alarm() {
                    AlarmType::Nospace => "NOSPACE ",
                    AlarmType::Corrupt => "CORRUPT ",
                    AlarmType::None => "UNKNOWN ",
                });
            }
        }
        Err(_) => {
            health.healthy = false;
            health.error = "Unable to fetch the alarm list".to_owned();
        }
    }
    health
}

/// # Errors
/// One of the endpoints did not answer.
pub(crate) async fn status(mut context: Context) -> Result<(), Failure> {
    let (settings, printer) = context.settings().await?;
    let mut statuses = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&context, &settings).await? {
        let client = settings.only(&endpoint).client().await?;
        let method = "/etcdserverpb.Maintenance/Status";
        let asked = client.call::<_, StatusResponse>(method, &StatusRequest {}, client.deadline());
        match asked.await {
            Ok(answer) => statuses.push((endpoint, answer)),
            Err(refusal) => {
                failed = true;
                let why = refusal.text();
                out::error(&format!("Failed to get the status of endpoint {endpoint} ({why})"));
            }
        }
    }
    printer.show(&Statuses(statuses))?;
    if failed { Err(Failure::silent(exit::ERROR)) } else { Ok(()) }
}

/// # Errors
/// One of the endpoints did not answer.
pub(crate) async fn hash_kv(mut context: Context) -> Result<(), Failure> {
    let (settings, printer) = context.settings().await?;
    let mut hashes = Vec::new();
    let mut failure = None;
    let request = HashKvRequest { revision: context.values.int("rev") };
    for endpoint in endpoints(&context, &settings).await? {
        let client = settings.only(&endpoint).client().await?;
        let method = "/etcdserverpb.Maintenance/HashKV";
        match client.call::<_, HashKvResponse>(method, &request, client.deadline()).await {
            Ok(answer) => hashes.push((endpoint, answer)),
            Err(refusal) => {
                let why = refusal.text();
                out::error(&format!("Failed to get the hash of endpoint {endpoint} ({why})"));
                failure = Some(why);
            }
        }
    }
    printer.show(&Hashes(hashes))?;
    failure.map_or(Ok(()), |why| Err(Failure::error(why)))
}

/// # Errors
/// One of the endpoints failed.
pub(crate) async fn defrag(mut context: Context) -> Result<(), Failure> {
    let (settings, _) = context.settings().await?;
    let mut failed = false;
    for endpoint in endpoints(&context, &settings).await? {
        let client = settings.only(&endpoint).client().await?;
        let method = "/etcdserverpb.Maintenance/Defragment";
        let began = now();
        let request = DefragmentRequest {};
        let asked = client.call::<_, DefragmentResponse>(method, &request, client.deadline());
        let working = || format!("Defragmenting {endpoint}: {} s", began.elapsed().as_secs());
        let answer = Progress::new().during(asked, working).await;
        let took = text(began.elapsed());
        match answer {
            Ok(_) => {
                out::line(&format!("Finished defragmenting etcd member[{endpoint}]. took {took}"));
            }
            Err(refusal) => {
                failed = true;
                out::error(&format!(
                    "Failed to defragment etcd member[{endpoint}]. took {took}. ({})",
                    refusal.text()
                ));
            }
        }
    }
    if failed { Err(Failure::silent(exit::ERROR)) } else { Ok(()) }
}
