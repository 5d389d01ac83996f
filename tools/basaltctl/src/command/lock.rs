//! lock: the owner of the oldest key below a name holds the lock.

use basalt_proto::etcdserverpb::TxnRequest;
use basalt_proto::etcdserverpb::range_request::SortOrder;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::response_op::Response;

use crate::client::Client;
use crate::client::requests::{created_at, delete, get, op, put};
use crate::client::session::{KeepAlive, grant};
use crate::command::concurrency::{by_age, interrupted, wait_deletes};
use crate::command::{Context, execute};
use crate::{Failure, exit};

/// # Errors
/// The lease ended, a signal came too early, or the command failed.
pub(crate) async fn lock(mut context: Context) -> Result<(), Failure> {
    if context.args().is_empty() {
        let text = "lock takes a lock name argument and an optional command to execute";
        return Err(Failure::bad_args(text));
    }
    let (client, printer) = context.connect().await?;
    let lease = grant(&client, context.values.int("ttl")).await?;
    let prefix = [context.args()[0].as_slice(), b"/"].concat();
    let key = [prefix.as_slice(), format!("{lease:x}").as_bytes()].concat();
    let mut alive = KeepAlive::new(&client, lease);
    let held = async {
        let revision = tokio::select! {
            held = acquire(&client, &prefix, &key, lease) => held?,
            () = interrupted() => {
                client.delete(&delete(key.clone()), None).await?;
                return Err(Failure::error("context canceled"));
            }
        };
        if context.args().len() > 1 {
            return command(&client, &context, &key, revision).await;
        }
        let answer = client.get(&get(key.clone()), None).await?;
        if answer.kvs.is_empty() {
            return Err(Failure::error("lock lost on init"));
        }
        printer.show(&answer)?;
        interrupted().await;
        client.delete(&delete(key.clone()), None).await?;
        Ok(())
    };
    tokio::select! {
        outcome = held => outcome,
        () = alive.run() => Err(Failure::error("session expired")),
    }
}

/// Puts the key and waits until it is the oldest; returns the revision at which it was.
async fn acquire(client: &Client, prefix: &[u8], key: &[u8], lease: i64) -> Result<i64, Failure> {
    let key = key.to_vec();
    let owner = || op(Request::RequestRange(by_age(prefix, SortOrder::Ascend)));
    let request = TxnRequest {
        compare: vec![created_at(key.clone(), 0)],
        success: vec![op(Request::RequestPut(put(key.clone(), "", lease))), owner()],
        failure: vec![op(Request::RequestRange(get(key.clone()))), owner()],
    };
    let answer = client.txn(&request).await?;
    let now = answer.header.unwrap_or_default().revision;
    let range = |at: usize| match answer.responses.get(at).and_then(|it| it.response.as_ref()) {
        Some(Response::ResponseRange(range)) => range.kvs.first().map(|it| it.create_revision),
        _ => None,
    };
    let mine = if answer.succeeded { now } else { range(0).unwrap_or(now) };
    if range(1).is_none_or(|owner| owner == mine) {
        return Ok(now);
    }
    wait_deletes(client, prefix, mine - 1).await?;
    let answer = client.get(&get(key), None).await?;
    match answer.kvs.is_empty() {
        true => Err(Failure::error("mutex: session is expired")),
        false => Ok(answer.header.unwrap_or_default().revision),
    }
}

/// Runs the command while the lock is held.
async fn command(
    client: &Client,
    context: &Context,
    key: &[u8],
    revision: i64,
) -> Result<(), Failure> {
    let environment = [
        ("ETCD_LOCK_KEY", String::from_utf8_lossy(key).into_owned()),
        ("ETCD_LOCK_REV", revision.to_string()),
    ];
    let ran = execute::run(&context.args()[1..], &environment).await;
    let released = client.delete(&delete(key.to_vec()), None).await;
    ran.map_err(|it| {
        // A program that a signal ended has exit code -1, of which the low byte is 255.
        let code = it.code.map_or(exit::ERROR, |it| it.to_le_bytes()[0]);
        Failure::new(code, it.text)
    })?;
    released?;
    Ok(())
}
