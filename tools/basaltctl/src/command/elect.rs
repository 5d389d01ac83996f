//! elect: the oldest key below a name is the leader's; its value is the proposal.

use basalt_proto::etcdserverpb::range_request::SortOrder;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::response_op::Response;
use basalt_proto::etcdserverpb::{RangeResponse, ResponseHeader, TxnRequest, WatchCreateRequest};
use basalt_proto::mvccpb::KeyValue;
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;

use crate::Failure;
use crate::client::Client;
use crate::client::requests::{created_at, delete, get, op, prefix_end, put};
use crate::client::session::{KeepAlive, grant};
use crate::client::watch::Watch;
use crate::command::Context;
use crate::command::concurrency::{by_age, interrupted, wait_deletes};
use crate::print::Printer;

/// Seconds; the Go client's default.
const TTL: i64 = 60;

/// # Errors
/// The lease ended, or the server refused.
pub(crate) async fn elect(mut context: Context) -> Result<(), Failure> {
    let count = context.args().len();
    if count != 1 && count != 2 {
        let text = "elect takes one election name argument and an optional proposal argument";
        return Err(Failure::bad_args(text));
    }
    let listen = context.values.is_on("listen");
    let (client, printer) = context.connect().await?;
    if count == 1 && !listen {
        return Err(Failure::bad_args("no proposal argument but -l not set"));
    }
    if count == 2 && listen {
        return Err(Failure::bad_args("proposal given but -l is set"));
    }
    let lease = grant(&client, TTL).await?;
    let mut alive = KeepAlive::new(&client, lease);
    let prefix = [context.args()[0].as_slice(), b"/"].concat();
    if count == 1 {
        return tokio::select! {
            outcome = observe(&client, &printer, &prefix) => outcome,
            () = alive.run() => Err(Failure::error("elect: observer lost")),
            () = interrupted() => Ok(()),
        };
    }
    let proposal = Bytes::from(context.args()[1].clone());
    let key = Bytes::from([prefix.as_slice(), format!("{lease:x}").as_bytes()].concat());
    let campaign = async {
        let revision = tokio::select! {
            revision = campaign(&client, &prefix, &key, &proposal, lease) => revision?,
            () = interrupted() => {
                client.delete(&delete(key.clone()), None).await?;
                return Err(Failure::error("context canceled"));
            }
        };
        printer.show(&client.get(&get(key.clone()), None).await?)?;
        interrupted().await;
        let request = TxnRequest {
            compare: vec![created_at(key.clone(), revision)],
            success: vec![op(Request::RequestDeleteRange(delete(key.clone())))],
            failure: Vec::new(),
        };
        client.txn(&request).await?;
        Ok(())
    };
    tokio::select! {
        outcome = campaign => outcome,
        () = alive.run() => Err(Failure::error("elect: session expired")),
    }
}

/// Puts the proposal and waits until it is the oldest; returns its revision.
async fn campaign(
    client: &Client,
    prefix: &[u8],
    key: &Bytes,
    proposal: &Bytes,
    lease: i64,
) -> Result<i64, Failure> {
    let request = TxnRequest {
        compare: vec![created_at(key.clone(), 0)],
        success: vec![op(Request::RequestPut(put(key.clone(), proposal.clone(), lease)))],
        failure: vec![op(Request::RequestRange(get(key.clone())))],
    };
    let answer = client.txn(&request).await?;
    let mut revision = answer.header.unwrap_or_default().revision;
    let first = answer.responses.first().and_then(|it| it.response.as_ref());
    if let (false, Some(Response::ResponseRange(range))) = (answer.succeeded, first)
        && let Some(kv) = range.kvs.first()
    {
        revision = kv.create_revision;
    }
    wait_deletes(client, prefix, revision - 1).await?;
    Ok(revision)
}

/// Prints every leader and every change of its proposal.
async fn observe(client: &Client, printer: &Printer, prefix: &[u8]) -> Result<(), Failure> {
    let lost = || Failure::error("elect: observer lost");
    loop {
        let answer = client.get(&by_age(prefix, SortOrder::Ascend), None).await?;
        let now = answer.header.unwrap_or_default();
        let (header, leader) = match answer.kvs.into_iter().next() {
            Some(kv) => (now, kv),
            None => first_put(client, prefix, now.revision).await.ok_or_else(lost)?,
        };
        show(printer, header, leader.clone())?;
        let create = WatchCreateRequest {
            key: leader.key,
            start_revision: header.revision + 1,
            ..WatchCreateRequest::default()
        };
        let mut watch = Watch::new(client, create, false);
        'led: loop {
            let told = watch.next().await.filter(|it| it.ended.is_none()).ok_or_else(lost)?;
            for event in told.response.events {
                if event.r#type() == EventType::Delete {
                    break 'led;
                }
                let header = told.response.header.unwrap_or_default();
                show(printer, header, event.kv.unwrap_or_default())?;
            }
        }
    }
}

fn show(printer: &Printer, header: ResponseHeader, kv: KeyValue) -> Result<(), Failure> {
    let header = Some(header);
    printer.show(&RangeResponse { header, kvs: vec![kv], ..RangeResponse::default() })
}

/// Waits for the first candidate.
async fn first_put(
    client: &Client,
    prefix: &[u8],
    since: i64,
) -> Option<(ResponseHeader, KeyValue)> {
    let create = WatchCreateRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: prefix_end(prefix),
        start_revision: since,
        ..WatchCreateRequest::default()
    };
    let mut watch = Watch::new(client, create, false);
    loop {
        let told = watch.next().await.filter(|it| it.ended.is_none())?;
        let mut header = told.response.header.unwrap_or_default();
        let mut puts = told.response.events.into_iter();
        if let Some(event) = puts.find(|it| it.r#type() == EventType::Put) {
            let kv = event.kv.unwrap_or_default();
            header.revision = kv.mod_revision;
            return Some((header, kv));
        }
    }
}
