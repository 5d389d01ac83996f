//! The audit log of requests, and the limits of users and addresses.
//! Where neither is asked for, a request costs one look at two options.
//!
//! ```text
//!  head ─► Observed ─► message: limits, what it is about ─► service ─► code, revision ─► a line of the audit log
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use basalt_proto::rpc::{Rpc, Streaming, Unary};
use hyper::http::request::Parts;
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
}

impl Policy {
    /// With what there is of both.
    pub fn new(audit: Option<Audit>, limiter: Option<RateLimiter>) -> Self {
        Self { audit, limiter: limiter.map(Mutex::new) }
    }

    /// Takes note of a request that begins; nothing if nobody asks for it.
    pub(super) fn observe(
        self: &Arc<Self>,
        replica: &ReplicaClient,
        rpc: Rpc,
        head: &Parts,
        address: &Arc<str>,
    ) -> Option<Box<Observed>> {
        if self.audit.is_none() && self.limiter.is_none() {
            return None;
        }
        Some(Box::new(Observed {
            policy: Arc::clone(self),
            replica: replica.clone(),
            rpc,
            credentials: Credentials::new(&head.headers, &head.extensions),
            address: Arc::clone(address),
            began: Instant::now(),
            target: Target::default(),
            revision: 0,
            held: None,
            is_over: false,
        }))
    }

    /// Writes down a message of a stream, which was answered with this code.
    pub(super) fn note(
        self: &Arc<Self>,
        replica: &ReplicaClient,
        credentials: &Credentials,
        address: &Arc<str>,
        (rpc, message): (Rpc, &[u8]),
        code: i32,
    ) {
        if self.audit.is_none() {
            return;
        }
        let mut observed = Observed {
            policy: Arc::clone(self),
            replica: replica.clone(),
            rpc,
            credentials: credentials.clone(),
            address: Arc::clone(address),
            began: Instant::now(),
            target: Target::of(rpc, message),
            revision: 0,
            held: None,
            is_over: false,
        };
        observed.finish_now(code);
    }

    fn limiter(&self) -> Option<MutexGuard<'_, RateLimiter>> {
        let limiter = self.limiter.as_ref()?;
        Some(limiter.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes down messages of a stream; one of its request's extensions.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    pub(super) policy: Arc<Policy>,
    pub(super) address: Arc<str>,
}

/// A request under way. Dropped before its end, it was canceled.
pub(super) struct Observed {
    policy: Arc<Policy>,
    replica: ReplicaClient,
    rpc: Rpc,
    credentials: Credentials,
    address: Arc<str>,
    began: Instant,
    target: Target,
    revision: i64,
    held: Option<(Vec<Subject>, Held)>,
    is_over: bool,
}

impl Observed {
    /// Its message has come, or it is a stream, which begins.
    ///
    /// # Errors
    /// `TooManyAnswers`: its user or its address has asked for too much.
    pub(super) fn admit(&mut self, message: &[u8]) -> Result<(), Refusal> {
        if self.policy.audit.is_some() {
            self.target = Target::of(self.rpc, message);
        }
        let Some(mut limiter) = self.policy.limiter() else { return Ok(()) };
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
        if self.policy.audit.is_some() {
            self.revision = response_revision(answer);
        }
    }

    /// It is over, with this code. May wait for room in the audit log.
    pub(super) async fn finish(&mut self, code: i32) {
        let Some(mut line) = self.end(code) else { return };
        let Some(audit) = &self.policy.audit else { return };
        if !audit.waits {
            audit.queue.push(line, false);
            return;
        }
        while let Err(again) = audit.queue.try_push(line, false) {
            line = again;
            clock::sleep(WAIT).await;
        }
    }

    /// It is over, and nobody can wait.
    pub(super) fn finish_now(&mut self, code: i32) {
        if let (Some(line), Some(audit)) = (self.end(code), &self.policy.audit) {
            audit.queue.push(line, false);
        }
    }

    /// The line to be logged, once.
    fn end(&mut self, code: i32) -> Option<String> {
        if std::mem::replace(&mut self.is_over, true) {
            return None;
        }
        let audit = self.policy.audit.as_ref()?;
        let who = self.credentials.identify_now(&self.replica);
        let user = who.as_ref().map(|who| &*who.user);
        if !Rules::is_denial(code) && !audit.rules.admits(self.rpc, user, &self.target) {
            return None;
        }
        metrics::AUDIT_LINES.add(1);
        let record = AuditRecord {
            time: clock::unix_time(),
            user,
            source: source(who.as_ref()),
            certificate: None,
            address: &self.address,
            rpc: self.rpc,
            target: &self.target,
            code,
            revision: self.revision,
            took: self.began.elapsed(),
        };
        Some(record.line())
    }

    /// Whose limits count.
    fn subjects(&self) -> Vec<Subject> {
        let user = self.credentials.identify_now(&self.replica).map(|who| Subject::User(who.user));
        let address = Subject::Address(host(&self.address).into());
        user.into_iter().chain([address]).collect()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.finish_now(Code::Cancelled as i32);
        if let (Some((subjects, held)), Some(mut limiter)) =
            (self.held.take(), self.policy.limiter())
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
