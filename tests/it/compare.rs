//! The comparison with a real etcd: the same seeded requests go to both, one after the other, and
//! every answer must be equal field by field, error codes and texts included. `README.md` lists
//! the permitted differences, with the reason, and the variables that make it longer.

mod answer;
mod extremes;
mod generate;
mod generate_txn;
mod identity;
mod request;
mod scripted;
mod watching;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use basalt_proto::etcdserverpb::HashKvRequest;
use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest,
    WatchCreateRequest,
};
use bytes::Bytes;
use tonic::Status;

use self::answer::{Answer, deletes_and_puts, reconcile};
use self::generate::Generator;
use self::identity::Identity;
use self::request::{Call, Step};
use self::watching::{Told, Watching};
use crate::process::{self, Server, Setup};
use crate::wire::{self, Wire};

/// Watch streams that are open at the same time.
const STREAMS: usize = 2;
/// Small limits, so that requests around them are cheap.
const MAX_REQUEST_BYTES: usize = 65_536;
const MAX_TXN_OPS: usize = 16;
/// Steps printed before the one that differed.
const CONTEXT: usize = 6;

#[test]
fn answers_equal_those_of_a_real_etcd() {
    compare_all(|_| Identity::Anyone, 4_500);
}

/// Over mutual TLS and with auth on: the seed chooses in whose name.
#[test]
fn answers_to_users_equal_those_of_a_real_etcd() {
    compare_all(Identity::secured, 1_200);
}

