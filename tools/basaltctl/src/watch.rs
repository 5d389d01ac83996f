//! watch.

use basalt_proto::etcdserverpb::watch_client::WatchClient;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use basalt_proto::mvccpb::event::EventType;

use crate::args::{Args, Spec};
use crate::client::Client;
use crate::keys::range;
use crate::lease::tokio_once;
use crate::{Failure, exit, output};

/// `watch <key> [range_end]`: prints events until the stream ends.
pub(crate) async fn watch(rest: Vec<String>) -> Result<(), Failure> {
    const SPEC: Spec =
        Spec { values: &["rev"], switches: &["prefix", "from-key", "prev-kv", "progress-notify"] };
    let args = Args::read(rest, SPEC)?;
    let (key, range_end) = range(&args, "watch")?;
    let client = Client::connect(&args).await?;
    let create = WatchCreateRequest {
        key,
        range_end,
        start_revision: args.number("rev")?,
        prev_kv: args.is_on("prev-kv"),
        progress_notify: args.is_on("progress-notify"),
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The client's side stays open: a stream that ended might be taken for one that lost interest.
    let requests = tonic::codegen::tokio_stream::StreamExt::chain(
        tokio_once(request),
        tonic::codegen::tokio_stream::pending(),
    );
    let mut watcher =
        WatchClient::new(client.channel.clone()).max_decoding_message_size(i32::MAX as usize);
    let mut answers = watcher.watch(requests).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.canceled {
            let why = match answer.compact_revision {
                0 => answer.cancel_reason,
                _ => "etcdserver: mvcc: required revision has been compacted".to_owned(),
            };
            output::error(&format!("watch was canceled ({why})"));
            break;
        }
        for event in answer.events {
            let deleted = event.r#type() == EventType::Delete;
            output::line(if deleted { "DELETE" } else { "PUT" });
            if let Some(prev) = &event.prev_kv {
                output::key_value(prev, client.hex);
            }
            if let Some(kv) = &event.kv {
                output::key_value(kv, client.hex);
            }
        }
    }
    Err(Failure::new(exit::INTERRUPTED, "watch is canceled by the server"))
}
