//! The pieces in which answers are given to HTTP/2.

use std::cell::Cell;
use std::task::Waker;

use http_body_util::Full;

use super::super::progress::ClientKind;
use super::*;

/// The pieces of an answer.
fn pieces(length: usize, counted: UnsentCount) -> Vec<Piece> {
    let body = Full::new(Bytes::from(vec![7; length]));
    let mut body = AnswerBody { body, counted, last: None, is_large: false };
    let mut context = Context::from_waker(Waker::noop());
    let mut pieces = Vec::new();
    while !body.is_end_stream() {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => pieces.extend(frame.into_data().ok()),
            Poll::Ready(_) | Poll::Pending => break,
        }
    }
    pieces
}

fn lengths(pieces: &[Piece]) -> Vec<usize> {
    pieces.iter().map(Buf::remaining).collect()
}

#[derive(Default)]
struct Service(Cell<usize>);

impl UnsentBytes for Service {
    fn given(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }

    fn sent(&self, bytes: usize) {
        self.0.set(self.0.get() - bytes);
    }
}

#[test]
fn the_last_byte_of_a_large_answer_is_given_when_the_rest_fits() {
    let (flow, small) = (Flow::default(), RESPONSE_BYTES_UNCOUNTED);
    let given = |length| lengths(&pieces(length, UnsentCount::ByFlow(flow.clone())));
    assert_eq!(given(small), [small]);
    assert_eq!(given(small + 1), [small, 1]);
    flow.set_small_windows();
    assert_eq!(given(300), [299, 1]);
    assert_eq!(given(1), [1]);
}

#[test]
fn a_client_is_proven_when_it_has_taken_a_large_answer_to_its_end() {
    let flow = Flow::default();
    let taken = |length, ends: bool| {
        let body = Full::new(Bytes::from(vec![7; length]));
        let counted = UnsentCount::ByFlow(flow.clone());
        let mut body = AnswerBody { body, counted, last: None, is_large: false };
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 + usize::from(ends) {
            drop(Pin::new(&mut body).poll_frame(&mut context));
        }
        flow.client()
    };
    assert_eq!(taken(RESPONSE_BYTES_UNCOUNTED, true), ClientKind::New);
    assert_eq!(taken(RESPONSE_BYTES_UNCOUNTED + 1, false), ClientKind::New);
    assert_eq!(taken(RESPONSE_BYTES_UNCOUNTED + 1, true), ClientKind::Proven);
}

#[test]
fn bytes_are_counted_until_they_are_sent_or_given_up() {
    let (flow, service, length) = (Flow::default(), Rc::<Service>::default(), 20_000);
    let mut by_flow = pieces(length, UnsentCount::ByFlow(flow.clone()));
    let mut by_service = pieces(length, UnsentCount::ByService(Rc::<Service>::clone(&service)));
    assert_eq!(lengths(&by_service), [length], "one that may stall is not cut");
    let unsent = || (flow.load().unsent, service.0.get());
    assert_eq!(unsent(), (length, length));
    by_flow[0].advance(16_384);
    by_service[0].advance(16_384);
    assert_eq!(unsent(), (length - 16_384, length - 16_384));
    drop((by_flow, by_service));
    assert_eq!(unsent(), (0, 0));
}
