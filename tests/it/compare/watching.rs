//! One watch stream of one server, and its responses so far.
//!
//! A progress request finds out if all events have been sent: it is answered only once every
//! watcher of the stream is up to date. The caller writes before it asks, so that the revision in
//! the response distinguishes it from a late one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use basalt_proto::mvccpb::Event;
use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use crate::wire::{self, Wire};

/// A watcher on a key without writes: without any, progress is not answered.
const KEEPER: i64 = 777;
const WAIT_MAX: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(30);

/// The responses to one watcher, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    Event(Event),
    Canceled { revision: i64, compact_revision: i64, reason: String },
}

/// The responses of a stream since the last comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// Responses to create requests, in order.
    pub(super) created: Vec<WatchResponse>,
    pub(super) watchers: BTreeMap<i64, Vec<Seen>>,
}

pub(super) struct Watching {
    send: mpsc::Sender<Bytes>,
    inbox: mpsc::UnboundedReceiver<Result<Bytes, Status>>,
    pub(super) told: Told,
    /// Number of create requests answered so far.
    created: usize,
    /// The newest revision up to which the server has reported all events as sent.
    progress: i64,
    /// Last event of each watcher, and true if its revision may go on in the next response.
    last: BTreeMap<i64, (i64, bool)>,
}

impl Watching {
    pub(super) async fn open(wire: &Wire) -> Result<Self, String> {
        let keeper = WatchCreateRequest {
            key: Bytes::from_static(b"\xfd nobody writes this"),
            watch_id: KEEPER,
            ..Default::default()
        };
        let first = encoded(RequestUnion::CreateRequest(keeper));
        let talk = wire.talk(wire::WATCH, first).await.map_err(|status| format!("{status:?}"))?;
        let (out, inbox) = mpsc::unbounded_channel();
        let mut answers = talk.answers;
        tokio::spawn(async move {
            loop {
                let item = match answers.message().await {
                    Ok(Some(bytes)) => Ok(bytes),
                    Ok(None) => Err(Status::ok("the server ended the stream")),
                    Err(status) => Err(status),
                };
                let end = item.is_err();
                if out.send(item).is_err() || end {
                    return;
                }
            }
        });
        let mut watching = Self {
            send: talk.send,
            inbox,
            told: Told::default(),
            created: 0,
            progress: 0,
            last: BTreeMap::new(),
        };
        watching.until(|it| it.created == 1, WAIT_MAX).await?;
        Ok(watching)
    }

    /// Sends and waits for the response, so that later writes come after it.
    pub(super) async fn create(&mut self, request: WatchCreateRequest) -> Result<(), String> {
        let expected = self.created + 1;
        self.ask(RequestUnion::CreateRequest(request)).await?;
        self.until(|it| it.created == expected, WAIT_MAX).await
    }

    /// Waits until the watcher that was made last has been cancelled by the server.
    pub(super) async fn lost(&mut self) -> Result<(), String> {
        let canceled = |it: &Seen| matches!(it, Seen::Canceled { .. });
        let done = |it: &Self| {
            it.told.watchers.values().flatten().any(canceled)
                || it.told.created.last().is_some_and(|created| created.canceled)
        };
        self.until(done, WAIT_MAX).await
    }

    /// Waits for the response if the watcher is `alive`; for one that does not exist there is none.
    pub(super) async fn cancel(&mut self, watch_id: i64, alive: bool) -> Result<(), String> {
        self.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await?;
        let canceled = |it: &Seen| matches!(it, Seen::Canceled { .. });
        let seen = |it: &Self| {
            it.told.watchers.get(&watch_id).is_some_and(|seen| seen.iter().any(canceled))
        };
        if alive { self.until(seen, WAIT_MAX).await } else { Ok(()) }
    }

    /// Waits until all events up to `revision` have been received.
    pub(super) async fn settle(&mut self, revision: i64) -> Result<(), String> {
        let until = Instant::now() + WAIT_MAX;
        while self.progress < revision {
            if Instant::now() > until {
                return Err(format!("no progress to {revision} in {WAIT_MAX:?}"));
            }
            self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {})).await?;
            match self.until(|it| it.progress >= revision, ASK_AGAIN).await {
                Ok(()) => (),
                Err(problem) if problem.starts_with("nothing came") => (),
                Err(problem) => return Err(problem),
            }
        }
        match self.progress == revision {
            true => Ok(()),
            false => Err(format!("progress {} is beyond the newest {revision}", self.progress)),
        }
    }

    async fn ask(&self, request: RequestUnion) -> Result<(), String> {
        self.send.send(encoded(request)).await.map_err(|_| "the stream is closed".to_owned())
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool, wait: Duration) -> Result<(), String> {
        let until = tokio::time::Instant::now() + wait;
        while !done(self) {
            let Ok(item) = tokio::time::timeout_at(until, self.inbox.recv()).await else {
                return Err(format!("nothing came for {wait:?}"));
            };
            match item {
                Some(Ok(bytes)) => {
                    let response = WatchResponse::decode(bytes).map_err(|it| it.to_string())?;
                    self.note(response)?;
                }
                Some(Err(status)) => {
                    return Err(format!("stream ended: {:?} {}", status.code(), status.message()));
                }
                None => return Err("stream ended before".to_owned()),
            }
        }
        Ok(())
    }

    fn note(&mut self, mut response: WatchResponse) -> Result<(), String> {
        let Some(header) = response.header.as_mut() else {
            return Err(format!("no header: {response:?}"));
        };
        header.raft_term = u64::from(header.raft_term > 0);
        let (revision, id) = (header.revision, response.watch_id);
        if response.created {
            self.created += 1;
            self.last.remove(&id);
            self.told.created.push(response);
        } else if response.canceled {
            self.told.watchers.entry(id).or_default().push(Seen::Canceled {
                revision,
                compact_revision: response.compact_revision,
                reason: response.cancel_reason,
            });
        } else if response.events.is_empty() && id == -1 {
            self.progress = self.progress.max(revision);
        } else {
            self.check_order(revision, &response)?;
            let seen = self.told.watchers.entry(id).or_default();
            seen.extend(response.events.into_iter().map(Seen::Event));
        }
        Ok(())
    }

    /// The boundaries of responses are the server's choice, within these rules.
    fn check_order(&mut self, header: i64, response: &WatchResponse) -> Result<(), String> {
        let id = response.watch_id;
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let (Some(first), Some(last)) = (response.events.first(), response.events.last()) else {
            return Err(format!("neither events nor anything else: {response:?}"));
        };
        let (before, goes_on) = self.last.get(&id).copied().unwrap_or((0, false));
        let in_order = response.events.is_sorted_by_key(revision);
        let later = revision(first) > before || (goes_on && revision(first) == before);
        let known = revision(last) <= header;
        self.last.insert(id, (revision(last), response.fragment));
        match in_order && later && known {
            true => Ok(()),
            false => Err(format!("out of order after {before}: {response:?}")),
        }
    }
}

fn encoded(request: RequestUnion) -> Bytes {
    WatchRequest { request_union: Some(request) }.encode_to_vec().into()
}
