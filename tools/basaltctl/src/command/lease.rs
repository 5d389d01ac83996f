//! lease grant, revoke, timetolive, list, keep-alive.

use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::time::sleep;

use crate::client::error::Refusal;
use crate::client::session::{KeepAlive, pause};
use crate::command::Context;
use crate::print::lease::TimeToLive;
use crate::print::{Format, Printed, fields, out};
use crate::{Failure, exit};
use gocompat::number::parse_int;

fn lease_id(text: &str) -> Result<i64, Failure> {
    let id = parse_int(text, 16);
    id.map_err(|it| Failure::bad_args(format!("bad lease ID arg ({it}), expecting ID in Hex")))
}

fn connection(refusal: &Refusal) -> Failure {
    Failure::new(exit::BAD_CONNECTION, refusal.text())
}

/// # Errors
/// The TTL is no number, or the server refused.
pub(crate) async fn grant(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "lease grant command needs TTL argument")?;
    let ttl = parse_int(&context.arg(0), 10)
        .map_err(|it| Failure::bad_args(format!("bad TTL ({it})")))?;
    let (client, printer) = context.connect().await?;
    let request = LeaseGrantRequest { ttl, id: 0 };
    let method = "/etcdserverpb.Lease/LeaseGrant";
    let answer: LeaseGrantResponse = client
        .call(method, &request, client.deadline())
        .await
        .map_err(|it| Failure::error(format!("failed to grant lease ({})", it.text())))?;
    printer.show(&answer)
}

/// # Errors
/// The id is missing or invalid, or the server refused.
pub(crate) async fn revoke(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "lease revoke command needs 1 argument")?;
    let id = lease_id(&context.arg(0))?;
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Lease/LeaseRevoke";
    let answer: LeaseRevokeResponse = client
        .call(method, &LeaseRevokeRequest { id }, client.deadline())
        .await
        .map_err(|it| Failure::error(format!("failed to revoke lease ({})", it.text())))?;
    if printer.format == Format::Protobuf {
        let text = "marshal unsupported for type *clientv3.LeaseRevokeResponse";
        return Err(Failure::new(exit::BAD_FEATURE, text));
    }
    let printed =
        Printed::new("LeaseRevokeResponse", &answer, format!("lease {id:016x} revoked\n"));
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// # Errors
/// The id is missing or invalid, or the server refused.
pub(crate) async fn time_to_live(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "lease timetolive command needs lease ID as argument")?;
    let (client, printer) = context.connect().await?;
    let keys = context.values.is_on("keys");
    let request = LeaseTimeToLiveRequest { id: lease_id(&context.arg(0))?, keys };
    let method = "/etcdserverpb.Lease/LeaseTimeToLive";
    let answer: LeaseTimeToLiveResponse =
        client.call(method, &request, None).await.map_err(|it| connection(&it))?;
    printer.show(&TimeToLive(answer, keys))
}

/// # Errors
/// The server refused.
pub(crate) async fn list(mut context: Context) -> Result<(), Failure> {
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Lease/LeaseLeases";
    let answer: LeaseLeasesResponse =
        client.call(method, &LeaseLeasesRequest {}, None).await.map_err(|it| connection(&it))?;
    printer.show(&answer)
}

/// # Errors
/// The id is missing or invalid, or, with `--once`, there is no such lease.
pub(crate) async fn keep_alive(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "lease keep-alive command needs lease ID as argument")?;
    let id = lease_id(&context.arg(0))?;
    let (client, printer) = context.connect().await?;
    let mut lease = KeepAlive::new(&client, id);
    if context.values.is_on("once") {
        let answer = lease.renew().await.map_err(|it| connection(&it))?;
        if answer.ttl <= 0 {
            let text = "etcdserver: requested lease not found";
            return Err(Failure::new(exit::BAD_CONNECTION, text));
        }
        return printer.show(&answer);
    }
    loop {
        match lease.renew().await {
            Ok(answer) if answer.ttl > 0 => {
                printer.show(&answer)?;
                sleep(pause(answer.ttl)).await;
            }
            _ => break,
        }
    }
    if printer.format == Format::Simple {
        out::line(&format!("lease {id:016x} expired or revoked."));
    }
    Ok(())
}
