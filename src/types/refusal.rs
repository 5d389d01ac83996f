//! etcd's refusals: gRPC status code and text of each error that a client can receive.

use std::fmt;

/// The gRPC status codes that refusals use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Code {
    /// The caller canceled the request.
    Canceled = 1,
    /// An error without a more precise code.
    Unknown = 2,
    /// The request is malformed.
    InvalidArgument = 3,
    /// The request timed out.
    DeadlineExceeded = 4,
    /// The named object does not exist.
    NotFound = 5,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The cluster is in a state in which the request makes no sense.
    FailedPrecondition = 9,
    /// The revision is not available.
    OutOfRange = 11,
    /// The method does not exist.
    Unimplemented = 12,
    /// The member cannot serve at the moment; a retry may succeed.
    Unavailable = 14,
    /// Data was lost or is corrupt.
    DataLoss = 15,
    /// The credentials are missing or invalid.
    Unauthenticated = 16,
}

macro_rules! refusals {
    ($($name:ident $code:ident $text:literal)*) => {
        /// A negative answer, the same on every member, sent to the client with etcd's own code and text. Go clients
        /// compare the text, so it must match byte for byte.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Refusal {
            $(#[doc = $text] $name,)*
        }

        impl Refusal {
            /// The gRPC status code that etcd sends for this error.
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// The text that etcd sends for this error.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The refusal with this text, as another member sent it; `None` for an unknown text.
            pub fn from_text(text: &str) -> Option<Self> {
                [$(Self::$name),*].into_iter().find(|refusal| refusal.text() == text)
            }
        }
    };
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())
    }
}

impl std::error::Error for Refusal {}

