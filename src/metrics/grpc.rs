//! Every gRPC method that is served, and how often each was called and how that ended.

use super::cells::Sharded;
use super::text::Writer;

/// How many messages go each way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One and one.
    Unary,
    /// One, then many answers.
    ServerStream,
    /// Many and many.
    Bidi,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::Bidi => "bidi_stream",
        }
    }
}

use Kind::{Bidi, ServerStream, Unary};

/// One method.
#[derive(Debug)]
pub struct Method {
    /// `package.Service`.
    pub service: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How many messages go each way.
    pub kind: Kind,
    index: usize,
}

macro_rules! methods {
    ($($service:literal { $($name:literal $kind:ident)* })*) => {
        /// Sorted by service and name.
        static METHODS: [Method; COUNT] = {
            let all = [$($(Method { service: $service, name: $name, kind: $kind, index: 0 },)*)*];
            number(all)
        };
        const COUNT: usize = [$($($name,)*)*].len();
    };
}

const fn number(mut methods: [Method; COUNT]) -> [Method; COUNT] {
    let mut at = 0;
    while at < COUNT {
        methods[at].index = at;
        at += 1;
    }
    methods
}

methods! {
    "etcdserverpb.Auth" {
        "AuthDisable" Unary "AuthEnable" Unary "AuthStatus" Unary "Authenticate" Unary "RoleAdd" Unary
        "RoleDelete" Unary "RoleGet" Unary "RoleGrantPermission" Unary "RoleList" Unary
        "RoleRevokePermission" Unary "UserAdd" Unary "UserChangePassword" Unary "UserDelete" Unary
        "UserGet" Unary "UserGrantRole" Unary "UserList" Unary "UserRevokeRole" Unary
    }
    "etcdserverpb.Cluster" {
        "MemberAdd" Unary "MemberList" Unary "MemberPromote" Unary "MemberRemove" Unary
        "MemberUpdate" Unary
    }
    "etcdserverpb.KV" {
        "Compact" Unary "DeleteRange" Unary "Put" Unary "Range" Unary "RangeStream" ServerStream
        "Txn" Unary
    }
    "etcdserverpb.Lease" {
        "LeaseGrant" Unary "LeaseKeepAlive" Bidi "LeaseLeases" Unary "LeaseRevoke" Unary
        "LeaseTimeToLive" Unary
    }
    "etcdserverpb.Maintenance" {
        "Alarm" Unary "Defragment" Unary "Downgrade" Unary "Hash" Unary "HashKV" Unary
        "MoveLeader" Unary "Snapshot" ServerStream "Status" Unary
    }
    "etcdserverpb.Watch" { "Watch" Bidi }
    "grpc.health.v1.Health" { "Check" Unary "List" Unary "Watch" ServerStream }
    "grpc.reflection.v1.ServerReflection" { "ServerReflectionInfo" Bidi }
    "v3electionpb.Election" {
        "Campaign" Unary "Leader" Unary "Observe" ServerStream "Proclaim" Unary "Resign" Unary
    }
    "v3lockpb.Lock" { "Lock" Unary "Unlock" Unary }
}

/// gRPC's status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNKNOWN: usize = 2;

/// Numbers of each method: started, received, sent, and one for each code it ended with.
const CELLS: usize = 3 + CODES.len();
const STARTED: usize = 0;
const RECEIVED: usize = 1;
const SENT: usize = 2;
const HANDLED: usize = 3;

static NUMBERS: Sharded<{ COUNT * CELLS }> = Sharded::new();

impl Method {
    /// Finds the method of a path, `/package.Service/Name`.
    pub fn find(path: &str) -> Option<&'static Self> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let found =
            METHODS.binary_search_by(|method| (method.service, method.name).cmp(&(service, name)));
        found.ok().map(|at| &METHODS[at])
    }

    /// All of them.
    pub fn all() -> &'static [Self] {
        &METHODS
    }

    /// Whether some method of this service is served.
    pub fn is_service(service: &str) -> bool {
        METHODS.iter().any(|method| method.service == service)
    }

    /// A call began.
    pub fn started(&self) {
        self.add(STARTED, 1);
    }

    /// Messages came.
    pub fn received(&self, messages: u64) {
        self.add(RECEIVED, messages);
    }

    /// Messages left.
    pub fn sent(&self, messages: u64) {
        self.add(SENT, messages);
    }

    /// A call ended with this code.
    pub fn handled(&self, code: i32) {
        let code = usize::try_from(code).ok().filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN);
        self.add(HANDLED + code, 1);
    }

    fn add(&self, cell: usize, more: u64) {
        NUMBERS.add(self.index * CELLS + cell, more);
    }

    fn sum(&self, cell: usize) -> u64 {
        NUMBERS.sum(self.index * CELLS + cell)
    }

    fn labels(&self, code: Option<&str>) -> String {
        let code = code.map_or_else(String::new, |code| format!("grpc_code=\"{code}\","));
        let Self { service, name, kind, .. } = self;
        let kind = kind.name();
        format!("{code}grpc_method=\"{name}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"")
    }
}

/// Writes all of it, the zeros too: rates need a first value to start from.
pub(super) fn write(out: &mut Writer) {
    let help = "Calls that ended, by how.";
    let handled = METHODS.iter().flat_map(|method| {
        CODES
            .iter()
            .enumerate()
            .map(move |(code, name)| (method.labels(Some(name)), method.sum(HANDLED + code) as f64))
    });
    out.family("grpc_server_handled_total", "counter", help, handled);
    let rows = |cell| METHODS.iter().map(move |it| (it.labels(None), it.sum(cell) as f64));
    let received = ("grpc_server_msg_received_total", "Messages that came from clients.");
    let sent = ("grpc_server_msg_sent_total", "Messages that were sent to clients.");
    let started = ("grpc_server_started_total", "Calls that began.");
    for ((name, help), cell) in [(received, RECEIVED), (sent, SENT), (started, STARTED)] {
        out.family(name, "counter", help, rows(cell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found() {
        assert!(METHODS.is_sorted_by_key(|method| (method.service, method.name)));
        for method in &METHODS {
            let found = Method::find(&format!("/{}/{}", method.service, method.name));
            assert_eq!(found.map(|found| found.index), Some(method.index), "{method:?}");
        }
        assert!(Method::find("/etcdserverpb.KV/Rang").is_none());
        assert!(Method::is_service("etcdserverpb.KV") && !Method::is_service("etcdserverpb.K"));
    }
}
