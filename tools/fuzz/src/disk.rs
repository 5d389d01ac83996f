//! Bytes from disks: the log, its entries, snapshots.

use basalt::cluster::Member;
use basalt::command::Command;
use basalt::machine::check_payload;
use basalt::snapshot::bolt::Reader;
use basalt::snapshot::{Restore, hash_kv, install, restore, status};
use basalt::store::Memory;
use basalt::types::limits::WAL_BLOCK_BYTES;
use basalt::types::{EntryKind, FeatureLevel};
use basalt::wal::{FrameHead, Replay, encode_frame, replay_segment};
use bytes::Bytes;

/// A segment of the log. Records that are read are written again and read back.
pub(crate) fn wal(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    for previous in [None, Some(0)] {
        let Ok(segment) = replay_segment(&bytes, 1, previous) else { continue };
        let mut written = Vec::new();
        let head = FrameHead { segment: 1, offset: 0, previous: 0 };
        if !segment.records.is_empty() {
            encode_frame(head, &segment.records, &mut written);
            written.resize(written.len().next_multiple_of(WAL_BLOCK_BYTES), 0);
            let again = replay_segment(&written.into(), 1, Some(0)).expect("it was just written");
            assert_eq!(again.records, segment.records);
        }
        let mut replay = Replay::default();
        for record in segment.records {
            if replay.take(record).is_err() {
                return;
            }
        }
        let _ = replay.finish();
    }
}

/// The payload of an entry. One that is read is written again and read back.
pub(crate) fn command(bytes: &[u8]) {
    let data = Bytes::copy_from_slice(bytes);
    for kind in [EntryKind::Normal, EntryKind::ConfChange] {
        let _ = check_payload(kind, &data, FeatureLevel::NEWEST);
    }
    let Ok((header, command)) = Command::decode(data) else { return };
    let (cost, class) = (command.cost(), command.alarm_class());
    let (_, again) = Command::decode(command.to_payload_with(header)).expect("it was read before");
    assert_eq!(again, command);
    assert_eq!((again.cost(), again.alarm_class()), (cost, class));
}

/// A file of a snapshot: its pages, its numbers, and the state that a new and an old member take from it.
pub(crate) fn snapshot(bytes: &[u8]) {
    let Ok(file) = Reader::open(Bytes::copy_from_slice(bytes)) else { return };
    let _ = (file.check(), status(&file), hash_kv(&file, 0));
    let member = Member {
        id: 1,
        name: "fuzz".to_owned(),
        peer_urls: vec!["http://localhost:2380".to_owned()],
        ..Member::default()
    };
    for bump_revision in [None, Some(1_000_000)] {
        let wanted = Restore { members: vec![member.clone()], bump_revision };
        let _ = restore(&file, &mut Memory::default(), &wanted);
    }
    let _ = install(&file, &mut Memory::default());
}