refusals! {
    EmptyKey InvalidArgument "etcdserver: key is not provided"
    KeyNotFound InvalidArgument "etcdserver: key not found"
    ValueProvided InvalidArgument "etcdserver: value is provided"
    LeaseProvided InvalidArgument "etcdserver: lease is provided"
    TooManyOps InvalidArgument "etcdserver: too many operations in txn request"
    DuplicateKey InvalidArgument "etcdserver: duplicate key given in txn request"
    InvalidClientAPIVersion InvalidArgument "etcdserver: invalid client api version"
    InvalidSortOption InvalidArgument "etcdserver: invalid sort option"
    Compacted OutOfRange "etcdserver: mvcc: required revision has been compacted"
    FutureRev OutOfRange "etcdserver: mvcc: required revision is a future revision"
    NoSpace ResourceExhausted "etcdserver: mvcc: database space exceeded"
    LeaseNotFound NotFound "etcdserver: requested lease not found"
    LeaseExist FailedPrecondition "etcdserver: lease already exists"
    LeaseTTLTooLarge OutOfRange "etcdserver: too large lease TTL"
    WatchCanceled Canceled "etcdserver: watch canceled"
    MemberExist FailedPrecondition "etcdserver: member ID already exist"
    PeerURLExist FailedPrecondition "etcdserver: Peer URLs already exists"
    MemberNotEnoughStarted Unknown "etcdserver: re-configuration failed due to not enough started members"
    MemberBadURLs InvalidArgument "etcdserver: given member URLs are invalid"
    MemberNotFound NotFound "etcdserver: member not found"
    MemberNotLearner FailedPrecondition "etcdserver: can only promote a learner member"
    LearnerNotReady FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader"
    TooManyLearners FailedPrecondition "etcdserver: too many learner members in cluster"
    ClusterIDMismatch FailedPrecondition "etcdserver: cluster ID mismatch"
    RequestTooLarge InvalidArgument "etcdserver: request is too large"
    TooManyRequests Unknown "etcdserver: too many requests"
    TooManyAnswers ResourceExhausted "etcdserver: too many requests"
    RootUserNotExist FailedPrecondition "etcdserver: root user does not exist"
    RootRoleNotExist FailedPrecondition "etcdserver: root user does not have root role"
    UserAlreadyExist FailedPrecondition "etcdserver: user name already exists"
    UserEmpty InvalidArgument "etcdserver: user name is empty"
    UserNotFound FailedPrecondition "etcdserver: user name not found"
    RoleAlreadyExist FailedPrecondition "etcdserver: role name already exists"
    RoleNotFound FailedPrecondition "etcdserver: role name not found"
    RoleEmpty InvalidArgument "etcdserver: role name is empty"
    AuthFailed InvalidArgument "etcdserver: authentication failed, invalid user ID or password"
    PermissionNotGiven InvalidArgument "etcdserver: permission not given"
    PermissionDenied PermissionDenied "etcdserver: permission denied"
    RoleNotGranted FailedPrecondition "etcdserver: role is not granted to the user"
    PermissionNotGranted FailedPrecondition "etcdserver: permission is not granted to the role"
    AuthNotEnabled FailedPrecondition "etcdserver: authentication is not enabled"
    InvalidAuthToken Unauthenticated "etcdserver: invalid auth token"
    InvalidAuthMgmt InvalidArgument "etcdserver: invalid auth management"
    AuthOldRevision InvalidArgument "etcdserver: revision of auth store is old"
    PasswordForNoPasswordUser Unknown "auth: authentication failed, password was given for no password user"
    PasswordTooLong Unknown "bcrypt: password length exceeds 72 bytes"
    TooManyUsers ResourceExhausted "etcdserver: too many users, roles or permissions"
    TooManyLeases ResourceExhausted "etcdserver: too many leases"
    TooManyWatches ResourceExhausted "etcdserver: too many watches"
    NoLeader Unavailable "etcdserver: no leader"
    NotLeader FailedPrecondition "etcdserver: not leader"
    LeaderChanged Unavailable "etcdserver: leader changed"
    NotCapable FailedPrecondition "etcdserver: not capable"
    Stopped Unavailable "etcdserver: server stopped"
    Timeout Unavailable "etcdserver: request timed out"
    TimeoutDueToLeaderFail Unavailable "etcdserver: request timed out, possibly due to previous leader failure"
    TimeoutDueToConnectionLost Unavailable "etcdserver: request timed out, possibly due to connection lost"
    TimeoutWaitAppliedIndex Unavailable "etcdserver: request timed out, waiting for the applied index took too long"
    Unhealthy Unavailable "etcdserver: unhealthy cluster"
    Corrupt DataLoss "etcdserver: corrupt cluster"
    NotSupportedForLearner FailedPrecondition "etcdserver: rpc not supported for learner"
    BadLeaderTransferee FailedPrecondition "etcdserver: bad leader transferee"
    WrongDowngradeVersionFormat InvalidArgument "etcdserver: wrong downgrade target version format"
    InvalidDowngradeTargetVersion InvalidArgument "etcdserver: invalid downgrade target version"
    ClusterVersionUnavailable FailedPrecondition "etcdserver: cluster version not found during downgrade"
    DowngradeInProcess FailedPrecondition "etcdserver: cluster has a downgrade job in progress"
    NoInflightDowngrade FailedPrecondition "etcdserver: no inflight downgrade job"
    Canceled Canceled "etcdserver: request canceled"
    DeadlineExceeded DeadlineExceeded "etcdserver: context deadline exceeded"
    RawDeadlineExceeded DeadlineExceeded "context deadline exceeded"
    NotPrimaryLessor Unknown "not a primary lessor"
    UnknownMethod Unknown "etcdserver: unknown method"
    TimeoutLeaderTransfer Unknown "etcdserver: request timed out, leader transfer took too long"
    FeatureLevelTooLow FailedPrecondition "etcdserver: not supported as long as a member of the cluster runs an older version"
    RangeStreamSort Unimplemented "RangeStream does not support custom sort orders"
    RangeStreamFilter Unimplemented "RangeStream does not support revision filters"
}
