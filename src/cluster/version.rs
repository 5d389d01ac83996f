//! Versions as etcd counts them, and the version of this server.

use std::fmt;
use std::str::FromStr;

use crate::types::Fault;

/// A version of etcd. A pre-release suffix (`-alpha.0`) is parsed and dropped: members compare major and minor only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// Changes when members can no longer communicate.
    pub major: u64,
    /// Changes with new features; all releases of one minor version have the same.
    pub minor: u64,
    /// Changes with bug fixes.
    pub patch: u64,
}

impl Version {
    /// The version of etcd with which this server is compatible.
    pub const SERVER: Self = Self { major: 3, minor: 7, patch: 1 };
    /// The lowest version of a cluster: the initial one as long as not all members are known.
    pub const LOWEST: Self = Self { major: 3, minor: 0, patch: 0 };
    /// The version of a store that does not record any: later versions do.
    pub const STORAGE_UNSAID: Self = Self { major: 3, minor: 5, patch: 0 };

    /// The first release of the same minor version, which is the form of cluster and store versions.
    pub const fn minor(self) -> Self {
        Self { patch: 0, ..self }
    }

    /// `major.minor`, as etcd's logs and metrics have it.
    pub fn short(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// The minor version that `X.Y` or a whole version names.
    pub fn read_minor(text: &str) -> Option<Self> {
        let whole = text.parse().or_else(|_| format!("{text}.0").parse());
        whole.ok().map(Self::minor)
    }

    /// The version of the store in a cluster of this version. etcd migrates its store to follow its cluster; Basalt's
    /// format is the same in every version that it supports, so here this is only a number.
    pub fn storage(self) -> Self {
        self.minor().max(Self::STORAGE_UNSAID)
    }

    /// Checks that this server can be a member of a cluster of this version.
    ///
    /// # Errors
    /// The server is too old.
    pub fn check_served(self) -> Result<(), Fault> {
        let server = Self::SERVER.minor();
        if self <= server {
            return Ok(());
        }
        Err(Fault::new(format!(
            "invalid downgrade; server version is lower than determined cluster version \
             (current-server-version: {server}, determined-cluster-version: {})",
            self.short()
        )))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = Fault;

    /// Reads `major.minor.patch`.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let release = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Option<Vec<_>> = release.split('.').map(number).collect();
        match numbers.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self { major, minor, patch }),
            Some(_) | None => Err(Fault::new(format!("{text:?} is not in dotted-tri format"))),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_semver_reads_them() {
        let read = |text: &str| text.parse::<Version>().ok();
        assert_eq!(read("3.7.1"), Some(Version::SERVER));
        assert_eq!(read("3.10.0").map(Version::short), Some("3.10".to_owned()));
        assert_eq!(read("3.8.0-alpha.0"), Some(Version { major: 3, minor: 8, patch: 0 }));
        assert_eq!(read("3.7.1+x.y.z"), Some(Version::SERVER));
        for wrong in ["", "3", "3.7", "3.x.0", "3.7.1.1", "v3.7.1", "3.+7.1", "3.-7.1", "3..1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(read("3.10.0") > read("3.9.9"));
    }

    #[test]
    fn minor_versions_have_two_or_three_numbers() {
        let read = |text| Version::read_minor(text).map(|version| version.to_string());
        assert_eq!(read("3.6").as_deref(), Some("3.6.0"));
        assert_eq!(read("3.6.12").as_deref(), Some("3.6.0"));
        for wrong in ["3", "", "3.x", "3.6.x", "3.6.1.1", "v3.6"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_server_serves_what_is_not_newer_than_itself() {
        for served in ["3.0.0", "3.6.0", "3.7.0"] {
            assert_eq!(served.parse::<Version>().unwrap().check_served(), Ok(()), "{served}");
        }
        for newer in ["3.8.0", "4.0.0"] {
            let refused = newer.parse::<Version>().unwrap().check_served().unwrap_err();
            assert!(refused.to_string().starts_with("invalid downgrade; "), "{refused}");
        }
    }

    /// Observed on etcd 3.7.1 with two of three members up, and then all.
    #[test]
    fn the_store_follows_what_the_cluster_speaks() {
        assert_eq!(Version::LOWEST.storage().to_string(), "3.5.0");
        assert_eq!(Version::SERVER.storage().to_string(), "3.7.0");
    }
}
