//! `etcdserverpb.Maintenance`.

use std::time::Duration;

use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::etcdserverpb::downgrade_request::DowngradeAction;
use basalt_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use basalt_proto::server::etcdserverpb::maintenance_server;
use bytes::Bytes;
use futures_lite::stream::unfold;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Response, Status, async_trait};

use super::budget::Reservation;
use super::credentials::Credentials;
use super::{Answers, header, is_learner, not_yet, refused, require_leader, status};
use crate::actors::{ReplicaClient, State};
use crate::auth::Capability;
use crate::cluster::Version;
use crate::command::Command;
use crate::io::clock::Instant;
use crate::io::{self, Piece};
use crate::machine::Reply;
use crate::metrics;
use crate::snapshot::Scope;
use crate::types::limits::SNAPSHOT_CHUNKS_AHEAD;
use crate::types::{Error, Fault, Refusal};

/// How long an answer to `Defragment` may take, of the 5 s that etcdctl waits for it.
const DEFRAGMENT_PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of one message of a snapshot, as etcd's.
const SNAPSHOT_CHUNK_BYTES: usize = 32 << 10;

#[derive(Clone)]
pub(super) struct Maintenance(pub(super) ReplicaClient);

/// An alarm as etcd prints it.
fn alarm_text(alarm: &AlarmMember) -> String {
    let id = alarm.member_id;
    match alarm.alarm() {
        AlarmType::None => format!("memberID:{id}"),
        AlarmType::Nospace => format!("memberID:{id} alarm:NOSPACE"),
        AlarmType::Corrupt => format!("memberID:{id} alarm:CORRUPT"),
    }
}

/// The alarms that were listed, and NOSPACE for full disks if requested.
fn with_full_disks(
    mut listed: Vec<AlarmMember>,
    active: Vec<AlarmMember>,
    asked: &AlarmRequest,
) -> Vec<AlarmMember> {
    let is_wanted = |it: &AlarmMember| {
        (asked.alarm() == AlarmType::None || it.alarm == asked.alarm)
            && (asked.member_id == 0 || it.member_id == asked.member_id)
    };
    let full = active.into_iter().filter(is_wanted).filter(|it| it.alarm() == AlarmType::Nospace);
    for alarm in full {
        if !listed.contains(&alarm) {
            listed.push(alarm);
        }
    }
    listed.sort_by_key(|alarm| (alarm.alarm, alarm.member_id));
    listed
}

/// The version of the store, which follows the cluster version; empty until that is decided.
fn storage_version(state: &State) -> String {
    let version = state.cluster_version.map(Version::storage);
    version.map(|version| version.to_string()).unwrap_or_default()
}

