//! make-mirror: copies the present state, then every change, until something fails.

use std::cell::Cell;
use std::time::Duration;

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{RangeRequest, RequestOp, TxnRequest, WatchCreateRequest};
use basalt_proto::mvccpb::Event;
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;
use tokio::time::sleep;

use crate::Failure;
use crate::client::Client;
use crate::client::requests::{delete, get, op, prefix_end, put};
use crate::client::settings::{Settings, named};
use crate::client::watch::Watch;
use crate::command::Context;
use crate::print::out;
use crate::print::progress::Progress;
use dial::tls::Security;

/// Keys read at once from the source.
const BATCH: i64 = 1000;
/// Interval at which the total is printed.
const REPORT: Duration = Duration::from_secs(30);

/// Source, destination and renaming of keys.
struct Mirror<'a> {
    source: &'a Client,
    destination: &'a Client,
    prefix: Vec<u8>,
    replacement: Vec<u8>,
    ops_max: usize,
    total: Cell<u64>,
}

/// # Errors
/// Always; it runs until something fails.
pub(crate) async fn make_mirror(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "make-mirror takes one destination argument")?;
    let destination_settings = destination(&context)?;
    let destination = destination_settings.client().await?;
    let (source, _) = context.connect().await?;
    let values = &context.values;
    let replacement = values.text("dest-prefix").to_owned();
    let nowhere = values.is_on("no-dest-prefix");
    if nowhere && !replacement.is_empty() {
        let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose \
                    one";
        return Err(Failure::bad_args(text));
    }
    let prefix = values.text("prefix").as_bytes().to_vec();
    let progress = Progress::new();
    let mut mirror = Mirror {
        source: &source,
        destination: &destination,
        prefix,
        replacement: replacement.into_bytes(),
        ops_max: usize::try_from(values.int("max-txn-ops")).unwrap_or(usize::MAX),
        total: Cell::new(0),
    };
    let start = (values.int("rev") - 1).max(0);
    // etcdctl does so without --rev only, and with it writes each key without its prefix, over others of that name.
    if !nowhere && mirror.replacement.is_empty() {
        mirror.replacement = mirror.prefix.clone();
    }
    let copied = || format!("{} copied", mirror.total.get());
    tokio::select! {
        outcome = progress.during(Box::pin(mirror.run(start)), copied) => outcome,
        () = mirror.report(&progress) => Ok(()),
    }
}

fn destination(context: &Context) -> Result<Settings, Failure> {
    let values = &context.values;
    let auth =
        named(values.text("dest-user"), values.text("dest-password"), "Destination Password: ")?;
    let security = Security {
        cert: values.text("dest-cert").to_owned(),
        key: values.text("dest-key").to_owned(),
        cacert: values.text("dest-cacert").to_owned(),
        server_name: String::new(),
        insecure_transport: values.is_on("dest-insecure-transport"),
        skip_verify: false,
    };
    Ok(Settings::of_destination(values, context.arg(0), security, auth))
}

impl Mirror<'_> {
    async fn report(&self, progress: &Progress) {
        loop {
            sleep(REPORT).await;
            progress.clear();
            out::line(&self.total.get().to_string());
        }
    }

    async fn run(&self, start: i64) -> Result<(), Failure> {
        let revision = if start == 0 { self.copy_all().await? } else { start };
        self.follow(revision + 1).await
    }

    /// Copies the present state; returns its revision.
    async fn copy_all(&self) -> Result<i64, Failure> {
        let any = if self.prefix.is_empty() { b"foo".to_vec() } else { self.prefix.clone() };
        let answer = self.source.get(&get(any), None).await?;
        let revision = answer.header.unwrap_or_default().revision;
        let first = if self.prefix.is_empty() { b"\0".to_vec() } else { self.prefix.clone() };
        let end = match self.prefix.is_empty() {
            true => Bytes::from_static(b"\0"),
            false => prefix_end(&self.prefix),
        };
        let mut request = RangeRequest {
            key: first.into(),
            range_end: end,
            limit: BATCH,
            revision,
            ..RangeRequest::default()
        };
        loop {
            let answer = self.source.get(&request, None).await?;
            for kv in &answer.kvs {
                let copy = put(self.renamed(&kv.key), kv.value.clone(), 0);
                self.destination.put(&copy, None).await?;
                self.total.set(self.total.get() + 1);
            }
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else {
                return Ok(revision);
            };
            request.key = [last.key.as_ref(), b"\0"].concat().into();
        }
    }

    async fn follow(&self, start_revision: i64) -> Result<(), Failure> {
        let prefix = Bytes::from(self.prefix.clone());
        let create = WatchCreateRequest {
            range_end: prefix_end(&prefix),
            key: if prefix.is_empty() { Bytes::from_static(b"\0") } else { prefix },
            start_revision,
            ..WatchCreateRequest::default()
        };
        let mut watch = Watch::new(self.source, create, false);
        while let Some(told) = watch.next().await {
            if let Some(why) = told.ended {
                return Err(Failure::error(why));
            }
            self.apply(&told.response.events).await?;
        }
        Ok(())
    }

    /// Applies one transaction per revision, or more if it would be too large.
    async fn apply(&self, events: &[Event]) -> Result<(), Failure> {
        let mut ops: Vec<RequestOp> = Vec::new();
        let mut last = 0;
        for event in events {
            let Some(kv) = &event.kv else { continue };
            if (last != 0 && kv.mod_revision > last) || ops.len() >= self.ops_max {
                self.commit(std::mem::take(&mut ops)).await?;
            }
            last = kv.mod_revision;
            let key = self.renamed(&kv.key);
            ops.push(op(match event.r#type() {
                EventType::Put => Request::RequestPut(put(key, kv.value.clone(), 0)),
                EventType::Delete => Request::RequestDeleteRange(delete(key)),
            }));
            self.total.set(self.total.get() + 1);
        }
        self.commit(ops).await
    }

    async fn commit(&self, ops: Vec<RequestOp>) -> Result<(), Failure> {
        if !ops.is_empty() {
            let request = TxnRequest { success: ops, ..TxnRequest::default() };
            self.destination.txn(&request).await?;
        }
        Ok(())
    }

    /// The key with its prefix replaced where it first occurs.
    fn renamed(&self, key: &[u8]) -> Vec<u8> {
        match key.strip_prefix(self.prefix.as_slice()) {
            Some(rest) => [self.replacement.as_slice(), rest].concat(),
            None => key.to_vec(),
        }
    }
}
