//! How a pod without data becomes a member. Each step can be repeated after a crash: the next one follows from the list of
//! members and from this pod's directory alone.
//!
//! | a quorum lists this pod's peer URL | next step |
//! |---|---|
//! | not at all | add it as a learner; then as in the next line |
//! | as a member that has never started | start with these members and the state `existing` |
//! | as a member that has started | its data is lost: remove it, then as in the first line |
//! | nobody answers, and all pods say that they have no data | found the cluster, if this is a founder |
//! | nobody answers, otherwise | wait |

use basalt_proto::etcdserverpb::Member;
use tokio::time::sleep;

use crate::limits::JOIN_PAUSE;
use crate::names::Ordinal;
use crate::states::{self, State};
use crate::{Pod, log};

/// How the member's process is to begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    /// Names and peer URLs of all members.
    pub(crate) cluster: Vec<(String, String)>,
    pub(crate) is_new: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Start(Start),
    Add,
    Replace(u64),
    Found,
    Wait(String),
}

impl Pod {
    /// Returns when the member may start. A pod with data starts at once, as its cluster may need it.
    ///
    /// # Errors
    /// The data directory cannot be written to.
    pub(crate) async fn prepare(&self) -> Result<Start, String> {
        if self.dirs.has_log()
            && let Some(start) = self.resume().await?
        {
            return Ok(start);
        }
        let mut told = String::new();
        loop {
            match self.next_step().await {
                Step::Start(start) => return Ok(start),
                Step::Found => {
                    self.dirs.begin_founding()?;
                    log::info("join", "founding a cluster").write();
                    return Ok(self.founders_start());
                }
                Step::Add => self.add().await,
                Step::Replace(id) => self.remove_lost(id).await,
                Step::Wait(why) if why == told => {}
                Step::Wait(why) => {
                    log::info("join", "waiting").text("reason", &why).write();
                    told = why;
                }
            }
            sleep(JOIN_PAUSE).await;
        }
    }

    /// The start of a member that has data; `None` if the cluster has removed it.
    async fn resume(&self) -> Result<Option<Start>, String> {
        if self.dirs.state() == State::Founding {
            return Ok(Some(self.founders_start()));
        }
        let Ok(members) = self.members.list(self.others().await).await else {
            // Only a member whose state has not arrived yet needs more than its own name.
            let cluster = vec![(self.own_name(), self.own_url())];
            return Ok(Some(Start { cluster, is_new: false }));
        };
        if self.own(&members).is_some() {
            return Ok(Some(self.start_with(&members)));
        }
        log::warn("join", "the cluster has removed this member; it joins anew").write();
        self.dirs.put_aside()?;
        Ok(None)
    }

    async fn next_step(&self) -> Step {
        match self.members.list(self.others().await).await {
            Ok(members) => self.step_of(&members),
            Err(why) if self.ordinal >= self.founders => Step::Wait(why),
            Err(why) => {
                // Pods of a larger set may have data, too.
                if let Some(Err(error)) = self.replicas().await {
                    return Step::Wait(format!("the API server does not tell: {error}"));
                }
                let last = self.last_ordinal().await;
                let others = (0..=last).filter(|ordinal| *ordinal != self.ordinal);
                let mut told = Vec::new();
                for ordinal in others {
                    let state = states::ask(&self.names.state_address(ordinal)).await;
                    told.push((ordinal, state));
                }
                self.may_found(&told, &why)
            }
        }
    }

    fn step_of(&self, members: &[Member]) -> Step {
        match self.own(members) {
            None => Step::Add,
            Some(own) if own.name.is_empty() && own.client_ur_ls.is_empty() => {
                Step::Start(self.start_with(members))
            }
            Some(own) => Step::Replace(own.id),
        }
    }

