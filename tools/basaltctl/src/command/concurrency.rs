//! Shared parts of locks and elections: a key of one's own below a name, bound to a lease, and
//! waiting until all older keys there are deleted.

use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::{RangeRequest, WatchCreateRequest};
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;

use crate::Failure;
use crate::client::Client;
use crate::client::requests::prefix_end;
use crate::client::watch::Watch;

/// The oldest or the youngest key below a name.
pub(crate) fn by_age(prefix: &[u8], order: SortOrder) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: prefix_end(prefix),
        sort_target: SortTarget::Create.into(),
        sort_order: order.into(),
        limit: 1,
        ..RangeRequest::default()
    }
}

/// Waits until no key below the name is as old as `revision`.
///
/// # Errors
/// The server refused.
pub(crate) async fn wait_deletes(
    client: &Client,
    prefix: &[u8],
    revision: i64,
) -> Result<(), Failure> {
    let mut request = by_age(prefix, SortOrder::Descend);
    request.max_create_revision = revision;
    loop {
        let answer = client.get(&request, None).await?;
        let Some(kv) = answer.kvs.first() else { return Ok(()) };
        let since = answer.header.unwrap_or_default().revision;
        wait_delete(client, kv.key.clone(), since).await?;
    }
}

async fn wait_delete(client: &Client, key: Bytes, since: i64) -> Result<(), Failure> {
    let create = WatchCreateRequest { key, start_revision: since, ..WatchCreateRequest::default() };
    let mut watch = Watch::new(client, create, false);
    while let Some(told) = watch.next().await {
        if let Some(why) = told.ended {
            return Err(Failure::error(why));
        }
        if told.response.events.iter().any(|it| it.r#type() == EventType::Delete) {
            return Ok(());
        }
    }
    Err(Failure::error("lost watcher waiting for delete"))
}

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
