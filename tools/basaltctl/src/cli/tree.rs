//! The table of all commands and flags, in etcdctl's order and words.

use crate::cli::action::Action;
use crate::cli::command::Command;
use gocompat::flags::{Flag, Kind};

const KV: &str = "Key-value commands";
const MAINTENANCE: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const AUTHENTICATION: &str = "Authentication commands";
const UTILITY: &str = "Utility commands";

/// Titles of the root's groups.
pub(crate) const GROUPS: &[&str] = &[KV, MAINTENANCE, CONCURRENCY, AUTHENTICATION, UTILITY];

/// The root command, `etcdctl`.
pub(crate) static ROOT: Command =
    Command::branch("etcdctl", "A simple command line client for etcd3.", "", COMMANDS)
        .inherited(GLOBAL);

/// The requests that a line of a transaction may hold; it has no name, as with etcdctl.
pub(crate) static REQUESTS: Command = Command::branch("", "", "", &[PUT, GET, DEL]);

const TIMES: Kind = Kind::Duration;

const GLOBAL: &[Flag] = &[
    Flag::new("endpoints", Kind::Texts, "127.0.0.1:2379", "gRPC endpoints").hidden(),
    Flag::switch("debug", "enable client-side debug logging").hidden(),
    Flag::new(
        "write-out",
        Kind::Text,
        "simple",
        "set the output format (fields, json, protobuf, simple, table)",
    )
    .short('w')
    .hidden(),
    Flag::switch("hex", "print byte strings as hex encoded strings").hidden(),
    Flag::new("dial-timeout", TIMES, "2s", "dial timeout for client connections").hidden(),
    Flag::new(
        "command-timeout",
        TIMES,
        "5s",
        "timeout for short running command (excluding dial timeout)",
    )
    .hidden(),
    Flag::new("keepalive-time", TIMES, "2s", "keepalive time for client connections").hidden(),
    Flag::new("keepalive-timeout", TIMES, "6s", "keepalive timeout for client connections")
        .hidden(),
    Flag::int(
        "max-request-bytes",
        "client-side request send limit in bytes (if 0, it defaults to 2.0 MiB (2 * 1024 * 1024).)",
    )
    .hidden(),
    Flag::int(
        "max-recv-bytes",
        "client-side response receive limit in bytes (if 0, it defaults to \"math.MaxInt32\")",
    )
    .hidden(),
    Flag::new(
        "insecure-transport",
        Kind::Bool,
        "true",
        "disable transport security for client connections",
    )
    .hidden(),
    Flag::new(
        "insecure-discovery",
        Kind::Bool,
        "true",
        "accept insecure SRV records describing cluster endpoints",
    )
    .hidden(),
    Flag::switch(
        "insecure-skip-tls-verify",
        "skip server certificate verification (CAUTION: this option should be enabled only for \
         testing purposes)",
    )
    .hidden(),
    Flag::text("cert", "identify secure client using this TLS certificate file").hidden(),
    Flag::text("key", "identify secure client using this TLS key file").hidden(),
    Flag::text("cacert", "verify certificates of TLS-enabled secure servers using this CA bundle")
        .hidden(),
    Flag::text(
        "auth-jwt-token",
        "JWT token used for authentication (if this option is used, --user and --password should \
         not be set)",
    )
    .hidden(),
    Flag::text(
        "user",
        "username[:password] for authentication (prompt if password is not supplied)",
    )
    .hidden(),
    Flag::text(
        "password",
        "password for authentication (if this option is used, --user option shouldn't include \
         password)",
    )
    .hidden(),
    Flag::text(
        "discovery-srv",
        "domain name to query for SRV records describing cluster endpoints",
    )
    .short('d')
    .hidden(),
    Flag::text("discovery-srv-name", "service name to query when using DNS discovery").hidden(),
    Flag::text(
        "password-file",
        "file with the password of --user, up to the end of its first line",
    )
    .own(),
    Flag::text(
        "user-from-env",
        "environment variable with username:password, or with the name of the user",
    )
    .own(),
];

