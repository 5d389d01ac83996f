//! In place of [`uring`](super) in builds without glommio, which does not compile against musl: the same names, and no
//! value of any of the types can exist. [`io_uring`] refuses, so that executors run on epoll.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use super::periodic_wake::PeriodicWake;
use super::{Place, Rank};
use crate::types::Fault;

/// Of an executor that cannot be started.
pub(in crate::io) struct Handle(Infallible);

impl Handle {
    pub(super) fn join(self) -> Result<Result<(), Fault>, Fault> {
        match self.0 {}
    }
}

/// The reason, as the beginning of a sentence.
pub(super) fn io_uring(_executors: usize) -> Result<(), String> {
    Err("this build has no io_uring: use one for glibc".to_owned())
}

pub(super) fn start<F>(
    place: Place,
    _start: impl FnOnce() -> F + Send + 'static,
) -> Result<Handle, Fault> {
    Err(place.cannot(&"this build has no io_uring"))
}

/// Wakes none: those of [`PeriodicWake`] that have work are glommio's.
pub(in crate::io) fn wake_periodically(wakes: Vec<(Place, Arc<PeriodicWake>)>) {
    let busy = wakes.iter().any(|(_, wake)| wake.take_busy() || wake.has_streams());
    assert!(!busy, "executors run on epoll, and need no wakes");
}

pub(super) fn spawn(_rank: Rank, _task: impl Future<Output = ()> + 'static) {
    unreachable!("tasks are spawned by executors, which run on epoll");
}

/// Sockets.
pub(super) mod net {
    use std::convert::Infallible;
    use std::io::Result;
    use std::net::SocketAddr;
    use std::os::fd::{AsRawFd, FromRawFd, RawFd};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_lite::{AsyncRead, AsyncWrite};

    pub(in crate::io::reactor) struct TcpStream(Infallible);
    pub(in crate::io) struct AcceptedTcpStream(Infallible);
    pub(in crate::io) struct TcpListener(Infallible);

    impl TcpStream {
        pub(in crate::io::reactor) async fn connect(_address: SocketAddr) -> Result<Self> {
            unreachable!("connections are made by executors, which run on epoll");
        }
    }

    impl AcceptedTcpStream {
        pub(in crate::io::reactor) fn bind_to_executor(self) -> TcpStream {
            match self.0 {}
        }
    }

    impl TcpListener {
        pub(in crate::io::reactor) async fn shared_accept(&self) -> Result<AcceptedTcpStream> {
            match self.0 {}
        }
    }

    impl AsRawFd for TcpStream {
        fn as_raw_fd(&self) -> RawFd {
            match self.0 {}
        }
    }

    #[allow(unsafe_code, reason = "the trait's function is unsafe")]
    impl FromRawFd for TcpStream {
        unsafe fn from_raw_fd(_fd: RawFd) -> Self {
            unreachable!("sockets are taken over by executors, which run on epoll");
        }
    }

    #[allow(unsafe_code, reason = "the trait's function is unsafe")]
    impl FromRawFd for TcpListener {
        unsafe fn from_raw_fd(_fd: RawFd) -> Self {
            unreachable!("sockets are taken over by executors, which run on epoll");
        }
    }

    impl AsyncRead for TcpStream {
        fn poll_read(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            _into: &mut [u8],
        ) -> Poll<Result<usize>> {
            match self.0 {}
        }
    }

    impl AsyncWrite for TcpStream {
        fn poll_write(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            _bytes: &[u8],
        ) -> Poll<Result<usize>> {
            match self.0 {}
        }

        fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<()>> {
            match self.0 {}
        }

        fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<()>> {
            match self.0 {}
        }
    }
}
