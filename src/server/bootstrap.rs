//! The first members, for a member without state: from the flags, checked against each other and against the running
//! members, as etcd checks them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Config, versions};
use crate::cluster::{Member, cluster_id, member_id};
use crate::io;
use crate::types::{ConfState, Fault, MemberId};
use crate::wal::Record;

/// Timeout of another member's answer about the members.
const ASK_TIME: Duration = Duration::from_secs(2);

/// The initial membership.
pub(super) struct Bootstrap {
    cluster_id: u64,
    id: MemberId,
    pub(super) members: Vec<Member>,
    joins: bool,
}

impl Bootstrap {
    /// The ids of cluster and member.
    pub(super) fn owner(&self) -> (u64, MemberId) {
        (self.cluster_id, self.id)
    }

    /// The first records of the log: each first member counts as added by an entry of the first term.
    pub(super) fn first(&self) -> [Record; 2] {
        let owner = Record::Metadata { cluster_id: self.cluster_id, member_id: self.id };
        let mut conf_state = ConfState::default();
        if self.joins {
            return [owner, Record::LogStart { index: 0, term: 0, conf_state }];
        }
        conf_state.voters = self.members.iter().map(|member| member.id).collect();
        conf_state.voters.sort_unstable();
        [owner, Record::LogStart { index: self.members.len() as u64, term: 1, conf_state }]
    }
}

/// Determines the initial membership. Blocks: asks other members. A member that has a log continues with it, whatever
/// the others answer: the cluster may need it to have a quorum.
///
/// # Errors
/// A contradiction among flags and members, with etcd's text.
pub(super) fn bootstrap(config: &Config, has_log: bool) -> Result<Bootstrap, Fault> {
    let given = given(config).map_err(Fault::new)?;
    if config.joins_existing {
        return join(config, given);
    }
    check_advertised(config).map_err(Fault::new)?;
    if !has_log && has_served(&given) {
        let text = format!("member {:x} has already been bootstrapped", given.id);
        return Err(Fault::new(text));
    }
    Ok(given)
}

/// The membership in the flags.
fn given(config: &Config) -> Result<Bootstrap, String> {
    if !config.initial_cluster.contains_key(&config.name) {
        let name = &config.name;
        return Err(format!(
            "couldn't find local name {name:?} in the initial cluster configuration"
        ));
    }
    let urls: Vec<_> = config.initial_cluster.values().flatten().collect();
    if urls.iter().collect::<BTreeSet<_>>().len() < urls.len() {
        let pairs = config.initial_cluster.iter();
        let pairs = pairs.flat_map(|(name, urls)| urls.iter().map(move |url| (name, url)));
        let text: Vec<_> = pairs.map(|(name, url)| format!("{name}={url}")).collect();
        return Err(format!("initial cluster {} has duplicate url", text.join(",")));
    }
    let member = |(name, urls): (&String, &Vec<String>)| {
        let id = member_id(urls, &config.token, None);
        Member { id, name: name.clone(), peer_urls: urls.clone(), ..Member::default() }
    };
    let members: Vec<_> = config.initial_cluster.iter().map(member).collect();
    let ids: Vec<_> = members.iter().map(|member| member.id).collect();
    let own = members.iter().find(|member| member.name == config.name);
    let id = own.map(|member| member.id).unwrap_or_default();
    Ok(Bootstrap { cluster_id: cluster_id(&ids), id, members, joins: false })
}

/// This member's advertised URLs must be those that the other members know.
fn check_advertised(config: &Config) -> Result<(), String> {
    let mut advertised = config.advertise_peers.clone();
    advertised.sort_unstable();
    let own = &config.initial_cluster[&config.name];
    let Err(why) = same_urls(&advertised, own) else { return Ok(()) };
    let lacking = |of: &[String], from: &[String]| {
        let lacking = of.iter().filter(|url| !from.contains(url));
        lacking.map(|url| format!("{}={url}", config.name)).collect::<Vec<_>>().join(",")
    };
    let missing = lacking(own, &advertised);
    if !missing.is_empty() {
        let advertised = advertised.join(",");
        return Err(format!(
            "--initial-cluster has {missing} but missing from \
             --initial-advertise-peer-urls={advertised} ({why})"
        ));
    }
    let missing: Vec<_> =
        advertised.iter().filter(|url| !own.contains(url)).map(String::as_str).collect();
    Err(format!(
        "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
        missing.join(","),
        lacking(&advertised, &[])
    ))
}

