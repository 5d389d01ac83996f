//! Members as clients shall see them: the proxies that registered under a prefix, or this one, instead of the members.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use basalt_proto::etcdserverpb::{Member, MemberListResponse};
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;
use tokio::time::sleep;

use super::codec::encode;
use super::kv::Kv;
use super::options::Options;
use super::register::{self, Update};
use crate::warn;

/// At most one attempt a second to follow the prefix.
const RETRY: Duration = Duration::from_secs(1);

/// The proxies.
pub(super) struct Cluster {
    /// This proxy's address; empty if the members shall be seen.
    advertised: String,
    /// Registered ones by their keys.
    proxies: Mutex<BTreeMap<Bytes, Update>>,
}

impl Cluster {
    pub(super) fn new(options: &Options) -> Arc<Self> {
        Arc::new(Self { advertised: options.advertised.clone(), proxies: Mutex::default() })
    }

    /// The list of members; none if that of the members themselves is meant.
    pub(super) fn members(&self) -> Option<Bytes> {
        if self.advertised.is_empty() {
            return None;
        }
        let member = |name: String, address: &str| Member {
            name,
            client_ur_ls: vec![address.to_owned()],
            ..Member::default()
        };
        let proxies = self.proxies.lock().expect("no holder panics");
        let mut members: Vec<Member> =
            proxies.values().map(|it| member(it.name(), &it.addr)).collect();
        if members.is_empty() {
            members.push(member(register::host_name(), &self.advertised));
        }
        Some(encode(&MemberListResponse { header: None, members }))
    }

    fn put(&self, key: Bytes, value: &[u8]) {
        match serde_json::from_slice(value) {
            Ok(update) => {
                self.proxies.lock().expect("no holder panics").insert(key, update);
            }
            Err(error) => {
                warn("endpoints/endpoints_impl.go:138", "unmarshal endpoint update failed")
                    .text("key", &String::from_utf8_lossy(&key))
                    .text("error", &error.to_string())
                    .write()
            }
        }
    }
}

/// Follows the proxies of a prefix: reads them all, then watches them.
pub(super) async fn follow_proxies(cluster: Arc<Cluster>, kv: Arc<Kv>, prefix: String) {
    loop {
        if let Err(status) = follow(&cluster, &kv, &prefix).await {
            warn("grpcproxy/cluster.go:97", "failed to establish endpoint watch")
                .text("prefix", &prefix)
                .text("error", status.message())
                .write();
        }
        sleep(RETRY).await;
    }
}

async fn follow(cluster: &Cluster, kv: &Kv, prefix: &str) -> Result<(), tonic::Status> {
    let mut follower = register::Follower::open(kv, &format!("{prefix}/")).await?;
    cluster.proxies.lock().expect("no holder panics").clear();
    for pair in follower.first.drain(..) {
        cluster.put(pair.key, &pair.value);
    }
    while let Some(events) = follower.next().await? {
        for event in events {
            let Some(pair) = event.kv else { continue };
            match event.r#type == EventType::Put as i32 {
                true => cluster.put(pair.key, &pair.value),
                false => {
                    cluster.proxies.lock().expect("no holder panics").remove(&pair.key);
                }
            }
        }
    }
    Ok(())
}
