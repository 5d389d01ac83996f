//! Each pod tells the others if it has data: a cluster is founded by pods that all have none. Plain HTTP on a port of
//! its own, from before the member starts until the pod ends.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::limits::{JOIN_PAUSE, STATE_BYTES_MAX, STATE_CONNECTIONS_MAX, STATE_TIME_MAX};

const PATH: &str = "/pod";

/// The data of a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// None.
    Empty,
    /// Of a cluster that it founds, and that no quorum of its founders has been seen of.
    Founding,
    /// Of a cluster.
    Member,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Founding => "founding",
            Self::Member => "member",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Empty, Self::Founding, Self::Member].into_iter().find(|it| it.name() == text.trim())
    }
}

/// Where the data of this pod's member lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDirs {
    /// `--data-dir`.
    pub data: PathBuf,
    /// The write-ahead log's directory, if `--wal-dir` names one.
    pub log: Option<PathBuf>,
}

impl DataDirs {
    fn log(&self) -> PathBuf {
        self.log.clone().unwrap_or_else(|| self.data.join("member/wal"))
    }

    /// Exists from before the first start of a founder until it has seen a quorum.
    fn founding(&self) -> PathBuf {
        self.data.join("founding")
    }

    fn removed(&self) -> PathBuf {
        self.data.join("removed-member")
    }

    /// True if a member has begun a log there.
    pub(crate) fn has_log(&self) -> bool {
        log_files(&self.log()).next().is_some()
    }

    pub(crate) fn state(&self) -> State {
        match (self.has_log(), self.founding().exists()) {
            (false, _) => State::Empty,
            (true, true) => State::Founding,
            (true, false) => State::Member,
        }
    }

    /// # Errors
    /// The directory cannot be written to.
    pub(crate) fn begin_founding(&self) -> Result<(), String> {
        std::fs::create_dir_all(&self.data)
            .and_then(|()| std::fs::write(self.founding(), []))
            .map_err(|error| format!("{}: {error}", self.data.display()))
    }

    /// A quorum was seen: without its data, this pod is to join from now on.
    pub(crate) fn end_founding(&self) {
        let _ = std::fs::remove_file(self.founding());
    }

    /// Puts the data of a member that was removed out of the way.
    ///
    /// # Errors
    /// Some of it cannot be moved.
    pub(crate) fn put_aside(&self) -> Result<(), String> {
        self.drop_aside();
        self.end_founding();
        let moved = std::fs::rename(self.data.join("member"), self.removed());
        moved.map_err(|error| format!("{}: {error}", self.data.display()))?;
        let Some(log) = &self.log else { return Ok(()) };
        for file in log_files(log) {
            std::fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }

    /// Deletes what was put aside, once it is replaced.
    pub(crate) fn drop_aside(&self) {
        let _ = std::fs::remove_dir_all(self.removed());
    }
}

fn log_files(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|it| it == "wal"))
}

/// Tells the state of these directories to whoever connects.
pub(crate) async fn serve(listener: TcpListener, dirs: DataDirs) {
    let free = Arc::new(Semaphore::new(STATE_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            sleep(JOIN_PAUSE).await;
            continue;
        };
        let dirs = dirs.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(respond(&dirs, &request)))
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(socket), answer);
            let _ = timeout(STATE_TIME_MAX, serving).await;
            drop(permit);
        });
    }
}

fn respond(dirs: &DataDirs, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let is_it = request.uri().path() == PATH;
    let text = if is_it { dirs.state().name() } else { "404 page not found" };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    if !is_it {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

/// Asks a pod for its state; `None` if it does not tell.
pub(crate) async fn ask(address: &str) -> Option<State> {
    timeout(STATE_TIME_MAX, try_ask(address)).await.ok().flatten()
}

async fn try_ask(address: &str) -> Option<State> {
    let io = TokioIo::new(dial::tcp(address).await.ok()?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::get(PATH).header(HOST, address).body(Empty::<Bytes>::new()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    let is_told = response.status() == StatusCode::OK;
    let body = Limited::new(response.into_body(), STATE_BYTES_MAX).collect().await.ok()?;
    connection.abort();
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    is_told.then(|| State::parse(&text)).flatten()
}