/// Checks that two sorted lists of URLs mean the same addresses, by name or after resolution.
fn same_urls(left: &[String], right: &[String]) -> Result<(), String> {
    if left == right {
        return Ok(());
    }
    if left.len() != right.len() {
        let list = |urls: &[String]| {
            let quoted: Vec<_> = urls.iter().map(|url| format!("{url:?}")).collect();
            format!("[{}]", quoted.join(" "))
        };
        return Err(format!("len({}) != len({})", list(left), list(right)));
    }
    let resolved = |urls: &[String]| {
        let mut urls: Vec<_> = urls.iter().map(|url| resolved(url)).collect();
        urls.sort_unstable();
        urls
    };
    let (left, right) = (resolved(left), resolved(right));
    let differ = left.iter().zip(&right).find(|(left, right)| left != right);
    match differ {
        Some((left, right)) => Err(format!("resolved urls: {left:?} != {right:?}")),
        None => Ok(()),
    }
}

/// A URL with an address in place of a name, if the name resolves.
fn resolved(url: &str) -> String {
    let io::Address::Tcp(place) = io::Address::of_url(url) else { return url.to_owned() };
    match io::resolve(&place) {
        Some(address) => url.replacen(&place, &address.to_string(), 1),
        None => url.to_owned(),
    }
}

/// Asks the other members for the members and the cluster's id.
fn ask_others(bootstrap: &Bootstrap) -> Option<(u64, Vec<Member>)> {
    let others = bootstrap.members.iter().filter(|member| member.id != bootstrap.id);
    let mut urls: Vec<_> = others.flat_map(|member| &member.peer_urls).collect();
    urls.sort_unstable();
    urls.into_iter().find_map(|url| {
        let (head, body) = io::get(&io::Address::of_url(url), "/members", ASK_TIME).ok()?;
        let id = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("x-etcd-cluster-id");
            is_it.then(|| u64::from_str_radix(value.trim(), 16).ok()).flatten()
        })?;
        let members: Vec<Member> = serde_json::from_str(&body).ok()?;
        (!members.is_empty()).then_some((id, members))
    })
}

/// Takes over the ids given by the running cluster; the flags must name the same members.
fn join(config: &Config, given: Bootstrap) -> Result<Bootstrap, Fault> {
    let Some((cluster_id, members)) = ask_others(&given) else {
        return Err(Fault::new(
            "cannot fetch cluster info from peer urls: could not retrieve cluster information \
             from the given URLs",
        ));
    };
    let wrong = |why: String| {
        let told: Vec<_> = members.iter().map(in_initial_cluster).collect();
        Fault::new(format!(
            "error validating peerURLs {{ClusterID:{cluster_id:x} Members:[{}] \
             RemovedMemberIDs:[]}}: {why}",
            told.join(" ")
        ))
    };
    if members.len() != given.members.len() {
        return Err(wrong("member count is unequal".to_owned()));
    }
    let mut id = None;
    for member in &members {
        let mut urls = member.peer_urls.clone();
        urls.sort_unstable();
        let mut last = String::new();
        let same = given.members.iter().find(|given| match same_urls(&urls, &given.peer_urls) {
            Ok(()) => true,
            Err(why) => {
                last = why;
                false
            }
        });
        let Some(same) = same else {
            return Err(wrong(format!(
                "PeerURLs: no match found for existing member ({:x}, [{}]), last resolver error \
                 ({last})",
                member.id,
                urls.join(" ")
            )));
        };
        if same.name == config.name {
            id = Some(member.id);
        }
    }
    let id = id.ok_or_else(|| wrong(format!("{} is not among them", config.name)))?;
    versions::check_joining(&members, id)?;
    Ok(Bootstrap { cluster_id, id, members, joins: true })
}

/// A member as etcd formats it in errors.
fn in_initial_cluster(member: &Member) -> String {
    format!(
        "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} \
         Attributes:{{Name:{} ClientURLs:[{}]}}}}",
        member.id,
        member.peer_urls.join(" "),
        member.is_learner,
        member.name,
        member.client_urls.join(" ")
    )
}

/// True if the other members know that this member has served: one that has, and lost its data, must not vote again as
/// if it never had.
fn has_served(given: &Bootstrap) -> bool {
    let Some((_, members)) = ask_others(given) else { return false };
    members.iter().any(|member| member.id == given.id && !member.client_urls.is_empty())
}
