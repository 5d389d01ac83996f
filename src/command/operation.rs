//! Kinds of commands, as metrics name them.

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Kinds of commands, by the names that etcd's metrics give them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Operation {
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                $(#[$doc])*
                $name,
            )*
        }

        impl Operation {
            /// All kinds; the position of each is its value `as usize`.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// The label in metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

operations! {
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    /// etcd counts expired leases here too.
    LeaseRevoke,
    Alarm,
    AuthEnable,
    AuthDisable,
    AuthUserAdd,
    AuthUserDelete,
    AuthUserChangePassword,
    AuthUserGrantRole,
    AuthUserRevokeRole,
    AuthRoleAdd,
    AuthRoleDelete,
    AuthRoleGrantPermission,
    AuthRoleRevokePermission,
    ClusterMemberAttrSet,
    ClusterVersionSet,
    /// Not etcd's.
    FeatureLevelSet,
    /// Later commands for its tokens count here too.
    Authenticate,
}
