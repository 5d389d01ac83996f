//! A connection counts as established when the server's HTTP/2 settings have arrived. One that ends
//! before can safely be dialed again, since no request was sent over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Position of a frame's type, and the type SETTINGS.
const KIND_AT: usize = 3;
const SETTINGS: u8 = 4;

/// A stream of bytes in both directions.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A socket that reports the arrival of the server's first frame.
pub(crate) struct Prefaced {
    socket: Box<dyn Socket>,
    begun: Vec<u8>,
    told: Option<oneshot::Sender<Result<(), String>>>,
}

impl Prefaced {
    /// The socket, and the receiver of its report.
    pub(crate) fn new(socket: Box<dyn Socket>) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (told, heard) = oneshot::channel();
        (Self { socket, begun: Vec::new(), told: Some(told) }, heard)
    }

    fn notice(&mut self, read: &Poll<io::Result<()>>, bytes: &[u8]) {
        if self.told.is_none() {
            return;
        }
        let outcome = match read {
            Poll::Pending => return,
            Poll::Ready(Err(it)) => Err(crate::tls::why(it)),
            Poll::Ready(Ok(())) if bytes.is_empty() => Err("EOF".to_owned()),
            Poll::Ready(Ok(())) => {
                self.begun.extend_from_slice(bytes);
                match self.begun.get(KIND_AT) {
                    None => return,
                    Some(&SETTINGS) => Ok(()),
                    Some(_) => Err("http2: frame too large".to_owned()),
                }
            }
        };
        if let Some(told) = self.told.take() {
            // The receiver may have been dropped.
            let _ = told.send(outcome);
        }
    }
}

impl AsyncRead for Prefaced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, into);
        self.notice(&read, &into.filled()[before..]);
        read
    }
}

impl AsyncWrite for Prefaced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
