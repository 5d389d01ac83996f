//! Calls that wait for their clients are given up, and others are not.

use std::future::poll_fn;

use super::*;

const TIME: Duration = Duration::from_secs(60);

fn later(time: Duration) -> Duration {
    Duration::from_millis(clock::now_ms()) + time
}

/// Waits until the clock shows a later time.
fn pass_time() {
    let began = clock::now_ms();
    while clock::now_ms() < began + 2 {
        std::thread::yield_now();
    }
}

fn polled(call: &mut TrackedCall) -> Poll<()> {
    Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
}

/// A call whose polls show these results in order, and the flow of its connection. It holds `held`.
fn call(results: &'static [PollResult], held: &Rc<()>) -> (TrackedCall, Flow) {
    let (flow, held, mut results) = (Flow::default(), Rc::clone(held), results.iter());
    let call = poll_fn(move |_| {
        let _ = &held;
        let result = *results.next().unwrap_or(&PollResult::Nothing);
        if result == PollResult::Reads && request_is_late() {
            return Poll::Ready(());
        }
        note(result);
        Poll::Pending
    });
    (TrackedCall::new(Box::pin(call), flow.clone()), flow)
}

#[test]
fn an_answer_that_is_not_taken_is_given_up_and_its_bytes_with_it() {
    let held = Rc::new(());
    let (mut call, flow) =
        call(&[PollResult::Given, PollResult::Nothing, PollResult::Given], &held);
    assert_eq!(polled(&mut call), Poll::Pending);
    assert_eq!((flow.waiting(), flow.load().calls), (1, 1));
    let late = later(TIME);
    // Polls in which nothing is taken change nothing, others begin anew.
    assert_eq!(polled(&mut call), Poll::Pending);
    call.sweep(later(TIME / 2), TIME, TIME);
    assert_eq!(Rc::strong_count(&held), 2, "it has half of the time left");
    pass_time();
    assert_eq!(polled(&mut call), Poll::Pending);
    call.sweep(late, TIME, TIME);
    assert_eq!(Rc::strong_count(&held), 2, "some of it was taken since");
    call.sweep(later(TIME / 2), TIME, TIME / 2);
    assert_eq!(Rc::strong_count(&held), 1, "given up, sooner as memory is short");
    assert_eq!(polled(&mut call), Poll::Ready(()));
    drop(call);
    assert_eq!((flow.waiting(), flow.load().calls), (0, 0));
}

#[test]
fn calls_that_wait_for_no_client_stay() {
    let held = Rc::new(());
    let results = [
        // A watch without events, one whose events were taken, a request in its service, one that was slow to come.
        &[PollResult::Idle][..],
        &[PollResult::Given, PollResult::Idle],
        &[PollResult::Nothing],
        &[PollResult::Reads, PollResult::Nothing],
    ];
    for results in results {
        let (mut call, flow) = call(results, &held);
        results.iter().for_each(|_| assert_eq!(polled(&mut call), Poll::Pending));
        assert_eq!(flow.waiting(), 0, "{results:?}");
        call.sweep(later(10 * TIME), TIME, TIME);
        assert_eq!(polled(&mut call), Poll::Pending, "{results:?}");
        assert_eq!(Rc::strong_count(&held), 2, "{results:?}");
    }
}

#[test]
fn a_request_that_does_not_come_is_refused_by_its_call() {
    let held = Rc::new(());
    let (mut call, flow) = call(&[PollResult::Reads; 9], &held);
    assert_eq!(polled(&mut call), Poll::Pending);
    let late = later(TIME);
    pass_time();
    // Further parts of it give no more time.
    assert_eq!(polled(&mut call), Poll::Pending);
    assert_eq!(flow.waiting(), 1);
    call.sweep(later(TIME / 2), TIME, TIME / 2);
    assert_eq!(polled(&mut call), Poll::Pending, "memory is short, and this is no answer");
    call.sweep(late, TIME, TIME);
    assert_eq!(Rc::strong_count(&held), 2, "the call itself answers");
    assert_eq!(polled(&mut call), Poll::Ready(()));
    drop(call);
    assert_eq!(flow.waiting(), 0);
    assert!(!request_is_late(), "another call is not late for that");
}

#[test]
fn unsent_bytes_of_a_connection_are_among_those_of_its_executor() {
    let (first, second) = (Flow::default(), Flow::default());
    first.given(100);
    second.given(10);
    first.sent(40);
    assert_eq!((first.load().unsent, executor_load().unsent), (60, 70));
    first.sent(60);
    second.sent(10);
    assert_eq!((first.load().unsent, executor_load().unsent), (0, 0));
}

#[test]
fn new_clients_are_given_up_sooner_than_proven_ones_while_others_wait() {
    let parts = |client: ClientKind| {
        let waits = [(false, false), (true, false), (false, true), (true, true)];
        waits.map(|(new_wait, proven_wait)| client.answer_stall_parts(new_wait, proven_wait))
    };
    assert_eq!(parts(ClientKind::New), [1, 30, 6, 30]);
    assert_eq!(parts(ClientKind::Proven), [1, 1, 6, 6]);
}

#[test]
fn a_call_knows_its_client_while_it_is_polled() {
    let flow = Flow::default();
    let call = |flow: &Flow, seen: &Rc<Cell<ClientKind>>| {
        let seen = Rc::clone(seen);
        let call = async move { seen.set(ClientKind::of_call()) };
        TrackedCall::new(Box::pin(call), flow.clone())
    };
    let seen = Rc::new(Cell::new(ClientKind::Proven));
    assert!(polled(&mut call(&flow, &seen)).is_ready());
    assert_eq!(seen.get(), ClientKind::New);
    flow.set_proven();
    assert!(polled(&mut call(&flow, &seen)).is_ready());
    assert_eq!((seen.get(), ClientKind::of_call()), (ClientKind::Proven, ClientKind::New));
}
