//! Health of the member: `/health`, and the probes `/livez` and `/readyz` with their checks.

use basalt_proto::encoded::KeyValues;
use basalt_proto::etcdserverpb::{AlarmType, RangeRequest};
use hyper::{Response, StatusCode};
use tonic::body::Body;

use super::{TEXT, page, text};
use crate::actors::ReplicaClient;
use crate::metrics;
use crate::rpc::is_learner;
use crate::types::Error;

/// The values of a repeatable query parameter.
fn parameters<'a>(query: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

/// Reads one key; it need not exist.
async fn read(replica: &ReplicaClient, serializable: bool) -> Result<(), String> {
    if !serializable {
        replica.read_index().await.map_err(|refusal| refusal.to_string())?;
    }
    let zero = bytes::Bytes::from_static(&[0]);
    let request = RangeRequest {
        key: zero.clone(),
        range_end: zero,
        limit: 1,
        keys_only: true,
        ..RangeRequest::default()
    };
    let read = replica.state().read.range_cursor(&request).and_then(|mut cursor| {
        let state = replica.state();
        cursor.next(&state.read, 1, 1, &mut KeyValues::default())
    });
    match read {
        Ok(_) => Ok(()),
        Err(Error::Refused(refusal)) => Err(refusal.to_string()),
        Err(Error::Faulty(fault)) => Err(fault.to_string()),
    }
}

/// `/health`.
pub(super) async fn health(replica: &ReplicaClient, query: &str) -> Response<Body> {
    let reason = unhealthy(replica, query).await;
    if reason.is_empty() {
        metrics::HEALTHY.add(1);
        return page(StatusCode::OK, TEXT, r#"{"health":"true","reason":""}"#);
    }
    metrics::UNHEALTHY.add(1);
    tracing::warn!(reason, "serving /health false");
    let body = serde_json::json!({ "health": "false", "reason": reason });
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{body}\n"))
}

/// The reason why the member is unhealthy; empty if it is healthy.
async fn unhealthy(replica: &ReplicaClient, query: &str) -> String {
    let excluded = parameters(query, "exclude");
    let serializable = parameters(query, "serializable").contains(&"true");
    let alarm = replica
        .alarms()
        .iter()
        .map(|alarm| name(alarm.alarm()))
        .find(|name| !excluded.contains(name));
    if let Some(name) = alarm {
        return format!("ALARM {name}");
    }
    if !serializable && replica.status().leader == 0 {
        return "RAFT NO LEADER".to_owned();
    }
    match read(replica, serializable).await {
        Ok(()) => String::new(),
        Err(error) => format!("RANGE ERROR:{error}"),
    }
}

fn name(alarm: AlarmType) -> &'static str {
    match alarm {
        AlarmType::None => "UNKNOWN",
        AlarmType::Nospace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
    }
}

/// One check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, replica: &ReplicaClient) -> Result<(), String> {
        match self {
            Self::DataCorruption => {
                let mut alarms = replica.state().alarms.clone().into_iter();
                match alarms.any(|alarm| alarm.alarm() == AlarmType::Corrupt) {
                    true => Err("alarm activated: CORRUPT".to_owned()),
                    false => Ok(()),
                }
            }
            Self::SerializableRead => read(replica, true).await,
            Self::LinearizableRead => read(replica, false).await,
            Self::NonLearner if is_learner(replica) => Err("not supported for learner".to_owned()),
            Self::NonLearner => Ok(()),
        }
    }
}

/// A set of checks behind one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    page: &'static str,
    checks: Vec<Check>,
}

impl Probe {
    /// The probe of a path: all checks of a page, or one.
    pub(super) fn find(path: &str) -> Option<Self> {
        use Check::{DataCorruption, LinearizableRead, NonLearner, SerializableRead};
        let (first, one) = match path.strip_prefix('/')?.split_once('/') {
            Some((first, one)) => (first, Some(one)),
            None => (&path[1..], None),
        };
        let (page, checks) = match first {
            "livez" => ("livez", vec![SerializableRead]),
            "readyz" => {
                ("readyz", vec![DataCorruption, SerializableRead, LinearizableRead, NonLearner])
            }
            _ => return None,
        };
        let Some(one) = one else { return Some(Self { page, checks }) };
        let check = checks.into_iter().find(|check| check.name() == one)?;
        Some(Self { page, checks: vec![check] })
    }

    /// Runs the checks that are not excluded.
    pub(super) async fn answer(self, replica: &ReplicaClient, query: &str) -> Response<Body> {
        let excluded = parameters(query, "exclude");
        let (mut lines, mut failed) = (String::new(), false);
        for check in self.checks.iter().filter(|check| !excluded.contains(&check.name())) {
            let outcome = check.run(replica).await;
            metrics::health_check(self.page, check.name(), outcome.is_ok());
            match outcome {
                Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name())),
                Err(error) => {
                    failed = true;
                    lines.push_str(&format!("[-]{} failed: {error}\n", check.name()));
                }
            }
        }
        if failed {
            tracing::warn!(path = self.page, reason = lines, "Health check error");
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("{lines}\n"));
        }
        let verbose = query.split('&').any(|it| it.split('=').next() == Some("verbose"));
        text(StatusCode::OK, if verbose { format!("{lines}ok\n") } else { "ok\n".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_have_exact_paths() {
        let names = |path| {
            Probe::find(path)
                .map(|it| it.checks.iter().map(|check| check.name()).collect::<Vec<_>>())
        };
        assert_eq!(names("/livez"), Some(vec!["serializable_read"]));
        assert_eq!(names("/readyz").map(|names| names.len()), Some(4));
        assert_eq!(names("/readyz/non_learner"), Some(vec!["non_learner"]));
        for path in
            ["/readyz/", "/livez/non_learner", "/livez/x", "/", "/ready", "/readyz/non_learner/"]
        {
            assert_eq!(names(path), None, "{path}");
        }
    }

    #[test]
    fn parameters_repeat() {
        let query = "exclude=a&verbose&exclude=b&x=exclude";
        assert_eq!(parameters(query, "exclude"), ["a", "b"]);
        assert_eq!(parameters(query, "verbose"), [""]);
    }
}
