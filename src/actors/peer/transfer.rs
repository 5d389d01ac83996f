//! A snapshot from the leader to a member that is too far behind: the published state, as a bbolt file, in frames. The
//! receiver builds a store from it in a directory of its own before raft receives the message, so that nothing is lost
//! when either end dies during the transfer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::outbound::{Connected, connect};
use crate::actors::Shared;
use crate::actors::mailbox::apply::Prepared;
use crate::actors::mailbox::peer::{Link, Peers};
use crate::consensus::Message;
use crate::consensus::wire::{Encoder, decode, set_snapshot, snapshot_position};
use crate::io::{self, BoltFile, IncomingSnapshot, Loader, Pool, clock};
use crate::machine::{Machine, applied_state};
use crate::peer::{Kind, Lane, encode};
use crate::snapshot::bolt::Reader;
use crate::snapshot::{Scope, install};
use crate::types::Fault;
use crate::types::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_INSTALL_BYTES_PER_SECOND};

/// Timeout of the receiver's acknowledgement, after it built a store from the file.
const INSTALL_TIME: Duration = Duration::from_secs(3600);
/// Timeout of the next frame.
const FRAME_TIME: Duration = Duration::from_secs(30);

/// Sends a snapshot in the background.
pub(super) fn start(peers: &Peers, link: &Arc<Link>, raft: Message, shared: &Arc<Shared>) {
    let (peers, link, shared) = (peers.clone(), Arc::clone(link), Arc::clone(shared));
    io::spawn(async move {
        let to = format!("{:x}", link.id);
        let sent = send(&peers, &link, raft, &shared).await;
        match sent {
            Some(bytes) => tracing::info!(to, bytes, "sent database snapshot"),
            None => tracing::warn!(to, "failed to send database snapshot"),
        }
        link.transferring.store(false, Ordering::Relaxed);
        peers.consensus().snapshot_sent(link.id, sent.is_some());
    });
}

/// Sends it; returns its length if the other end has acknowledged it.
async fn send(peers: &Peers, link: &Link, mut raft: Message, shared: &Shared) -> Option<u64> {
    let view = shared.state().read.view.clone();
    // The published state is newer than the snapshot that raft asked for.
    let (index, term, conf_state) = applied_state(&view).unwrap_or_else(|fault| io::fatal(&fault));
    set_snapshot(&mut raft, index, term, &conf_state);
    let (mut connected, _) = connect(peers, link, Lane::Snapshot).await?;
    let (head, entries) = Encoder::default().encode(&raft);
    let first = encode(Kind::Raft, &head, &entries);
    connected.send(&[&first[..], &entries[..]].concat()).await?;
    let pieces = io::export(view, Scope::Member, SNAPSHOT_CHUNK_BYTES);
    let mut bytes = 0;
    while let Ok(piece) = pieces.recv_async().await {
        let piece = piece.unwrap_or_else(|fault| io::fatal(&fault));
        connected.send(&encode(Kind::Chunk, &piece.bytes, &[])).await?;
        bytes += piece.bytes.len() as u64;
    }
    connected.send(&encode(Kind::End, &[], &[])).await?;
    let answer = clock::deadline(INSTALL_TIME, connected.next()).await.flatten()?;
    (answer.kind == Kind::Arrived).then_some(bytes)
}

/// Receives one, and sends it to consensus when its store is built.
pub(super) async fn receive(peers: &Peers, mut connected: Connected) {
    match take(peers, &mut connected).await {
        Ok(Some((raft, prepared))) => {
            peers.consensus().snapshot(raft, prepared).await;
            let _ = connected.send(&encode(Kind::Arrived, &[], &[])).await;
        }
        Ok(None) => tracing::warn!("a snapshot from another member did not arrive whole"),
        Err(fault) => tracing::error!(error = %fault, "failed to save incoming database snapshot"),
    }
}

async fn take(
    peers: &Peers,
    connected: &mut Connected,
) -> Result<Option<(Box<Message>, Box<Prepared>)>, Fault> {
    let first = clock::deadline(FRAME_TIME, connected.next()).await.flatten();
    let raft = first.filter(|frame| frame.kind == Kind::Raft);
    let Some(raft) = raft.and_then(|frame| decode(frame.payload)) else { return Ok(None) };
    let (index, term) = snapshot_position(&raft);
    tracing::info!(index, term, "receiving database snapshot");
    let identity = peers.identity();
    let mut incoming = IncomingSnapshot::begin(&identity.member_dir, index)?;
    loop {
        let frame = clock::deadline(FRAME_TIME, connected.next()).await.flatten();
        match frame.map(|frame| (frame.kind, frame.payload)) {
            Some((Kind::Chunk, chunk)) => {
                incoming = Pool::Durable.run(move || incoming.append(&chunk)).await?;
            }
            Some((Kind::End, _)) => break,
            Some(_) | None => return Ok(None),
        }
    }
    let config = identity.machine.clone();
    let prepared = io::spawn_blocking("import", move || -> Result<Prepared, Fault> {
        incoming.check_store_room()?;
        let unreadable = |error| Fault::new(format!("a snapshot cannot be read: {error}"));
        let file = BoltFile::open(&incoming.file()).map_err(unreadable)?;
        let path = incoming.store();
        let mut store = Loader::begin_paced(&path, SNAPSHOT_INSTALL_BYTES_PER_SECOND)?;
        install(&Reader::open(file)?, &mut store)?;
        let machine = Machine::open(store.finish()?, &config)?;
        if machine.position() != (index, term) {
            return Err(Fault::new("a snapshot holds another state than was announced"));
        }
        Ok(Prepared { machine, incoming })
    });
    Ok(Some((Box::new(raft), Box::new(prepared.await??))))
}
