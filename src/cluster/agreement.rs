//! Choice of the cluster version, by etcd's rules, and of the feature level that all members support.

use serde::Deserialize;

use super::Version;
use crate::types::FeatureLevel;

/// The body of `/version`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Versions {
    /// The version of the member itself.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// The version of its cluster, as far as the member knows; no version until one is decided.
    #[serde(rename = "etcdcluster", default)]
    pub cluster: String,
}

/// The new cluster version, if it has to change. `servers` has every member's own version, `None` for a member that did
/// not report it: then the version is not raised, and a cluster without one begins with the lowest.
///
/// The lowest server decides. The cluster version never falls, since Basalt has no downgrades, and does not change to
/// another major version by itself.
pub fn decide(
    spoken: Option<Version>,
    servers: impl IntoIterator<Item = Option<Version>>,
) -> Option<Version> {
    let servers: Option<Vec<_>> = servers.into_iter().collect();
    let lowest = servers.and_then(|servers| servers.into_iter().min()).map(Version::minor);
    match (spoken, lowest) {
        (None, lowest) => Some(lowest.unwrap_or(Version::LOWEST)),
        (Some(spoken), Some(lowest)) => {
            (spoken.major == lowest.major && spoken < lowest).then_some(lowest)
        }
        (Some(_), None) => None,
    }
}

/// The feature level to raise the cluster to, if it is to be raised. `supported` has every member's level, `None` for
/// one that is not connected and so has not stated it: nothing is raised then, since that member may have been replaced
/// by an older version.
pub fn level_to_set(
    agreed: FeatureLevel,
    supported: impl IntoIterator<Item = Option<FeatureLevel>>,
) -> Option<FeatureLevel> {
    let supported: Option<Vec<_>> = supported.into_iter().collect();
    supported?.into_iter().min().filter(|lowest| *lowest > agreed)
}

/// Compatibility of a cluster's version with a server that wants to join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// The server supports it.
    Fits,
    /// The version is too old for any supported server.
    TooLow,
    /// The server is too old.
    TooHigh,
}

impl Fit {
    /// The compatibility of this server with a cluster of version `cluster`.
    pub fn of(cluster: Version) -> Self {
        match cluster {
            low if low < Version::LOWEST => Self::TooLow,
            high if high > Version::SERVER.minor() => Self::TooHigh,
            _ => Self::Fits,
        }
    }
}

/// True if a server may join members that report these cluster versions, `None` for members that report none: at least
/// one reports a compatible version, and none an incompatible one. The others may be down at the moment.
pub fn may_join(clusters: impl IntoIterator<Item = Option<Version>>) -> bool {
    let mut heard = clusters.into_iter().flatten().map(Fit::of).peekable();
    heard.peek().is_some() && heard.all(|fit| fit == Fit::Fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Version> {
        text.parse().ok()
    }

    /// The result for a cluster of version `spoken` (`""` for none) with these servers.
    fn decided(spoken: &str, servers: &[&str]) -> Option<String> {
        let servers = servers.iter().map(|text| read(text));
        decide(read(spoken), servers).map(|version| version.to_string())
    }

    #[test]
    fn a_cluster_begins_with_its_lowest_server() {
        assert_eq!(decided("", &["3.7.1"]).as_deref(), Some("3.7.0"));
        assert_eq!(decided("", &["3.7.1", "3.6.9", "3.8.0"]).as_deref(), Some("3.6.0"));
        assert_eq!(decided("", &["3.8.2", "3.8.0"]).as_deref(), Some("3.8.0"));
    }

    #[test]
    fn a_cluster_begins_with_the_lowest_version_while_somebody_is_not_heard_of() {
        assert_eq!(decided("", &["3.7.1", "down", "3.6.9"]).as_deref(), Some("3.0.0"));
        assert_eq!(decided("", &[]).as_deref(), Some("3.0.0"));
    }

    #[test]
    fn it_rises_with_its_lowest_server_however_far() {
        assert_eq!(decided("3.0.0", &["3.7.1", "3.7.1"]).as_deref(), Some("3.7.0"));
        assert_eq!(decided("3.6.0", &["3.7.1", "3.8.0"]).as_deref(), Some("3.7.0"));
        assert_eq!(decided("3.6.0", &["3.7.1", "3.8.0-alpha.0"]).as_deref(), Some("3.7.0"));
    }

    #[test]
    fn it_stays_when_nothing_rises_or_somebody_is_not_heard_of() {
        for (spoken, servers) in [
            ("3.7.0", &["3.7.1", "3.7.1"][..]),
            ("3.7.0", &["3.7.9", "3.8.0"]),
            ("3.6.0", &["3.7.1", "3.6.0"]),
            ("3.6.0", &["3.7.1", "down"]),
            ("3.6.0", &["3.7.1", "3.7"]),
            ("3.6.0", &[]),
        ] {
            assert_eq!(decided(spoken, servers), None, "{spoken} {servers:?}");
        }
    }

    #[test]
    fn it_neither_falls_nor_goes_over_into_another_major_version() {
        assert_eq!(decided("3.7.0", &["3.6.1", "3.7.1"]), None);
        assert_eq!(decided("3.7.0", &["4.0.0", "4.1.0"]), None);
        assert_eq!(decided("4.0.0", &["3.7.1"]), None);
    }

    #[test]
    fn joining_member_must_be_compatible_with_all_that_answer() {
        let may_join = |clusters: &[&str]| may_join(clusters.iter().map(|text| read(text)));
        assert!(may_join(&["3.7.0", "3.7.0"]));
        assert!(may_join(&["3.0.0", "down"]), "another one may be down");
        assert!(may_join(&["3.6.0", "3.7.0"]));
        assert!(!may_join(&[]), "nobody says anything");
        assert!(!may_join(&["down", "not_decided"]));
        assert!(!may_join(&["3.7.0", "3.8.0"]), "one speaks what it does not");
        assert!(!may_join(&["4.0.0"]));
        assert!(!may_join(&["2.3.0", "3.7.0"]));
        assert_eq!(read("2.3.0").map(Fit::of), Some(Fit::TooLow));
        assert_eq!(read("3.8.0").map(Fit::of), Some(Fit::TooHigh));
    }

    #[test]
    fn the_feature_level_is_the_lowest_of_all_members_and_never_falls() {
        let set = |agreed, members: &[u32]| {
            let supported = members.iter().map(|number| {
                let known = *number > 0;
                known.then(|| FeatureLevel::new(*number))
            });
            level_to_set(FeatureLevel::new(agreed), supported).map(FeatureLevel::number)
        };
        assert_eq!(set(1, &[2, 2, 2]), Some(2));
        assert_eq!(set(1, &[3, 2, 4]), Some(2), "the lowest decides");
        assert_eq!(set(1, &[2, 1, 2]), None, "one has not been upgraded");
        assert_eq!(set(1, &[2, 0, 2]), None, "one is not connected");
        assert_eq!(set(2, &[2, 2, 2]), None, "nothing changes");
        assert_eq!(set(3, &[2, 3, 3]), None, "it never falls");
        assert_eq!(set(2, &[4]), Some(4));
        assert_eq!(set(1, &[]), None);
    }

    #[test]
    fn members_tell_their_versions_in_json() {
        let told = r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#;
        let told: Versions = serde_json::from_str(told).unwrap();
        assert_eq!((read(&told.server), read(&told.cluster)), (Some(Version::SERVER), None));
    }
}