    /// A founder may found only what nobody has: a pod that does not tell might have the data of a cluster.
    fn may_found(&self, others: &[(Ordinal, Option<State>)], no_member: &str) -> Step {
        let of = |wanted: fn(&Option<State>) -> bool| {
            let found = others.iter().filter(|(_, state)| wanted(state));
            found.map(|(ordinal, _)| self.names.name(*ordinal)).collect::<Vec<_>>().join(", ")
        };
        let silent = of(Option::is_none);
        let members = of(|state| *state == Some(State::Member));
        if !members.is_empty() {
            return Step::Wait(format!("{members} have data, but no quorum: {no_member}"));
        }
        if !silent.is_empty() {
            return Step::Wait(format!("a cluster is founded when all pods are there: {silent}"));
        }
        Step::Found
    }

    async fn add(&self) {
        match self.members.add_learner(&self.others().await, &self.own_url()).await {
            Ok(_) => log::info("join", "added as a learner").write(),
            // Another learner is being promoted, or there is an election: the next attempt looks again.
            Err(why) => log::warn("join", "not added yet").text("error", &why).write(),
        }
    }

    async fn remove_lost(&self, id: u64) {
        let line = log::warn("join", "the data of this member is lost: replacing it");
        line.text("member", &format!("{id:x}")).write();
        if let Err(why) = self.members.remove(&self.others().await, id).await {
            log::warn("join", "not replaced yet").text("error", &why).write();
        }
    }

    fn founders_start(&self) -> Start {
        let founders = (0..self.founders).map(|it| (self.names.name(it), self.names.peer_url(it)));
        Start { cluster: founders.collect(), is_new: true }
    }

    fn start_with(&self, members: &[Member]) -> Start {
        let named = members.iter().flat_map(|member| {
            let name = match self.names.ordinal_of(&member.peer_ur_ls) {
                Some(ordinal) => self.names.name(ordinal),
                // Members that are no pods of this set keep their own.
                None if member.name.is_empty() => format!("{:x}", member.id),
                None => member.name.clone(),
            };
            member.peer_ur_ls.iter().map(move |url| (name.clone(), url.clone()))
        });
        Start { cluster: named.collect(), is_new: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::pod;

    fn member(pod: &Pod, ordinal: Ordinal, started: bool) -> Member {
        Member {
            id: 100 + u64::from(ordinal),
            name: if started { pod.names.name(ordinal) } else { String::new() },
            peer_ur_ls: vec![pod.names.peer_url(ordinal)],
            client_ur_ls: if started { vec![pod.names.client_url(ordinal)] } else { Vec::new() },
            is_learner: false,
        }
    }

    #[test]
    fn the_list_of_members_decides_the_next_step() {
        let pod = pod("basalt-3");
        let mut members: Vec<_> = (0..3).map(|it| member(&pod, it, true)).collect();
        assert_eq!(pod.step_of(&members), Step::Add);
        members.push(member(&pod, 3, false));
        let Step::Start(start) = pod.step_of(&members) else { panic!("it starts") };
        assert!(!start.is_new);
        assert_eq!(start.cluster.len(), 4);
        assert_eq!(start.cluster[3], ("basalt-3".to_owned(), pod.names.peer_url(3)));
        members[3] = member(&pod, 3, true);
        assert_eq!(pod.step_of(&members), Step::Replace(103));
    }

    #[test]
    fn a_cluster_is_founded_only_if_every_pod_says_that_it_has_none() {
        let pod = pod("basalt-1");
        let step = |told: &[Option<State>]| {
            let others: Vec<_> = [0, 2, 3].into_iter().zip(told.iter().copied()).collect();
            pod.may_found(&others, "refused")
        };
        let (empty, founding) = (Some(State::Empty), Some(State::Founding));
        assert_eq!(step(&[empty, empty, empty]), Step::Found);
        // Others were faster.
        assert_eq!(step(&[founding, empty]), Step::Found);
        for told in [[empty, None], [Some(State::Member), empty], [founding, Some(State::Member)]] {
            assert!(matches!(step(&told), Step::Wait(_)), "{told:?}");
        }
        // Even a pod that founds nothing itself: it may be what is left of a larger cluster.
        assert!(matches!(step(&[empty, empty, Some(State::Member)]), Step::Wait(_)));
        assert!(matches!(step(&[empty, empty, None]), Step::Wait(_)));
    }
}
