//! Bytes that hyper hands in leave together, whole and in order, and no more than a bound of them waits.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::task::Waker;
use std::time::Duration;

use futures_lite::future::poll_fn;

use super::*;
use crate::io::reactor;
use crate::io::reactor::tests::{reactors, run};

async fn pair() -> (Duplex, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = reactor::Stream::connect_tcp(address).await.unwrap();
    (Duplex::new(Stream::Tcp(stream)), listener.accept().unwrap().0)
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn parts_leave_together_at_the_end_of_a_turn() {
    for reactor in reactors() {
        run(reactor, move || async move {
            let (duplex, mut other) = pair().await;
            for _ in 0..100 {
                let parts = [IoSlice::new(b"head"), IoSlice::new(b"payload")];
                let taken = duplex.poll_gather(&mut context(), &parts).map(Result::unwrap);
                assert_eq!(taken, Poll::Ready(11));
            }
            other.set_nonblocking(true).unwrap();
            let mut buffer = [0; 2048];
            let early = other.read(&mut buffer).expect_err("nothing has left");
            assert_eq!(early.kind(), ErrorKind::WouldBlock);
            duplex.send(&mut context());
            other.set_nonblocking(false).unwrap();
            assert_eq!(other.read(&mut buffer).unwrap(), 1100, "{reactor:?}: in one piece");
            assert_eq!(&buffer[1089..1100], b"headpayload");
        });
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the other side is a thread")]
fn a_client_that_takes_nothing_keeps_little_waiting_and_loses_nothing() {
    let chunk: Vec<u8> = (0..10_000).map(|at| (at % 253) as u8).collect();
    for reactor in reactors() {
        let chunk = chunk.clone();
        run(reactor, move || async move {
            let (duplex, mut other) = pair().await;
            let mut sent = Vec::new();
            loop {
                let (head, payload) = chunk.split_at(9);
                let parts = [IoSlice::new(head), IoSlice::new(payload)];
                let Poll::Ready(taken) = duplex.poll_gather(&mut context(), &parts) else { break };
                sent.extend_from_slice(&chunk[..taken.unwrap()]);
                duplex.send(&mut context());
                assert!(duplex.0.borrow().left.len() <= SEND_BYTES_MAX);
            }
            assert!(!duplex.0.borrow().left.is_empty(), "the socket is full");
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                other.read_to_end(&mut all).unwrap();
                all
            });
            poll_fn(|context| duplex.poll_drain(context)).await.unwrap();
            // Larger than what is gathered, and something small behind it.
            let large = vec![7; 3 * SEND_BYTES_MAX];
            let mut rest = &large[..];
            while !rest.is_empty() {
                let gather = |context: &mut Context<'_>| {
                    let taken = duplex.poll_gather(context, &[IoSlice::new(rest)]);
                    duplex.send(context);
                    taken
                };
                rest = &rest[poll_fn(gather).await.unwrap()..];
            }
            sent.extend_from_slice(&large);
            let _ = duplex.poll_gather(&mut context(), &[IoSlice::new(b"the end")]);
            sent.extend_from_slice(b"the end");
            poll_fn(|context| duplex.poll_shut_down(context)).await.unwrap();
            assert!(reader.join().unwrap() == sent, "{reactor:?}: {} bytes", sent.len());
        });
    }
}

#[test]
fn what_fails_after_the_turn_is_told_in_the_next_one() {
    for reactor in reactors() {
        run(reactor, move || async move {
            let (duplex, mut other) = pair().await;
            other.write_all(b"x").unwrap();
            // With bytes that nobody read it ends by a reset.
            let mut one = [0];
            poll_fn(|context| duplex.poll_read(context, &mut one)).await.unwrap();
            let taken = duplex.poll_gather(&mut context(), &[IoSlice::new(b"unread")]);
            assert!(taken.is_ready());
            duplex.send(&mut context());
            drop(other);
            let mut outcome = Ok(());
            for _ in 0..100 {
                crate::io::clock::sleep(Duration::from_millis(2)).await;
                let _ = duplex.poll_gather(&mut context(), &[IoSlice::new(b"more")]);
                duplex.send(&mut context());
                if let Poll::Ready(Err(error)) = duplex.poll_drain(&mut context()) {
                    outcome = Err(error);
                    break;
                }
            }
            outcome.expect_err("the other end has gone");
        });
    }
}
