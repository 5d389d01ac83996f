//! Who this member is to others, and how long others may take.

use std::path::PathBuf;
use std::time::Duration;

use crate::types::MemberId;

/// Who this member is to others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: MemberId,
    /// Where it is reached.
    pub urls: Vec<String>,
    /// How long others may take.
    pub times: Times,
    /// Where snapshots are put together.
    pub member_dir: PathBuf,
    /// What a state machine is opened with.
    pub machine: crate::machine::Config,
}

/// How long other members may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To take a connection: an election timeout, from one to five seconds. What was dialed while the network dropped
    /// packets is dialed anew soon after it does not any more.
    pub dial: Duration,
    /// To send a byte: `--raft-read-timeout`.
    pub read: Duration,
    /// To take one, and to acknowledge it: `--raft-write-timeout`.
    pub write: Duration,
}
