//! Identity of this member for others, and timeouts of the connections to them.

use std::path::PathBuf;
use std::time::Duration;

use crate::io::Dialer;
use crate::types::MemberId;

/// Identity and settings of this member for its connections.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: u64,
    /// This member's id.
    pub member: MemberId,
    /// Its peer URLs.
    pub urls: Vec<String>,
    /// How others are reached.
    pub dialer: Dialer,
    /// How long others may take.
    pub times: Times,
    /// Directory in which snapshots are received.
    pub member_dir: PathBuf,
    /// Bytes of appends that may wait for one other member.
    pub queue_bytes_max: usize,
    /// Options to open a state machine.
    pub machine: crate::machine::Config,
}

/// Timeouts of connections to other members.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Timeout to connect: an election timeout, from one to five seconds. A connection attempt during packet loss is so
    /// repeated soon after the loss ends.
    pub dial: Duration,
    /// Timeout without received bytes: `--raft-read-timeout`.
    pub read: Duration,
    /// Timeout of a write and of its acknowledgement by TCP: `--raft-write-timeout`.
    pub write: Duration,
}
