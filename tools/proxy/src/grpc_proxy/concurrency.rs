//! Locks and elections: the namespace in their names and keys. etcd's proxy leaves them outside of it.

use basalt_proto::rpc::{Rpc, Streaming, Unary};
use basalt_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ResignRequest,
};
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::codec::{decode, encode};
use super::namespace::Namespace;

fn changed<M: Message + Default>(
    message: Bytes,
    change: impl FnOnce(&mut M),
) -> Result<Bytes, Status> {
    let mut message: M = decode(message)?;
    change(&mut message);
    Ok(encode(&message))
}

/// The request as the members shall see it; others than those of locks and elections are as they were.
///
/// # Errors
/// It is malformed.
pub(super) fn to_member(namespace: &Namespace, rpc: Rpc, message: Bytes) -> Result<Bytes, Status> {
    if namespace.is_empty() {
        return Ok(message);
    }
    let of_leader = |leader: &mut Option<LeaderKey>| {
        if let Some(leader) = leader {
            leader.name = namespace.key(&leader.name);
            leader.key = namespace.key(&leader.key);
        }
    };
    match rpc {
        Rpc::Unary(Unary::Lock) => {
            changed(message, |it: &mut LockRequest| it.name = namespace.key(&it.name))
        }
        Rpc::Unary(Unary::LockUnlock) => {
            changed(message, |it: &mut UnlockRequest| it.key = namespace.key(&it.key))
        }
        Rpc::Unary(Unary::ElectionCampaign) => {
            changed(message, |it: &mut CampaignRequest| it.name = namespace.key(&it.name))
        }
        Rpc::Unary(Unary::ElectionProclaim) => {
            changed(message, |it: &mut ProclaimRequest| of_leader(&mut it.leader))
        }
        Rpc::Unary(Unary::ElectionResign) => {
            changed(message, |it: &mut ResignRequest| of_leader(&mut it.leader))
        }
        Rpc::Unary(Unary::ElectionLeader) | Rpc::Streaming(Streaming::ElectionObserve) => {
            changed(message, |it: &mut LeaderRequest| it.name = namespace.key(&it.name))
        }
        Rpc::Unary(_) | Rpc::Streaming(_) => Ok(message),
    }
}

/// The response as the client shall see it.
///
/// # Errors
/// It is malformed.
pub(super) fn to_client(namespace: &Namespace, rpc: Rpc, message: Bytes) -> Result<Bytes, Status> {
    if namespace.is_empty() {
        return Ok(message);
    }
    match rpc {
        Rpc::Unary(Unary::Lock) => {
            changed(message, |it: &mut LockResponse| namespace.strip(&mut it.key))
        }
        Rpc::Unary(Unary::ElectionCampaign) => changed(message, |it: &mut CampaignResponse| {
            if let Some(leader) = &mut it.leader {
                namespace.strip(&mut leader.name);
                namespace.strip(&mut leader.key);
            }
        }),
        Rpc::Unary(Unary::ElectionLeader) | Rpc::Streaming(Streaming::ElectionObserve) => {
            changed(message, |it: &mut LeaderResponse| namespace.strip_pair(it.kv.as_mut()))
        }
        Rpc::Unary(_) | Rpc::Streaming(_) => Ok(message),
    }
}
