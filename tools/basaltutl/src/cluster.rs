//! The founding members: names and URLs as etcd parses and checks them.

use std::collections::{BTreeMap, BTreeSet};

use basalt::cluster::{Member, cluster_id, member_id};

/// A new cluster and the member that is restored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Founding {
    /// All members, by id.
    pub(crate) members: Vec<Member>,
    /// The cluster's id.
    pub(crate) cluster_id: u64,
    /// The member's own id.
    pub(crate) own_id: u64,
}

/// Reads `--initial-cluster` and checks it against the member's own name and URLs.
///
/// # Errors
/// etcd's text for an inconsistency.
pub(crate) fn found(
    name: &str,
    peer_urls: &str,
    cluster: &str,
    token: &str,
) -> Result<Founding, String> {
    let own_urls = urls(peer_urls.split(','))?;
    let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in cluster.split(',').filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        named.entry(name).or_default().push(url);
    }
    let named = named
        .into_iter()
        .map(|(name, listed)| Ok((name, urls(listed.into_iter())?)))
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    let Some(listed) = named.get(name) else {
        return Err(format!(
            "couldn't find local name {name:?} in the initial cluster configuration"
        ));
    };
    check_advertised(name, &own_urls, listed)?;
    let all: Vec<_> = named.values().flatten().collect();
    if all.iter().collect::<BTreeSet<_>>().len() != all.len() {
        return Err(format!("initial cluster {} has duplicate url", text(&named)));
    }
    let mut own_id = 0;
    let mut members = BTreeMap::new();
    for (of, peer_urls) in &named {
        let id = member_id(peer_urls, token, None);
        if *of == name {
            own_id = id;
        }
        let member = Member {
            id,
            peer_urls: peer_urls.clone(),
            name: (*of).to_owned(),
            ..Member::default()
        };
        if members.insert(id, member).is_some() {
            return Err(format!("member exists with identical ID {id:x}"));
        }
    }
    let ids: Vec<_> = members.keys().copied().collect();
    Ok(Founding { cluster_id: cluster_id(&ids), members: members.into_values().collect(), own_id })
}

fn check_advertised(name: &str, own: &[String], listed: &[String]) -> Result<(), String> {
    if own == listed {
        return Ok(());
    }
    let missing = |of: &[String], from: &[String]| -> Vec<String> {
        of.iter().filter(|url| !from.contains(url)).cloned().collect()
    };
    let lacking = missing(listed, own);
    if !lacking.is_empty() {
        let lacking: Vec<_> = lacking.iter().map(|url| format!("{name}={url}")).collect();
        return Err(format!(
            "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} (resolved \
             urls: {:?} != {:?})",
            lacking.join(","),
            own.join(","),
            own.join(","),
            listed.join(",")
        ));
    }
    let named: Vec<_> = own.iter().map(|url| format!("{name}={url}")).collect();
    Err(format!(
        "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
        missing(own, listed).join(","),
        named.join(",")
    ))
}

fn text(named: &BTreeMap<&str, Vec<String>>) -> String {
    let mut pairs: Vec<_> = named
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// Reads URLs, sorted.
fn urls<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<String>, String> {
    let mut urls = texts.map(|text| url(text.trim())).collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    Ok(urls)
}

fn url(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match scheme {
        "unix" | "unixs" => Ok(text.to_owned()),
        "http" | "https" => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let port = host.rsplit_once(':').map(|(_, port)| port);
            if port.is_none_or(|port| port.ends_with(']')) {
                return Err(format!("URL address does not have the form \"host:port\": {text}"));
            }
            if !path.is_empty() {
                return Err(format!("URL must not contain a path: {text}"));
            }
            Ok(text.to_owned())
        }
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_computes() {
        let own = "http://localhost:2380";
        let founding = found("default", own, &format!("default={own}"), "etcd-cluster").unwrap();
        assert_eq!(format!("{:x}", founding.own_id), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", founding.cluster_id), "cdf818194e3a8c32");
        let three = "a=http://h:1,b=http://h:2,c=http://h:3,c=http://h:4";
        let founding = found("c", "http://h:4,http://h:3", three, "t").unwrap();
        // etcdutl 3.7.1 makes these ids from the same flags.
        let ids: Vec<_> =
            founding.members.iter().map(|member| format!("{:x}", member.id)).collect();
        assert_eq!(ids, ["6d9590fafebced59", "7a86bc4b675338b1", "fa3f21495369ea04"]);
        assert_eq!(founding.cluster_id, 0x2105_66b2_8970_434e);
        assert_eq!(founding.own_id, 0xfa3f_2149_5369_ea04);
    }

    #[test]
    fn inconsistent_flags_are_refused_with_etcds_texts() {
        let refused = |name, own, cluster| found(name, own, cluster, "t").unwrap_err();
        assert_eq!(
            refused("x", "http://a:1", "y=http://a:1"),
            "couldn't find local name \"x\" in the initial cluster configuration"
        );
        assert_eq!(
            refused("x", "http://a:1", "x=http://a:2"),
            "--initial-cluster has x=http://a:2 but missing from \
             --initial-advertise-peer-urls=http://a:1 (resolved urls: \"http://a:1\" != \"http://a:2\")"
        );
        assert_eq!(
            refused("x", "a:1", "x=http://a:2"),
            "URL scheme must be http, https, unix, or unixs: a:1"
        );
        assert_eq!(
            refused("x", "http://a:1", "x=http://a:1,y=http://a:1"),
            "initial cluster x=http://a:1,y=http://a:1 has duplicate url"
        );
        assert_eq!(refused("x", "http://a:1/p", "x"), "URL must not contain a path: http://a:1/p");
    }
}
