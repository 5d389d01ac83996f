//! The part of etcd's Go client that etcdctl uses: finds a server that answers, retries where that is
//! safe, logs failures, renews the token.

pub(crate) mod error;
pub(crate) mod password;
pub(crate) mod requests;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod watch;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use dial::{Dialer, Link, tls};
use gocompat::zap;
use prost::Message;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use self::error::Refusal;
use self::settings::Settings;
use crate::{Failure, exit};

/// Attempts of one call, as many as etcd's client makes.
const ATTEMPTS_MAX: u32 = 100;
/// Pause between attempts on the same set of servers.
const BACKOFF: Duration = Duration::from_millis(25);
/// Pause between rounds over servers of which none could be reached.
const DIAL_BACKOFF: Duration = Duration::from_millis(100);

/// Calls that may be sent again after a connection broke.
const REPEATABLE: &[&str] = &[
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Alarm",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
];

/// A client of one or more servers.
pub(crate) struct Client {
    pub(crate) settings: Rc<Settings>,
    dialer: Dialer,
    link: RefCell<Option<Rc<Link>>>,
    next: Cell<usize>,
    token: RefCell<Option<String>>,
    logger: &'static str,
    dial_error: RefCell<String>,
}

impl Settings {
    /// A client; it dials at its first request.
    ///
    /// # Errors
    /// Invalid TLS files, no endpoint, a refused password.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.client_named("etcd-client").await
    }

    pub(crate) async fn client_named(&self, logger: &'static str) -> Result<Client, Failure> {
        let configured = tls::config(&self.security).map_err(Failure::bad_args)?;
        let connection = |text: String| Failure::new(exit::BAD_CONNECTION, text);
        let first = self
            .endpoints
            .first()
            .ok_or_else(|| connection("etcdclient: no available endpoints".to_owned()))?;
        let dialer = Dialer::new(first, configured, tls::default);
        let client = Client::new(Rc::new(self.clone()), dialer, logger).await;
        client.map_err(|it| connection(it.text()))
    }
}

impl Client {
    /// A client without a connection, unless it needs a token first.
    ///
    /// # Errors
    /// The token was refused.
    pub(crate) async fn new(
        settings: Rc<Settings>,
        dialer: Dialer,
        logger: &'static str,
    ) -> Result<Self, Refusal> {
        let client = Self {
            settings,
            dialer,
            link: RefCell::default(),
            next: Cell::default(),
            token: RefCell::default(),
            logger,
            dial_error: RefCell::default(),
        };
        let deadline = Instant::now() + client.settings.dial_timeout;
        client.fetch_token(Some(deadline)).await?;
        Ok(client)
    }