/// In the order in which suggestions are made.
const COMMANDS: &[Command] = &[
    GET,
    PUT,
    DEL,
    TXN,
    COMPACTION,
    ALARM,
    DEFRAG,
    ENDPOINT,
    MOVE_LEADER,
    WATCH,
    VERSION,
    LEASE,
    MEMBER,
    SNAPSHOT,
    MAKE_MIRROR,
    LOCK,
    ELECT,
    AUTH,
    USER,
    ROLE,
    CHECK,
    COMPLETION,
    DOWNGRADE,
    OPTIONS,
    HELP,
];

const GET: Command = Command::leaf(
    "get [options] <key> [range_end]",
    "Gets the key or a range of keys",
    Action::Get,
)
.group(KV)
.flags(&[
    Flag::new("consistency", Kind::Text, "l", "Linearizable(l) or Serializable(s)"),
    Flag::text("order", "Order of results; ASCEND or DESCEND (ASCEND by default)"),
    Flag::text("sort-by", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"),
    Flag::int("limit", "Maximum number of results"),
    Flag::switch("prefix", "Get keys with matching prefix"),
    Flag::switch(
        "from-key",
        "Get keys that are greater than or equal to the given key using byte compare",
    ),
    Flag::int("rev", "Specify the kv revision"),
    Flag::switch("keys-only", "Get only the keys"),
    Flag::switch("count-only", "Get only the count"),
    Flag::switch("print-value-only", "Only write values when using the \"simple\" output format"),
    Flag::int("min-create-rev", "Minimum create revision"),
    Flag::int("max-create-rev", "Maximum create revision"),
    Flag::int("min-mod-rev", "Minimum modification revision"),
    Flag::int("max-mod-rev", "Maximum modification revision"),
    Flag::switch("stream", "Use the RangeStream RPC"),
]);

const PUT: Command = Command::leaf(
    "put [options] <key> <value> (<value> can also be given from stdin)",
    "Puts the given key into the store",
    Action::Put,
)
.long(
    "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.
",
)
.group(KV)
.flags(&[
    Flag::new("lease", Kind::Text, "0", "lease ID (in hexadecimal) to attach to the key"),
    Flag::switch("prev-kv", "return the previous key-value pair before modification"),
    Flag::switch("ignore-value", "updates the key using its current value"),
    Flag::switch("ignore-lease", "updates the key using its current lease"),
]);

const DEL: Command = Command::leaf(
    "del [options] <key> [range_end]",
    "Removes the specified key or range of keys [key, range_end)",
    Action::Del,
)
.group(KV)
.flags(&[
    Flag::switch("prefix", "delete keys with matching prefix"),
    Flag::switch("prev-kv", "return deleted key-value pairs"),
    Flag::switch(
        "from-key",
        "delete keys that are greater than or equal to the given key using byte compare",
    ),
    Flag::switch("range", "delete range of keys"),
]);

const TXN: Command = Command::leaf(
    "txn [options]",
    "Txn processes all the requests in one transaction",
    Action::Txn,
)
.long(
    r#"Txn reads multiple etcd requests from standard input and applies them as a single atomic transaction.

A transaction consists of three components:
1) a list of conditions,
2) a list of requests to apply if all the conditions are true,
3) a list of requests to apply if any condition is false.

Example interactive stdin usage:

---
etcdctl txn -i
# compares:
mod("key1") > "0"

# success requests (get, put, delete):
put key1 "overwrote-key1"

# failure requests (get, put, delete):
put key1 "created-key1"
put key2 "some extra key"
---

Refer to https://github.com/etcd-io/etcd/blob/main/etcdctl/README.md#txn-options."#,
)
.group(KV)
.flags(&[Flag::switch("interactive", "Input transaction in interactive mode").short('i')]);

const COMPACTION: Command = Command::leaf(
    "compaction [options] <revision>",
    "Compacts the event history in etcd",
    Action::Compaction,
)
.group(KV)
.flags(&[Flag::switch(
    "physical",
    "'true' to wait for compaction to physically remove all old revisions",
)]);