#[async_trait]
impl maintenance_server::Maintenance for Maintenance {
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let credentials = Credentials::of(&request);
        let asked = request.into_inner();
        match asked.action() {
            AlarmAction::Get => drop(credentials.require_any_user(&self.0).await?),
            AlarmAction::Activate | AlarmAction::Deactivate => {
                credentials.require_capability(&self.0, Capability::Alarm).await?;
            }
        }
        let request = Command::Alarm(asked);
        let Reply::Alarm(mut alarms) = credentials.propose(&self.0, request).await? else {
            return Err(Status::internal("unexpected reply"));
        };
        if asked.action() == AlarmAction::Get {
            alarms = with_full_disks(alarms, self.0.alarms(), &asked);
        }
        Ok(Response::new(AlarmResponse { header: header(&self.0), alarms }))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Credentials::of(&request).require_any_user(&self.0).await?;
        let (now, state, node) = (self.0.status(), self.0.state(), self.0.node());
        let mut errors = Vec::new();
        if now.leader == 0 {
            errors.push(Refusal::NoLeader.text().to_owned());
        }
        errors.extend(self.0.alarms().iter().map(alarm_text));
        Ok(Response::new(StatusResponse {
            header: header(&self.0),
            version: Version::SERVER.to_string(),
            db_size: state.disk_bytes as i64,
            leader: now.leader,
            raft_index: now.committed,
            raft_term: now.term,
            raft_applied_index: now.applied,
            errors,
            db_size_in_use: state.bytes_in_use() as i64,
            is_learner: is_learner(&self.0),
            storage_version: storage_version(&state),
            db_size_quota: node.quota_bytes as i64,
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Credentials::of(&request).require_capability(&self.0, Capability::Defragment).await?;
        self.0.defragment(DEFRAGMENT_PATIENCE).await;
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        Credentials::of(&request).require_root(&self.0).await?;
        let began = Instant::now();
        let hash = self.0.hash().await.map_err(|fault| refused(Error::Faulty(fault)))?;
        metrics::HASH.observe(began.elapsed().as_secs_f64());
        Ok(Response::new(HashResponse { header: header(&self.0), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        Credentials::of(&request).require_capability(&self.0, Capability::HashKv).await?;
        let began = Instant::now();
        let found = self.0.hash_kv(request.into_inner().revision).await.map_err(refused)?;
        metrics::HASH_KV.observe(began.elapsed().as_secs_f64());
        Ok(Response::new(HashKvResponse {
            header: header(&self.0),
            hash: found.hash,
            compact_revision: found.compact_revision,
            hash_revision: found.revision,
        }))
    }

    type SnapshotStream = Answers<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Credentials::of(&request).require_capability(&self.0, Capability::Snapshot).await?;
        let sending = Sending::new(&self.0.state()).await?;
        let stream = unfold(Some(sending), |sending| async {
            let mut sending = sending?;
            match sending.next().await {
                Ok((response, done)) => Some((Ok(response), (!done).then_some(sending))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(require_leader(&self.0, request.metadata(), stream)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Credentials::of(&request).require_capability(&self.0, Capability::MoveLeader).await?;
        let target = request.into_inner().target_id;
        let (state, leader) = (self.0.state(), self.0.status().leader);
        if leader != self.0.node().member_id {
            return Err(status(Refusal::NotLeader));
        }
        if !state.members.iter().any(|member| member.id == target && !member.is_learner) {
            return Err(status(Refusal::BadLeaderTransferee));
        }
        match target == leader {
            true => Ok(Response::new(MoveLeaderResponse::default())),
            false => {
                self.0.move_leader(target).await.map_err(status)?;
                Ok(Response::new(MoveLeaderResponse::default()))
            }
        }
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        Credentials::of(&request).require_root(&self.0).await?;
        let request = request.into_inner();
        let state = self.0.state();
        let current = state.cluster_version;
        let action = DowngradeAction::try_from(request.action)
            .map_err(|_| status(Refusal::UnknownMethod))?;
        match action {
            DowngradeAction::Validate | DowngradeAction::Enable => {
                let wanted = Version::read_minor(&request.version)
                    .ok_or_else(|| status(Refusal::WrongDowngradeVersionFormat))?;
                let current = current.ok_or_else(|| status(Refusal::ClusterVersionUnavailable))?;
                let next = Version { minor: wanted.minor + 1, ..wanted };
                if next != current {
                    return Err(status(Refusal::InvalidDowngradeTargetVersion));
                }
                if action == DowngradeAction::Enable {
                    return Err(not_yet("downgrades"));
                }
            }
            // etcd only logs that there is nothing to cancel.
            DowngradeAction::Cancel => (),
        }
        let version = current.map(Version::short).unwrap_or_default();
        Ok(Response::new(DowngradeResponse { header: header(&self.0), version }))
    }
}

/// A snapshot being sent: the bytes of the file, then their checksum.
struct Sending {
    pieces: flume::Receiver<Result<Piece, Fault>>,
    storage_version: String,
    sum: Sha256,
    sent: u64,
    began: Instant,
    /// Few chunks at a time are in flight: the next are made when HTTP/2 and the budget have capacity for them.
    taken: Reservation,
}

impl Sending {
    async fn new(state: &State) -> Result<Self, Status> {
        let mut taken = Reservation::new();
        taken.hold(SNAPSHOT_CHUNKS_AHEAD * SNAPSHOT_CHUNK_BYTES).await.map_err(status)?;
        let pieces = io::export(state.read.view.clone(), Scope::File, SNAPSHOT_CHUNK_BYTES);
        let storage_version = storage_version(state);
        let began = Instant::now();
        Ok(Self { pieces, storage_version, sum: Sha256::new(), sent: 0, began, taken })
    }

    /// The next message, and true if it is the last.
    async fn next(&mut self) -> Result<(SnapshotResponse, bool), Status> {
        match self.pieces.recv_async().await {
            Ok(piece) => {
                let piece = piece.map_err(|fault| refused(Error::Faulty(fault)))?;
                // A large value is in memory as a whole.
                let ahead = SNAPSHOT_CHUNKS_AHEAD * SNAPSHOT_CHUNK_BYTES;
                self.taken.hold(ahead + piece.held).await.map_err(status)?;
                Ok((self.chunk(piece), false))
            }
            Err(flume::RecvError::Disconnected) => Ok((self.checksum(), true)),
        }
    }

    fn chunk(&mut self, piece: Piece) -> SnapshotResponse {
        let (blob, total_bytes) = (piece.bytes, piece.file_bytes);
        if self.sent == 0 {
            let storage_version = &self.storage_version;
            tracing::info!(total_bytes, storage_version, "sending database snapshot to client");
        }
        self.sum.update(&blob);
        self.sent += blob.len() as u64;
        let version = self.storage_version.clone();
        SnapshotResponse { header: None, remaining_bytes: total_bytes - self.sent, blob, version }
    }

    fn checksum(&mut self) -> SnapshotResponse {
        let blob = Bytes::copy_from_slice(&self.sum.finalize_reset());
        metrics::STORE_SNAPSHOT.observe(self.began.elapsed().as_secs_f64());
        let (total_bytes, storage_version) = (self.sent, &self.storage_version);
        tracing::info!(
            total_bytes,
            storage_version,
            "successfully sent database snapshot to client"
        );
        let version = self.storage_version.clone();
        SnapshotResponse { header: None, remaining_bytes: 0, blob, version }
    }
}