fn compare_all(identity: impl Fn(u64) -> Identity, default_requests: u64) {
    let seeds = from_environment("COMPARE_SEEDS", 3);
    let first = from_environment("COMPARE_SEED", 1);
    let requests = from_environment("COMPARE_REQUESTS", default_requests) / seeds.max(1);
    let runtime = runtime();
    let mut differences = Vec::new();
    for seed in first..first + seeds {
        let began = Instant::now();
        let outcome = runtime.block_on(compare(seed, requests, identity(seed)));
        println!("seed {seed}: {requests} requests in {:.1} s", began.elapsed().as_secs_f64());
        differences.extend(outcome.err());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The limits both servers run with; `COMPARE_FLAGS` adds flags to Basalt's side alone, to see
/// that the comparison can fail.
fn setups() -> (Setup, Setup) {
    let limits = |setup: Setup| {
        setup
            .flag("max-request-bytes", &MAX_REQUEST_BYTES.to_string())
            .flag("max-txn-ops", &MAX_TXN_OPS.to_string())
    };
    let etcd = limits(Setup::new(process::etcd()));
    let mut basalt = limits(Setup::new(process::basalt()));
    for flag in std::env::var("COMPARE_FLAGS").unwrap_or_default().split_whitespace() {
        let (name, value) = flag.split_once('=').expect("COMPARE_FLAGS is `name=value …`");
        basalt = basalt.flag(name.trim_start_matches('-'), value);
    }
    (etcd, basalt)
}

/// One server under comparison.
struct Side {
    server: Server,
    wire: Wire,
    watching: Vec<Watching>,
}

impl Side {
    async fn new(setup: Setup, identity: &Identity) -> Result<Self, String> {
        let server = identity.setup(setup).start();
        let wire = identity.connect(&server).await;
        let mut watching = Vec::new();
        for _ in 0..STREAMS {
            watching.push(Watching::open(&wire).await?);
        }
        Ok(Self { server, wire, watching })
    }

    async fn answer(&self, call: &Call) -> Answer {
        match call {
            Call::RangeStream(_) => {
                Answer::joined(self.wire.collect(call.path(), call.encoded()).await)
            }
            Call::KeepAlive(_) => Answer::decode(call, self.keep_alive(call).await),
            _ => Answer::decode(call, self.wire.call(call.path(), call.encoded()).await),
        }
    }

    async fn keep_alive(&self, call: &Call) -> Result<Bytes, Status> {
        let mut talk = self.wire.talk(call.path(), call.encoded()).await?;
        let ended = || Status::unknown("client: the stream ended without an answer");
        let answer = talk.answers.message().await?.ok_or_else(ended)?;
        drop(talk.send);
        // Half-closed by us: the server ends it without an error.
        match talk.answers.message().await? {
            None => Ok(answer),
            Some(more) => Err(Status::unknown(format!("client: a second answer {more:?}"))),
        }
    }

    /// The responses of a stream whose only watcher asks for a compacted revision.
    async fn lost(&self, request: &WatchCreateRequest) -> Result<Told, String> {
        let mut watching = Watching::open(&self.wire).await?;
        watching.create(request.clone()).await?;
        watching.lost().await?;
        Ok(watching.told)
    }

    /// A lease with an id that the server chooses, which has to be positive, and its revocation.
    async fn grant_any_id(&self, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        let mut grant: LeaseGrantResponse = self.wire.ask(wire::LEASE_GRANT, &request).await?;
        let revoke = LeaseRevokeRequest { id: grant.id };
        let _: LeaseRevokeResponse = self.wire.ask(wire::LEASE_REVOKE, &revoke).await?;
        grant.id = i64::from(grant.id > 0);
        Ok(grant)
    }
}

/// Both sides, and the last steps.
struct Pair {
    etcd: Side,
    basalt: Side,
    identity: Identity,
    generator: Generator,
    settled: u64,
    recent: VecDeque<String>,
    /// Revisions at which etcd must not be compacted.
    fatal_compactions: BTreeSet<i64>,
}

async fn compare(seed: u64, requests: u64, identity: Identity) -> Result<(), String> {
    let (etcd, basalt) = setups();
    let etcd = Side::new(etcd, &identity).await.map_err(|it| format!("etcd: {it}"))?;
    let basalt = Side::new(basalt, &identity).await.map_err(|it| format!("basalt: {it}"))?;
    let generator = Generator::new(seed);
    let mut pair = Pair {
        etcd,
        basalt,
        identity,
        generator,
        settled: 0,
        recent: VecDeque::new(),
        fatal_compactions: BTreeSet::new(),
    };
    let mut number = 0;
    while number < requests {
        for step in pair.generator.next() {
            number += 1;
            pair.change_roles(number).await;
            if pair.identity.leaves_out(&step) {
                continue;
            }
            let outcome = pair.step(&step).await;
            pair.remember(number, &step);
            outcome.map_err(|problem| pair.report(seed, number, &step, &problem))?;
        }
    }
    for step in last_steps(pair.generator.revision) {
        number += 1;
        if !matches!(step, Step::Settle { .. }) {
            pair.become_root();
        }
        let outcome = pair.step(&step).await;
        outcome.map_err(|problem| pair.report(seed, number, &step, &problem))?;
    }
    Ok(())
}

/// All watches settled, the whole state equal, and its hash too.
fn last_steps(hash_revision: i64) -> Vec<Step> {
    let all = Bytes::from_static(b"\0");
    let range = basalt_proto::etcdserverpb::RangeRequest {
        key: all.clone(),
        range_end: all,
        ..Default::default()
    };
    let mut steps: Vec<_> = (0..STREAMS).map(|stream| Step::Settle { stream }).collect();
    steps.push(Step::Call(Call::Range(range)));
    steps.push(Step::Call(Call::Leases(Default::default())));
    steps.push(Step::Call(Call::HashKv(HashKvRequest { revision: hash_revision })));
    steps
}

impl Pair {
    async fn change_roles(&self, number: u64) {
        self.identity.change(&self.etcd.server, number).await;
        self.identity.change(&self.basalt.server, number).await;
    }

    /// The rest is asked by somebody who may see everything.
    fn become_root(&mut self) {
        for side in [&mut self.etcd, &mut self.basalt] {
            side.wire = side.server.wire();
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Call(call) => self.call(call).await,
            Step::GrantAnyId { ttl } => {
                let (left, right) =
                    tokio::join!(self.etcd.grant_any_id(*ttl), self.basalt.grant_any_id(*ttl));
                let answer = |outcome: Result<_, Status>| match outcome {
                    Ok(grant) => Answer::Grant(grant),
                    Err(status) => Answer::refused(&status),
                };
                let call = Call::Grant(LeaseGrantRequest { ttl: *ttl, id: 0 });
                equal(&call, answer(left), answer(right))
            }
            Step::Watch { stream, request } => {
                let (left, right) = tokio::join!(
                    self.etcd.watching[*stream].create(request.clone()),
                    self.basalt.watching[*stream].create(request.clone())
                );
                both(left, right)?;
                self.settle_created(*stream)
            }
            Step::WatchLost { request } => {
                let (left, right) =
                    tokio::join!(self.etcd.lost(request), self.basalt.lost(request));
                if left == right { Ok(()) } else { Err(difference(&left, &right)) }
            }
            Step::CancelWatch { stream, id } => {
                let alive = self.generator.watchers[*stream].contains(id);
                self.generator.watchers[*stream].retain(|it| it != id);
                let (left, right) = tokio::join!(
                    self.etcd.watching[*stream].cancel(*id, alive),
                    self.basalt.watching[*stream].cancel(*id, alive)
                );
                both(left, right)
            }
            Step::Settle { stream } => self.settle(*stream).await,
        }
    }

    async fn call(&mut self, call: &Call) -> Result<(), String> {
        let call = &self.spare_etcd(call);
        let (etcd, basalt) = tokio::join!(self.etcd.answer(call), self.basalt.answer(call));
        if let Some(header) = etcd.header() {
            self.generator.revision = self.generator.revision.max(header.revision);
        }
        if let Answer::Txn(answer) = &etcd
            && deletes_and_puts(answer)
        {
            self.fatal_compactions.extend(answer.header.as_ref().map(|header| header.revision));
        }
        self.generator.learn(call, !matches!(etcd, Answer::Refused { .. }));
        if self.is_listed(call, &etcd, &basalt) {
            return Ok(());
        }
        equal(call, etcd, basalt)
    }

    /// A compaction at a revision that may have deleted a key and put it again goes to the one before: etcd
    /// would lose the key and end, as `tests/it/README.md` says.
    fn spare_etcd(&self, call: &Call) -> Call {
        let mut call = call.clone();
        if let Call::Compact(request) = &mut call {
            while self.fatal_compactions.contains(&request.revision) {
                request.revision -= 1;
            }
        }
        call
    }

    /// The differences that `tests/it/README.md` lists, each with its reason.
    fn is_listed(&self, call: &Call, etcd: &Answer, basalt: &Answer) -> bool {
        match (call, etcd, basalt) {
            // etcd keeps the hashes of ten compactions, Basalt that of the newest.
            (Call::HashKv(request), Answer::HashKv(kept), _) => {
                let newest = request.revision > self.generator.compacted;
                kept.hash_revision == request.revision
                    && kept.compact_revision != self.generator.compacted
                    && !newest
                    && request.revision != self.generator.compacted
            }
            // Go takes a field of another wire type for an unknown one, prost for damage.
            (Call::Garbage(..), _, Answer::Refused { code, .. }) => {
                *code == tonic::Code::Internal
                    && !matches!(etcd, Answer::Refused { code, .. } if *code == tonic::Code::Internal)
            }
            _ => false,
        }
    }

    /// Compares the response to a create request as soon as it is there.
    fn settle_created(&mut self, stream: usize) -> Result<(), String> {
        let left = std::mem::take(&mut self.etcd.watching[stream].told.created);
        let right = std::mem::take(&mut self.basalt.watching[stream].told.created);
        let alive = left.iter().filter(|it| !it.canceled).map(|it| it.watch_id);
        self.generator.watchers[stream].extend(alive.filter(|id| *id != 777));
        if left == right { Ok(()) } else { Err(difference(&left, &right)) }
    }

    async fn settle(&mut self, stream: usize) -> Result<(), String> {
        // Watchers of future revisions become active by these writes; the last one marks the moment.
        for _ in 0..4 {
            self.settled += 1;
            let put = PutRequest {
                key: Bytes::from_static(b"\xfe settled"),
                value: self.settled.to_string().into(),
                ..Default::default()
            };
            self.call(&Call::Put(put)).await?;
        }
        let revision = self.generator.revision;
        let (left, right) = tokio::join!(
            self.etcd.watching[stream].settle(revision),
            self.basalt.watching[stream].settle(revision)
        );
        both(left, right)?;
        let left = std::mem::take(&mut self.etcd.watching[stream].told);
        let right = std::mem::take(&mut self.basalt.watching[stream].told);
        for (id, seen) in &left.watchers {
            if seen.iter().any(|it| matches!(it, watching::Seen::Canceled { .. })) {
                self.generator.watchers[stream].retain(|it| it != id);
            }
        }
        if left == right { Ok(()) } else { Err(difference(&left, &right)) }
    }

    fn remember(&mut self, number: u64, step: &Step) {
        self.recent.push_back(shortened(&format!("{number}: {step:?}"), 600));
        if self.recent.len() > CONTEXT {
            self.recent.pop_front();
        }
    }

    fn report(&mut self, seed: u64, number: u64, step: &Step, problem: &str) -> String {
        self.recent.pop_back();
        let before: Vec<_> = self.recent.iter().map(|it| format!("  {it}\n")).collect();
        let logs = match self.basalt.server.wait_exit(std::time::Duration::from_millis(100)) {
            Some(status) => format!("\nbasalt ended: {status}\n{}", self.basalt.server.logs.tail()),
            None => String::new(),
        };
        format!(
            "seed {seed}, step {number}: answers differ (again: COMPARE_SEED={seed} \
             COMPARE_SEEDS=1 COMPARE_REQUESTS={number})\nbefore:\n{}request: {}\n{problem}{logs}",
            before.concat(),
            shortened(&format!("{step:#?}"), 4000),
        )
    }
}

fn both(etcd: Result<(), String>, basalt: Result<(), String>) -> Result<(), String> {
    if etcd == basalt { Ok(()) } else { Err(difference(&etcd, &basalt)) }
}

fn equal(call: &Call, mut etcd: Answer, mut basalt: Answer) -> Result<(), String> {
    reconcile(call, &mut etcd, &mut basalt);
    if etcd == basalt { Ok(()) } else { Err(difference(&etcd, &basalt)) }
}

/// The lines around the first difference of two values, and the number of differing lines.
pub(crate) fn difference(etcd: &impl std::fmt::Debug, basalt: &impl std::fmt::Debug) -> String {
    const BEFORE: usize = 14;
    const AFTER: usize = 10;
    let (etcd, basalt) = (format!("{etcd:#?}"), format!("{basalt:#?}"));
    let (left, right): (Vec<_>, Vec<_>) = (etcd.lines().collect(), basalt.lines().collect());
    let pairs = left.iter().zip(&right);
    let same = pairs.clone().take_while(|(left, right)| left == right).count();
    let parted = pairs.filter(|(left, right)| left != right).count();
    let from = same.saturating_sub(BEFORE);
    let part = |lines: &[&str]| {
        let part = &lines[same.min(lines.len())..lines.len().min(same + AFTER)];
        shortened(&part.join("\n"), 3000)
    };
    format!(
        "{parted} lines differ ({} and {} in all), from line {same}:\n{}\n-- etcd:\n{}\n-- \
         basalt:\n{}",
        left.len(),
        right.len(),
        shortened(&left[from..same].join("\n"), 3000),
        part(&left),
        part(&right)
    )
}

fn shortened(text: &str, bytes_max: usize) -> String {
    match text.char_indices().nth(bytes_max) {
        Some((at, _)) => format!("{}… ({} more)", &text[..at], text.len() - at),
        None => text.to_owned(),
    }
}
