//! Hosts [`crate::peer`]: connections to and from other members. For each other member two actors, one for each lane,
//! which dial it, and dial again when the connection breaks. All on the executor of consensus.
//!
//! ```text
//!  consensus ─messages─► Peers ─► urgent queue ─► actor ─► connection ─► the other's `serve` ─► its consensus
//!                          │  └─► bulk queue ───► actor ─► connection ─►
//!                          └ a snapshot: `transfer`, on a connection of its own
//! ```
//!
//! No caller waits for another member: a message that does not fit into a queue is dropped and raft is notified that
//! the member is unreachable. The receiver does not read appends while consensus has enough of them, which blocks the
//! leader's queue through TCP.

mod inbound;
mod outbound;
mod questions;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;

use self::questions::Questions;
use super::Shared;
use super::mailbox::peer::{Asking, Control, Inbox, Peers};
use crate::io::{self, clock};
use crate::peer::{Answer, Kind, Question, message};

pub use self::inbound::serve;

/// Time in which a removed member sends its last messages to the others.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs until all handles are dropped.
pub async fn run(peers: Peers, inbox: Inbox, shared: Arc<Shared>) {
    io::spawn(questions(peers.clone(), inbox.asking, inbox.answers));
    while let Ok(control) = inbox.control.recv_async().await {
        match control {
            Control::Dial { link, urgent, bulk } => outbound::start(&peers, &link, urgent, bulk),
            Control::Transfer(link, raft) => transfer::start(&peers, &link, *raft, &shared),
            Control::Leave => io::spawn(async {
                clock::sleep(FAREWELL).await;
                io::leave();
            }),
        }
    }
}

/// Numbers questions and passes answers to their callers.
async fn questions(
    peers: Peers,
    asking: flume::Receiver<Asking>,
    answers: flume::Receiver<Answer>,
) {
    let mut pending = Questions::default();
    loop {
        let answered = async { answers.recv_async().await.ok().map(Err) };
        let asked = async { asking.recv_async().await.ok().map(Ok) };
        match or(answered, asked).await {
            Some(Err(answer)) => pending.answer(answer),
            Some(Ok(Asking { to, request, asker })) => {
                if let Some(number) = pending.ask(asker, clock::now_ms()) {
                    let question =
                        message(Kind::Question, &Question { number, ask: Some(request) });
                    peers.send_urgent(to, question);
                }
            }
            None => return,
        }
    }
}
