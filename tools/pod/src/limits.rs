//! Every bound of the program, with its reason.

use std::time::Duration;

/// Time for one request to one member. A membership change may wait for an election.
pub(crate) const CALL_TIME_MAX: Duration = Duration::from_secs(7);
/// Time in which any member answers with the list of members. A restart waits this long if no other one is there.
pub(crate) const LIST_TIME_MAX: Duration = Duration::from_secs(3);
/// Time for an answer of another pod about itself.
pub(crate) const STATE_TIME_MAX: Duration = Duration::from_secs(2);
/// Time for an answer of the API server.
pub(crate) const API_TIME_MAX: Duration = Duration::from_secs(3);
/// Bytes of an answer of the API server.
pub(crate) const API_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer of another pod.
pub(crate) const STATE_BYTES_MAX: usize = 64;
/// Connections of other pods that are served at a time.
pub(crate) const STATE_CONNECTIONS_MAX: usize = 64;

/// Pause between attempts to join, and after a failed accept.
pub(crate) const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// Pause between attempts to be promoted.
pub(crate) const PROMOTE_PAUSE: Duration = Duration::from_millis(500);
/// Interval at which a member looks at the list of members, and its leader for members without a pod.
pub(crate) const KEEP_PAUSE: Duration = Duration::from_secs(5);
/// Pause between attempts to leave.
pub(crate) const LEAVE_PAUSE: Duration = Duration::from_millis(300);
/// Time for the API server to tell if this pod is scaled away.
pub(crate) const DECIDE_TIME_MAX: Duration = Duration::from_secs(6);
/// Time in which a member leaves; with the above and its own end below the 30 seconds that Kubernetes gives by default.
pub(crate) const LEAVE_TIME_MAX: Duration = Duration::from_secs(14);

/// Starts of a member that ends before it has data: the list of members may have changed in between.
pub(crate) const STARTS_MAX: u32 = 5;
/// Ordinals of pods whose names are known.
pub(crate) const ORDINALS_MAX: u32 = 64;