const WATCH: Command = Command::leaf(
    "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    "Watches events stream on keys or prefixes",
    Action::Watch,
)
.group(KV)
.flags(&[
    Flag::switch("interactive", "Interactive mode").short('i'),
    Flag::switch("prefix", "Watch on a prefix if prefix is set"),
    Flag::int("rev", "Revision to start watching"),
    Flag::switch("prev-kv", "get the previous key-value pair before the event happens"),
    Flag::switch("progress-notify", "get periodic watch progress notification from server"),
]);

const LEASE: Command = Command::branch(
    "lease <subcommand>",
    "Lease related commands. Use `etcdctl lease --help` to see subcommands",
    "Lease related commands",
    &[
        Command::leaf("grant <ttl>", "Creates leases", Action::LeaseGrant),
        Command::leaf("revoke <leaseID>", "Revokes leases", Action::LeaseRevoke),
        Command::leaf(
            "timetolive <leaseID> [options]",
            "Get lease information",
            Action::LeaseTimeToLive,
        )
        .flags(&[Flag::switch("keys", "Get keys attached to this lease")]),
        Command::leaf("list", "List all active leases", Action::LeaseList),
        Command::leaf(
            "keep-alive [options] <leaseID>",
            "Keeps leases alive (renew)",
            Action::LeaseKeepAlive,
        )
        .flags(&[Flag::switch(
            "once",
            "Resets the keep-alive time to its original value and cobrautl.Exits immediately",
        )]),
    ],
)
.group(KV);

const ALARM: Command = Command::branch(
    "alarm <subcommand>",
    "Alarm related commands. Use `etcdctl alarm --help` to see subcommands",
    "Alarm related commands",
    &[
        Command::leaf("disarm", "Disarms all alarms", Action::AlarmDisarm),
        Command::leaf("list", "Lists all alarms", Action::AlarmList),
    ],
)
.group(MAINTENANCE);

const CLUSTER_FLAG: &[Flag] =
    &[Flag::switch("cluster", "use all endpoints from the cluster member list")];

const DEFRAG: Command = Command::leaf(
    "defrag",
    "Defragments the storage of the etcd members with given endpoints",
    Action::Defrag,
)
.group(MAINTENANCE)
.inherited(CLUSTER_FLAG);

const ENDPOINT: Command = Command::branch(
    "endpoint <subcommand>",
    "Endpoint related commands. Use `etcdctl endpoint --help` to see subcommands",
    "Endpoint related commands",
    &[
        Command::leaf(
            "health",
            "Checks the healthiness of endpoints specified in `--endpoints` flag",
            Action::EndpointHealth,
        ),
        Command::leaf(
            "status",
            "Prints out the status of endpoints specified in `--endpoints` flag",
            Action::EndpointStatus,
        )
        .long(
            "When --write-out is set to simple, this command prints out comma-separated status \
             lists for each endpoint.\nThe items in the lists are endpoint, ID, version, db size, \
             is leader, is learner, raft term, raft index, raft applied index, errors.\n",
        ),
        Command::leaf(
            "hashkv",
            "Prints the KV history hash for each endpoint in --endpoints",
            Action::EndpointHashKv,
        )
        .inherited(&[Flag::int("rev", "maximum revision to hash (default: latest revision)")]),
    ],
)
.group(MAINTENANCE)
.inherited(CLUSTER_FLAG);

const MOVE_LEADER: Command = Command::leaf(
    "move-leader <transferee-member-id>",
    "Transfers leadership to another etcd cluster member.",
    Action::MoveLeader,
)
.group(MAINTENANCE);

