//! The audit log of requests, and the limits of users and addresses.
//! Where neither is asked for, a request costs one look at two options.
//!
//! ```text
//!  head ─► Observed ─► message: limits, what it is about ─► service ─► code, revision ─► a line of the audit log
//! ```

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use basalt_proto::rpc::{Rpc, Streaming, Unary};
use bytes::Bytes;
use hyper::http::request::Parts;
use send_wrapper::SendWrapper;
use tonic::Code;

use super::credentials::Credentials;
use super::login::host;
use crate::actors::ReplicaClient;
use crate::audit::{AuditRecord, Class, Rules, Target, response_revision};
use crate::auth::{AuthInfo, Source};
use crate::io::LogQueue;
use crate::io::clock::{self, Instant};
use crate::metrics;
use crate::ratelimit::{Held, RateLimiter, Subject};
use crate::types::Refusal;

/// The time between two attempts to queue a line that must not be dropped.
const WAIT: Duration = Duration::from_millis(2);

/// One for a member.
#[derive(Debug, Default)]
pub struct Policy {
    audit: Option<Audit>,
    limiter: Option<Mutex<RateLimiter>>,
}

/// The audit log.
#[derive(Debug)]
pub struct Audit {
    rules: Rules,
    queue: LogQueue,
    waits: bool,
}

impl Audit {
    /// Lines of requests that these rules are for go into this queue. If it is full they are dropped and counted, or
    /// requests wait.
    pub fn new(rules: Rules, queue: LogQueue, waits: bool) -> Self {
        Self { rules, queue, waits }
    }

    /// True if the rules want a line about a request of this user, whatever comes of it.
    fn wants(&self, rpc: Rpc, who: Option<&AuthInfo>, message: &[u8]) -> bool {
        self.rules.admits(rpc, who.map(|who| &*who.user), message)
    }

    /// The line about a request of this user.
    fn line(request: &Audited<'_>, user: Option<&AuthInfo>, fields: &[u8]) -> Vec<u8> {
        metrics::AUDIT_LINES.add(1);
        let certificate = request.credentials.certificate();
        let record = AuditRecord {
            time: clock::unix_time(),
            user: user.map(|who| &*who.user),
            source: source(user),
            certificate: certificate.map(|certificate| certificate.fingerprint.as_str()),
            address: request.address,
            rpc: request.rpc,
            fields,
            code: request.code,
            revision: request.revision,
            took: request.took,
        };
        record.line()
    }
}

/// A request and its answer, as a line has them.
struct Audited<'a> {
    credentials: &'a Credentials,
    rpc: Rpc,
    address: &'a str,
    code: i32,
    revision: i64,
    took: Duration,
}

/// The part of a request's message that is kept until its answer is known. Where a line is wanted the message itself is not:
/// thousands of requests that wait with all that was read of them do not fit into a processor's cache.
enum Kept {
    /// No message has come.
    Nothing,
    /// The rules want a line, with these fields.
    Wanted(Vec<u8>),
    /// The rules skip it, unless it is refused for lack of permission.
    Skipped(Bytes),
}

impl Policy {
    /// With what there is of both.
    pub fn new(audit: Option<Audit>, limiter: Option<RateLimiter>) -> Self {
        Self { audit, limiter: limiter.map(Mutex::new) }
    }

