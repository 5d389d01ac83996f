//! Names and addresses of the pods of a StatefulSet.

use crate::limits::ORDINALS_MAX;

/// The number of a pod in its set.
pub(crate) type Ordinal = u32;

/// How the pods of one set are called and reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    pub(crate) set: String,
    /// Templates of URLs, with `{pod}` or `{ordinal}`.
    peer: String,
    client: String,
    /// Port at which the pods tell their states.
    port: u16,
}

/// Set and ordinal of a pod's name.
///
/// # Errors
/// It has no ordinal.
pub(crate) fn pod(name: &str) -> Result<(&str, Ordinal), String> {
    let parsed = name.rsplit_once('-').and_then(|(set, number)| {
        let ordinal: Ordinal = number.parse().ok()?;
        (!set.is_empty() && ordinal.to_string() == number).then_some((set, ordinal))
    });
    let wrong = || format!("--name={name}: the name of a StatefulSet's pod ends with its ordinal");
    let (set, ordinal) = parsed.ok_or_else(wrong)?;
    match ordinal < ORDINALS_MAX {
        true => Ok((set, ordinal)),
        false => Err(format!("--name={name}: ordinals are below {ORDINALS_MAX}")),
    }
}

impl Names {
    /// # Errors
    /// A template gives all pods the same URL, or one that is none.
    pub(crate) fn new(set: &str, peer: &str, client: &str, port: u16) -> Result<Self, String> {
        for (flag, template) in [("pod-peer-url", peer), ("pod-client-url", client)] {
            let has_name = template.contains("{pod}") || template.contains("{ordinal}");
            let is_url = template.starts_with("http://") || template.starts_with("https://");
            if !has_name || !is_url || template.contains(',') {
                return Err(format!(
                    "--{flag}={template}: expected one http or https URL with {{pod}} or {{ordinal}} in it"
                ));
            }
        }
        let (set, peer, client) = (set.to_owned(), peer.to_owned(), client.to_owned());
        Ok(Self { set, peer, client, port })
    }

    pub(crate) fn name(&self, ordinal: Ordinal) -> String {
        format!("{}-{ordinal}", self.set)
    }

    pub(crate) fn peer_url(&self, ordinal: Ordinal) -> String {
        self.fill(&self.peer, ordinal)
    }

    pub(crate) fn client_url(&self, ordinal: Ordinal) -> String {
        self.fill(&self.client, ordinal)
    }

    /// The address at which a pod tells its state: the host of its peer URL.
    pub(crate) fn state_address(&self, ordinal: Ordinal) -> String {
        let url = self.peer_url(ordinal);
        let address = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let address = address.split('/').next().unwrap_or_default();
        let host = match address.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|it| it.is_ascii_digit()) => host,
            _ => address,
        };
        format!("{host}:{}", self.port)
    }

    /// The pod whose peer URL is among these.
    pub(crate) fn ordinal_of(&self, urls: &[String]) -> Option<Ordinal> {
        (0..ORDINALS_MAX).find(|ordinal| urls.contains(&self.peer_url(*ordinal)))
    }

    fn fill(&self, template: &str, ordinal: Ordinal) -> String {
        let filled = template.replace("{pod}", &self.name(ordinal));
        filled.replace("{ordinal}", &ordinal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_read_from_names_and_names_lead_to_urls() {
        assert_eq!(pod("a-b-12"), Ok(("a-b", 12)));
        for wrong in ["basalt", "basalt-", "-1", "basalt-01", "basalt-x", "basalt-64"] {
            assert!(pod(wrong).is_err(), "{wrong}");
        }
        let names = |peer: &str| Names::new("basalt", peer, "http://{pod}:2379", 2382);
        let all = names("https://{pod}.members.ns.svc:2380").unwrap();
        assert_eq!(all.peer_url(3), "https://basalt-3.members.ns.svc:2380");
        assert_eq!(all.client_url(0), "http://basalt-0:2379");
        assert_eq!(all.state_address(1), "basalt-1.members.ns.svc:2382");
        assert_eq!(all.ordinal_of(&["http://x:1".into(), all.peer_url(7)]), Some(7));
        assert_eq!(all.ordinal_of(&["http://basalt-7:2380".into()]), None);
        assert_eq!(names("http://[::{ordinal}]:1").unwrap().state_address(5), "[::5]:2382");
        for wrong in ["http://basalt-0:2380", "{pod}:2380", "http://{pod}:1,http://{pod}:2"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