const MEMBER: Command = Command::branch(
    "member <subcommand>",
    "Membership related commands. Use `etcdctl member --help` to see subcommands",
    "Membership related commands",
    &[
        Command::leaf(
            "add <memberName> [options]",
            "Adds a member into the cluster",
            Action::MemberAdd,
        )
        .flags(&[
            Flag::text("peer-urls", "comma separated peer URLs for the new member."),
            Flag::switch("learner", "indicates if the new member is raft learner"),
        ]),
        Command::leaf(
            "remove <memberID>",
            "Removes a member from the cluster",
            Action::MemberRemove,
        ),
        Command::leaf(
            "update <memberID> [options]",
            "Updates a member in the cluster",
            Action::MemberUpdate,
        )
        .flags(&[Flag::text("peer-urls", "comma separated peer URLs for the updated member.")]),
        Command::leaf("list", "Lists all members in the cluster", Action::MemberList)
            .long(
                "When --write-out is set to simple, this command prints out comma-separated \
                 member lists for each endpoint.\nThe items in the lists are ID, Status, Name, \
                 Peer Addrs, Client Addrs, Is Learner.\n",
            )
            .flags(&[Flag::new(
                "consistency",
                Kind::Text,
                "l",
                "Linearizable(l) or Serializable(s)",
            )]),
        Command::leaf(
            "promote <memberID>",
            "Promotes a non-voting member in the cluster",
            Action::MemberPromote,
        )
        .long("Promotes a non-voting learner member to a voting one in the cluster.\n"),
    ],
)
.group(MAINTENANCE);

const SNAPSHOT_EXAMPLE: &str = "  # Save snapshot to a given file
  etcdctl snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address and save it to file
  etcdctl snapshot save --endpoints=127.0.0.1:3000 /backup/etcd-snapshot.db
  
  # Get snapshot from given address with certificates
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.crt --cert=/etc/etcd/etcd.crt --key=/etc/etcd/etcd.key snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot with certain user and password
  etcdctl --user=root --password=password123 snapshot save /backup/etcd-snapshot.db
  
  # Get snapshot from given address with timeout
  etcdctl --endpoints=https://127.0.0.1:2379 --dial-timeout=20s snapshot save /backup/etcd-snapshot.db
  
  # Save snapshot with desirable time format
  etcdctl snapshot save /mnt/backup/etcd/backup_$(date +%Y%m%d_%H%M%S).db";

const SNAPSHOT: Command = Command::branch(
    "snapshot <subcommand>",
    "Manages etcd node snapshots",
    "",
    &[Command::leaf(
        "save <filename>",
        "Stores an etcd node backend snapshot to a given file",
        Action::SnapshotSave,
    )
    .example(SNAPSHOT_EXAMPLE)],
)
.group(MAINTENANCE)
.example(SNAPSHOT_EXAMPLE);

const DOWNGRADE: Command = Command::branch(
    "downgrade <TARGET_VERSION>",
    "Downgrade related commands. Use `etcdctl downgrade --help` to see subcommands",
    "Downgrade related commands",
    &[
        Command::leaf(
            "validate <TARGET_VERSION>",
            "Validate downgrade capability before starting downgrade",
            Action::DowngradeValidate,
        ),
        Command::leaf(
            "enable <TARGET_VERSION>",
            "Start a downgrade action to cluster",
            Action::DowngradeEnable,
        ),
        Command::leaf(
            "cancel",
            "Cancel the ongoing downgrade action to cluster",
            Action::DowngradeCancel,
        ),
    ],
)
.group(MAINTENANCE);

const LOCK: Command = Command::leaf(
    "lock <lockname> [exec-command arg1 arg2 ...]",
    "Acquires a named lock",
    Action::Lock,
)
.group(CONCURRENCY)
.flags(&[Flag::new("ttl", Kind::Int, "10", "timeout for session")]);

const ELECT: Command = Command::leaf(
    "elect <election-name> [proposal]",
    "Observes and participates in leader election",
    Action::Elect,
)
.group(CONCURRENCY)
.flags(&[Flag::switch("listen", "observation mode").short('l')]);

const AUTH: Command = Command::branch(
    "auth <enable or disable>",
    "Enable or disable authentication. Use `etcdctl auth --help` to see subcommands",
    "Enable or disable authentication",
    &[
        Command::leaf("enable", "Enables authentication", Action::AuthEnable),
        Command::leaf("disable", "Disables authentication", Action::AuthDisable),
        Command::leaf("status", "Returns authentication status", Action::AuthStatus),
        Command::leaf(
            "can-i <user name> <permission type> <key> [endkey]",
            "Tells if a user may read or write keys; exits with 1 if not",
            Action::AuthCanI,
        )
        .flags(&[
            Flag::switch("prefix", "ask for all keys with this prefix"),
            Flag::switch("from-key", "ask for all keys that are not before the given key"),
        ])
        .own(),
    ],
)
.group(AUTHENTICATION);