    fn limiter(&self) -> Option<MutexGuard<'_, RateLimiter>> {
        let limiter = self.limiter.as_ref()?;
        Some(limiter.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The policy, and the executor's client of the replica. A request holds both by one count, which no other core touches.
pub(super) struct PolicyClient {
    policy: Arc<Policy>,
    replica: ReplicaClient,
}

impl PolicyClient {
    pub(super) fn new(policy: &Arc<Policy>, replica: &ReplicaClient) -> Rc<Self> {
        Rc::new(Self { policy: Arc::clone(policy), replica: replica.clone() })
    }

    /// Takes note of a request that begins; nothing if nobody asks for it.
    pub(super) fn observe(
        self: &Rc<Self>,
        rpc: Rpc,
        head: &Parts,
        address: &Arc<str>,
    ) -> Option<Box<Observed>> {
        if self.policy.audit.is_none() && self.policy.limiter.is_none() {
            return None;
        }
        Some(Box::new(Observed {
            client: SendWrapper::new(Rc::clone(self)),
            rpc,
            credentials: Credentials::new(&head.headers, &head.extensions),
            address: Arc::clone(address),
            began: Instant::now(),
            who: None,
            kept: Kept::Nothing,
            revision: 0,
            held: None,
            is_over: false,
        }))
    }

    /// Writes down messages of a stream from this address; `None` without an audit log.
    pub(super) fn observer(&self, address: &Arc<str>) -> Option<Observer> {
        self.policy.audit.is_some().then(|| Observer {
            policy: Arc::clone(&self.policy),
            replica: self.replica.clone(),
            address: Arc::clone(address),
        })
    }
}

/// Writes down messages of a stream; one of its request's extensions.
#[derive(Clone)]
pub(super) struct Observer {
    policy: Arc<Policy>,
    replica: ReplicaClient,
    address: Arc<str>,
}

impl Observer {
    /// Writes down a message, which was answered with this code.
    pub(super) fn note(&self, credentials: &Credentials, (rpc, message): (Rpc, &[u8]), code: i32) {
        let Some(audit) = &self.policy.audit else { return };
        let who = credentials.identify_now(&self.replica);
        if !audit.wants(rpc, who.as_ref(), message) && !Rules::is_denial(code) {
            return;
        }
        let (address, took) = (&*self.address, Duration::ZERO);
        let request = Audited { credentials, rpc, address, code, revision: 0, took };
        let fields = Target::of(rpc, message).to_fields();
        audit.queue.push(&Audit::line(&request, who.as_ref(), &fields), false);
    }
}

/// A request under way. Dropped before its end, it was canceled.
pub(super) struct Observed {
    /// Bodies must be `Send` for tonic; they stay on their executor.
    client: SendWrapper<Rc<PolicyClient>>,
    rpc: Rpc,
    credentials: Credentials,
    address: Arc<str>,
    began: Instant,
    /// Known when the message has come, in most cases.
    who: Option<AuthInfo>,
    kept: Kept,
    revision: i64,
    held: Option<(Vec<Subject>, Held)>,
    is_over: bool,
}

impl Observed {
    /// Its message has come, or it is a stream, which begins.
    ///
    /// # Errors
    /// `TooManyAnswers`: its user or its address has asked for too much.
    pub(super) fn admit(&mut self, message: &Bytes) -> Result<(), Refusal> {
        let client = Rc::clone(&self.client);
        self.who = self.credentials.identify_now(&client.replica);
        if let Some(audit) = &client.policy.audit {
            self.kept = match audit.wants(self.rpc, self.who.as_ref(), message) {
                true => Kept::Wanted(Target::of(self.rpc, message).to_fields()),
                false => Kept::Skipped(message.clone()),
            };
        }
        let Some(mut limiter) = client.policy.limiter() else { return Ok(()) };
        // Whoever looks after the cluster must be able to look when others ask for too much.
        if Class::of(self.rpc) == Class::Status {
            return Ok(());
        }
        let (now_ms, subjects) = (clock::now_ms(), self.subjects());
        let held = match self.rpc {
            Rpc::Unary(Unary::KVRange) | Rpc::Streaming(Streaming::KVRangeStream) => {
                Some(Held::Range)
            }
            Rpc::Streaming(Streaming::Watch) => Some(Held::Watch),
            Rpc::Unary(_) | Rpc::Streaming(_) => None,
        };
        let fits = held.is_none_or(|held| limiter.hold(&subjects, held, now_ms));
        if !fits || !limiter.admit(&subjects, message.len(), now_ms) {
            if let Some(held) = held.filter(|_| fits) {
                limiter.release(&subjects, held);
            }
            metrics::REQUESTS_LIMITED.add(1);
            return Err(Refusal::TooManyAnswers);
        }
        drop(limiter);
        self.held = held.map(|held| (subjects, held));
        Ok(())
    }

    /// The encoded answer of a service.
    pub(super) fn answered(&mut self, answer: &[u8]) {
        if self.client.policy.audit.is_some() {
            self.revision = response_revision(answer);
        }
    }

    /// It is over, with this code. May wait for room in the audit log.
    pub(super) async fn finish(&mut self, code: i32) {
        let Some(line) = self.end(code) else { return };
        let Some(audit) = &self.client.policy.audit else { return };
        if !audit.waits {
            audit.queue.push(&line, false);
            return;
        }
        while !audit.queue.try_push(&line, false) {
            clock::sleep(WAIT).await;
        }
    }

    /// It is over, and nobody can wait.
    pub(super) fn finish_now(&mut self, code: i32) {
        if let (Some(line), Some(audit)) = (self.end(code), &self.client.policy.audit) {
            audit.queue.push(&line, false);
        }
    }

    /// The line to be logged, once.
    fn end(&mut self, code: i32) -> Option<Vec<u8>> {
        if std::mem::replace(&mut self.is_over, true) {
            return None;
        }
        let PolicyClient { policy, replica } = &**self.client;
        let (rpc, audit) = (self.rpc, policy.audit.as_ref()?);
        // Its token may have become known meanwhile.
        let who = self.who.take().or_else(|| self.credentials.identify_now(replica));
        let is_denial = Rules::is_denial(code);
        let fields = match std::mem::replace(&mut self.kept, Kept::Nothing) {
            Kept::Wanted(fields) => fields,
            Kept::Skipped(message) if is_denial => Target::of(rpc, &message).to_fields(),
            Kept::Nothing if is_denial || audit.wants(rpc, who.as_ref(), &[]) => Vec::new(),
            Kept::Skipped(_) | Kept::Nothing => return None,
        };
        let (credentials, address, revision) = (&self.credentials, &*self.address, self.revision);
        let took = self.began.elapsed();
        let request = Audited { credentials, rpc, address, code, revision, took };
        Some(Audit::line(&request, who.as_ref(), &fields))
    }

    /// Whose limits count.
    fn subjects(&self) -> Vec<Subject> {
        let user = self.who.clone().map(|who| Subject::User(who.user));
        let address = Subject::Address(host(&self.address).into());
        user.into_iter().chain([address]).collect()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.finish_now(Code::Cancelled as i32);
        if let (Some((subjects, held)), Some(mut limiter)) =
            (self.held.take(), self.client.policy.limiter())
        {
            limiter.release(&subjects, held);
        }
    }
}

/// How it is known who asks.
fn source(who: Option<&AuthInfo>) -> &'static str {
    match who.map(|who| who.source) {
        None => "none",
        Some(Source::Token) => "token",
        Some(Source::Jwt) => "jwt",
        Some(Source::CertificateName) => "certificate",
        Some(Source::Internal) => "internal",
    }
}
