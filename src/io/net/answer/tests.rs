//! The pieces in which answers are given to HTTP/2.

use std::task::Waker;

use http_body_util::Full;

use super::*;

/// Lengths of the pieces of an answer.
fn pieces(length: usize, flow: Option<&Flow>) -> Vec<usize> {
    let (body, flow) = (Full::new(Bytes::from(vec![7; length])), flow.cloned());
    let mut body = AnswerBody { body, flow, last: None };
    let mut context = Context::from_waker(Waker::noop());
    let mut lengths = Vec::new();
    while !body.is_end_stream() {
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                lengths.push(frame.into_data().map_or(0, |piece| piece.len()));
            }
            Poll::Ready(_) | Poll::Pending => break,
        }
    }
    lengths
}

#[test]
fn the_last_byte_of_a_large_answer_is_given_when_the_rest_fits() {
    let flow = Flow::default();
    let small = RESPONSE_BYTES_UNCOUNTED;
    assert_eq!(pieces(small, Some(&flow)), [small]);
    assert_eq!(pieces(small + 1, Some(&flow)), [small, 1]);
    flow.set_small_windows();
    assert_eq!(pieces(300, Some(&flow)), [299, 1]);
    assert_eq!(pieces(1, Some(&flow)), [1]);
    assert_eq!(flow.load().unsent, 2 * small + 302);
    // One that may stall is not counted.
    assert_eq!(pieces(small + 1, None), [small + 1]);
    assert_eq!(flow.load().unsent, 2 * small + 302);
}