const USER: Command = Command::branch(
    "user <subcommand>",
    "User related commands. Use `etcdctl user --help` to see subcommands",
    "User related commands",
    &[
        Command::leaf(
            "add <user name or user:password> [options]",
            "Adds a new user",
            Action::UserAdd,
        )
        .flags(&[
            Flag::new(
                "interactive",
                Kind::Bool,
                "true",
                "Read password from stdin instead of interactive terminal",
            ),
            Flag::text("new-user-password", "Supply password from the command line flag"),
            Flag::switch("no-password", "Create a user without password (CN based auth only)"),
        ]),
        Command::leaf("delete <user name>", "Deletes a user", Action::UserDelete),
        Command::leaf(
            "get <user name> [options]",
            "Gets detailed information of a user",
            Action::UserGet,
        )
        .flags(&[Flag::switch("detail", "Show permissions of roles granted to the user")]),
        Command::leaf("list", "Lists all users", Action::UserList),
        Command::leaf(
            "passwd <user name> [options]",
            "Changes password of user",
            Action::UserPasswd,
        )
        .flags(&[Flag::new(
            "interactive",
            Kind::Bool,
            "true",
            "If true, read password from stdin instead of interactive terminal",
        )]),
        Command::leaf(
            "grant-role <user name> <role name>",
            "Grants a role to a user",
            Action::UserGrantRole,
        ),
        Command::leaf(
            "revoke-role <user name> <role name>",
            "Revokes a role from a user",
            Action::UserRevokeRole,
        ),
    ],
)
.group(AUTHENTICATION);

const ROLE: Command = Command::branch(
    "role <subcommand>",
    "Role related commands. Use `etcdctl role --help` to see subcommands",
    "Role related commands",
    &[
        Command::leaf("add <role name>", "Adds a new role", Action::RoleAdd),
        Command::leaf("delete <role name>", "Deletes a role", Action::RoleDelete),
        Command::leaf("get <role name>", "Gets detailed information of a role", Action::RoleGet),
        Command::leaf("list", "Lists all roles", Action::RoleList),
        Command::leaf(
            "grant-permission [options] <role name> <permission type> <key> [endkey]",
            "Grants a key to a role",
            Action::RoleGrantPermission,
        )
        .flags(&[
            Flag::switch("prefix", "grant a prefix permission"),
            Flag::switch(
                "from-key",
                "grant a permission of keys that are greater than or equal to the given key \
                 using byte compare",
            ),
        ]),
        Command::leaf(
            "revoke-permission <role name> <key> [endkey]",
            "Revokes a key from a role",
            Action::RoleRevokePermission,
        )
        .flags(&[
            Flag::switch("prefix", "revoke a prefix permission"),
            Flag::switch(
                "from-key",
                "revoke a permission of keys that are greater than or equal to the given key \
                 using byte compare",
            ),
        ]),
    ],
)
.group(AUTHENTICATION);

const AUTO_COMPACT: Flag =
    Flag::switch("auto-compact", "Compact storage with last revision after test is finished.");
const AUTO_DEFRAG: Flag = Flag::switch("auto-defrag", "Defragment storage after test is finished.");