    /// The end of `--command-timeout` if it begins now.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.settings.command_timeout)
    }

    /// One request, one response.
    ///
    /// # Errors
    /// The server refused, or no server answered in time.
    pub(crate) async fn call<Q, A>(
        &self,
        method: &'static str,
        request: &Q,
        deadline: Option<Instant>,
    ) -> Result<A, Refusal>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut attempt = 0;
        loop {
            self.back_off(attempt).await;
            let refusal = match within(deadline, self.once(method, request.clone())).await {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(status)) => Refusal::of(status),
                None => Refusal::late(&self.dial_error.borrow()),
            };
            self.log_failure(method, attempt, &refusal);
            attempt += 1;
            if refusal.late || attempt >= ATTEMPTS_MAX {
                return Err(refusal);
            }
            if self.has_password() && refusal.is_stale_token() {
                Box::pin(self.fetch_token(deadline)).await?;
                continue;
            }
            if !self.may_repeat(method, &refusal) {
                return Err(refusal);
            }
        }
    }

    async fn back_off(&self, attempt: u32) {
        let quorum = self.settings.endpoints.len() / 2 + 1;
        if attempt > 0 && (attempt as usize).is_multiple_of(quorum) {
            sleep(BACKOFF).await;
        }
    }

    fn may_repeat(&self, method: &str, refusal: &Refusal) -> bool {
        let learner = refusal.status.message() == "etcdserver: rpc not supported for learner";
        if learner && self.settings.endpoints.len() > 1 {
            self.link.replace(None);
            return true;
        }
        refusal.status.code() == Code::Unavailable && REPEATABLE.contains(&method)
    }

    async fn once<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        self.may_send(&request)?;
        let path = PathAndQuery::from_static(method);
        let request = self.request(request, false);
        let answer = grpc.unary(request, path, ProstCodec::default()).await;
        Ok(self.noticed(answer)?.into_inner())
    }

    /// One request, many responses.
    ///
    /// # Errors
    /// No server answered in time.
    pub(crate) async fn answers<Q, A>(
        &self,
        method: &'static str,
        request: Q,
        deadline: Option<Instant>,
    ) -> Result<Streaming<A>, Refusal>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.renew_token(deadline).await?;
        let stream = async {
            let mut grpc = self.grpc().await?;
            self.may_send(&request)?;
            let path = PathAndQuery::from_static(method);
            let request = self.request(request, false);
            self.noticed(grpc.server_streaming(request, path, ProstCodec::default()).await)
        };
        self.opened(within(deadline, stream).await)
    }

    /// Many requests, many responses.
    ///
    /// # Errors
    /// No server answered in time.
    pub(crate) async fn conversation<Q, A>(
        &self,
        method: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
        leader: bool,
    ) -> Result<Streaming<A>, Refusal>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.renew_token(self.deadline()).await?;
        let mut grpc = self.grpc().await.map_err(Refusal::of)?;
        let path = PathAndQuery::from_static(method);
        let request = self.request(requests, leader);
        let answer = self.noticed(grpc.streaming(request, path, ProstCodec::default()).await);
        self.opened(Some(answer))
    }

    fn opened<A>(
        &self,
        answer: Option<Result<tonic::Response<Streaming<A>>, Status>>,
    ) -> Result<Streaming<A>, Refusal> {
        match answer {
            Some(Ok(answer)) => Ok(answer.into_inner()),
            Some(Err(status)) => Err(Refusal::of(status)),
            None => Err(Refusal::late(&self.dial_error.borrow())),
        }
    }

    /// Drops a connection that broke, so that the next attempt takes the next server.
    fn noticed<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        answer.inspect_err(|status| {
            if error::is_transport(status) || status.code() == Code::Unavailable {
                self.link.replace(None);
            }
        })
    }

    /// The next attempt takes the next server.
    pub(crate) fn forget_link(&self) {
        self.link.replace(None);
    }

    /// Refuses a message that is larger than `--max-request-bytes`, as grpc-go does: tonic would break the connection
    /// in the middle of the request.
    ///
    /// # Errors
    /// It is larger.
    pub(crate) fn may_send(&self, message: &impl Message) -> Result<(), Status> {
        let (length, most) = (message.encoded_len(), self.settings.send_bytes_max);
        let text = || format!("trying to send message larger than max ({length} vs. {most})");
        if length > most { Err(Status::resource_exhausted(text())) } else { Ok(()) }
    }

    fn request<T>(&self, message: T, leader: bool) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(token) = self.token.borrow().as_ref().and_then(|it| it.parse().ok()) {
            metadata.insert("token", token);
        }
        metadata.insert("client-api-version", crate::API_VERSION.parse().expect("is ASCII"));
        if leader {
            metadata.insert("hasleader", "true".parse().expect("is ASCII"));
        }
        request
    }

    async fn grpc(&self) -> Result<Grpc<tonic::transport::Channel>, Status> {
        let link = self.link().await;
        let mut grpc = Grpc::new(link.channel.clone())
            .max_decoding_message_size(self.settings.receive_bytes_max)
            .max_encoding_message_size(self.settings.send_bytes_max);
        let ready = grpc.ready().await;
        self.noticed(ready.map_err(|it| Status::unavailable(it.to_string())))?;
        Ok(grpc)
    }

    /// The connection, made anew if there is none: tries every server in turn, until one answers.
    async fn link(&self) -> Rc<Link> {
        if let Some(link) = self.link.borrow().clone() {
            return link;
        }
        loop {
            for _ in &self.settings.endpoints {
                let at = self.next.get() % self.settings.endpoints.len();
                self.next.set(at + 1);
                match self.dialer.link(self.settings.keep_alive, &self.settings.endpoints[at]).await
                {
                    Ok(link) => {
                        let link = Rc::new(link);
                        self.link.replace(Some(link.clone()));
                        return link;
                    }
                    Err(why) => *self.dial_error.borrow_mut() = why,
                }
            }
            sleep(DIAL_BACKOFF).await;
        }
    }

    async fn fetch_token(&self, deadline: Option<Instant>) -> Result<(), Refusal> {
        use basalt_proto::etcdserverpb::{AuthenticateRequest, AuthenticateResponse};
        let Some(auth) = &self.settings.auth else { return Ok(()) };
        if !auth.token.is_empty() {
            self.token.replace(Some(auth.token.clone()));
            return Ok(());
        }
        if auth.name.is_empty() || auth.password.is_empty() {
            return Ok(());
        }
        let request =
            AuthenticateRequest { name: auth.name.clone(), password: auth.password.clone() };
        let method = "/etcdserverpb.Auth/Authenticate";
        // Calls at the same time go on with the token before.
        match Box::pin(self.call::<_, AuthenticateResponse>(method, &request, deadline)).await {
            Ok(answer) => {
                self.token.replace(Some(answer.token));
                Ok(())
            }
            Err(it) if it.status.message() == "etcdserver: authentication is not enabled" => {
                self.token.replace(None);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// A new token for each stream, as Go's client has: one that was refused would end the stream, and not be tried again.
    async fn renew_token(&self, deadline: Option<Instant>) -> Result<(), Refusal> {
        match self.has_password() {
            true => Box::pin(self.fetch_token(deadline)).await,
            false => Ok(()),
        }
    }

    /// True if a new token can be requested.
    fn has_password(&self) -> bool {
        let mut auth = self.settings.auth.iter();
        auth.any(|it| it.token.is_empty() && !it.name.is_empty() && !it.password.is_empty())
    }

    fn log_failure(&self, method: &str, attempt: u32, refusal: &Refusal) {
        let first = &self.settings.endpoints[0];
        let target =
            format!("etcd-endpoints://{:p}/{}", std::ptr::from_ref(self), dial::authority(first));
        let peer = self.link.borrow().as_ref().map(|it| it.peer.clone());
        zap::Line::new("warn", self.logger, "v3@v3.7.1/retry_interceptor.go:68")
            .message("retrying of unary invoker failed")
            .text("target", &target)
            .text("peer", peer.as_deref().unwrap_or(dial::NO_PEER))
            .text("method", method)
            .number("attempt", attempt.into())
            .text("error", &refusal.grpc_text())
            .write();
    }
}

async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}
