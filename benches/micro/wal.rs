//! A frame of the log with one small entry.

use std::hint::black_box;

use basalt::command::Command;
use basalt::types::{Entry, EntryKind};
use basalt::wal::{FrameHead, Record, encode_frame};

use super::Operation;
use super::codec::put_request;

pub(crate) fn frame() -> Operation {
    let data = Command::Put(put_request(1)).to_payload(7);
    let entry = Entry { index: 7, term: 1, kind: EntryKind::Normal, data };
    let records = [Record::Entry(entry)];
    let head = FrameHead { segment: 1, offset: 0, previous: 0 };
    let mut frame = Vec::with_capacity(1 << 16);
    Box::new(move || {
        frame.clear();
        black_box(encode_frame(head, black_box(&records), &mut frame));
        black_box(&frame);
    })
}