const CHECK: Command = Command::branch(
    "check <subcommand>",
    "commands for checking properties of the etcd cluster. Use `etcdctl check --help` to see \
     subcommands",
    "commands for checking properties of the etcd cluster",
    &[
        Command::leaf(
            "perf [options]",
            "Check the performance of the etcd cluster",
            Action::CheckPerf,
        )
        .flags(&[
            Flag::new(
                "load",
                Kind::Text,
                "s",
                "The performance check's workload model. Accepted workloads: s(small), \
                 m(medium), l(large), xl(xLarge). Different workload models use different \
                 configurations in terms of number of clients and expected throughput.",
            ),
            Flag::new(
                "prefix",
                Kind::Text,
                "/etcdctl-check-perf/",
                "The prefix for writing the performance check's keys.",
            ),
            AUTO_COMPACT,
            AUTO_DEFRAG,
        ]),
        Command::leaf(
            "datascale [options]",
            "Check the memory usage of holding data for different workloads on a given server \
             endpoint.",
            Action::CheckDatascale,
        )
        .long(
            "If no endpoint is provided, localhost will be used. If multiple endpoints are \
             provided, first endpoint will be used.",
        )
        .flags(&[
            Flag::new(
                "load",
                Kind::Text,
                "s",
                "The datascale check's workload model. Accepted workloads: s(small), m(medium), \
                 l(large), xl(xLarge)",
            ),
            Flag::new(
                "prefix",
                Kind::Text,
                "/etcdctl-check-datascale/",
                "The prefix for writing the datascale check's keys.",
            ),
            AUTO_COMPACT,
            AUTO_DEFRAG,
        ]),
    ],
)
.group(UTILITY);

const MAKE_MIRROR: Command = Command::leaf(
    "make-mirror [options] <destination>",
    "Makes a mirror at the destination etcd cluster",
    Action::MakeMirror,
)
.group(UTILITY)
.flags(&[
    Flag::text("prefix", "Key-value prefix to mirror"),
    Flag::int("rev", "Specify the kv revision to start to mirror"),
    Flag::new(
        "max-txn-ops",
        Kind::Uint,
        "128",
        "Maximum number of operations permitted in a transaction during syncing updates.",
    ),
    Flag::text(
        "dest-prefix",
        "destination prefix to mirror a prefix to a different prefix in the destination cluster",
    ),
    Flag::switch("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
    Flag::text(
        "dest-cert",
        "Identify secure client using this TLS certificate file for the destination cluster",
    ),
    Flag::text("dest-key", "Identify secure client using this TLS key file"),
    Flag::text(
        "dest-cacert",
        "Verify certificates of TLS enabled secure servers using this CA bundle",
    ),
    Flag::new(
        "dest-insecure-transport",
        Kind::Bool,
        "true",
        "Disable transport security for client connections",
    ),
    Flag::text(
        "dest-user",
        "Destination username[:password] for authentication (prompt if password is not supplied)",
    ),
    Flag::text(
        "dest-password",
        "Destination password for authentication (if this option is used, --user option \
         shouldn't include password)",
    ),
]);

const COMPLETION: Command = Command::leaf(
    "completion [bash|zsh|fish|powershell]",
    "Generate completion script",
    Action::Completion,
)
.long(
    r#"To load completions:

Bash:

  $ source <(etcdctl completion bash)

  # To load completions for each session, execute once:
  # Linux:
  $ etcdctl completion bash > /etc/bash_completion.d/etcdctl
  # macOS:
  $ etcdctl completion bash > /usr/local/etc/bash_completion.d/etcdctl

Zsh:

  # If shell completion is not already enabled in your environment,
  # you will need to enable it.  You can execute the following once:

  $ echo "autoload -U compinit; compinit" >> ~/.zshrc

  # To load completions for each session, execute once:
  $ etcdctl completion zsh > "${fpath[1]}/_etcdctl"

  # You will need to start a new shell for this setup to take effect.

fish:

  $ etcdctl completion fish | source

  # To load completions for each session, execute once:
  $ etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish

PowerShell:

  PS> etcdctl completion powershell | Out-String | Invoke-Expression

  # To load completions for every new session, run:
  PS> etcdctl completion powershell > etcdctl.ps1
  # and source this file from your PowerShell profile.
"#,
)
.group(UTILITY);

const OPTIONS: Command =
    Command::leaf("options", "Show the global command-line flags", Action::Options).group(UTILITY);

const VERSION: Command =
    Command::leaf("version", "Prints the version of etcdctl", Action::Version).group(UTILITY);

const HELP: Command = Command::leaf("help [command]", "Help about any command", Action::Help)
    .long(
        "Help provides help for any command in the application.\nSimply type etcdctl help [path \
         to command] for full details.",
    )
    .group(UTILITY);
