//! Requests that are refused for two reasons at once: etcd's comes first.

use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, PutRequest, PutResponse, RequestOp, TxnRequest,
    TxnResponse, alarm_request, request_op,
};
use tonic::Status;

use super::{Administrator, login};
use crate::compare::runtime;
use crate::process::{self, Server, Setup};
use crate::wire::{self, Wire};

const REQUEST_BYTES_MAX: usize = 16_384;

fn outcome<T>(result: Result<T, Status>) -> String {
    match result {
        Ok(_) => "OK".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn put(key: &str, bytes: usize) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: vec![b'x'; bytes].into(), ..Default::default() }
}

/// Puts and transactions, small and too large, of keys that the user may write and may not.
async fn tried(wire: &Wire, told: &mut Vec<String>) {
    for key in ["own", "other"] {
        for bytes in [10, REQUEST_BYTES_MAX - 500, REQUEST_BYTES_MAX + 500, 1 << 20] {
            let put = put(key, bytes);
            let answer = wire.ask::<_, PutResponse>(wire::PUT, &put).await;
            told.push(format!("put {key} {bytes} {}", outcome(answer)));
            let request = Some(request_op::Request::RequestPut(put));
            let txn = TxnRequest { success: vec![RequestOp { request }], ..Default::default() };
            let answer = wire.ask::<_, TxnResponse>(wire::TXN, &txn).await;
            told.push(format!("txn {key} {bytes} {}", outcome(answer)));
        }
    }
}

async fn conversation(server: &Server) -> Vec<String> {
    let wire = Wire::new(&server.endpoint());
    let administrator = Administrator(wire.clone());
    administrator.user("u", "pw").await;
    administrator.role("r", &[(Type::Readwrite, "own", "")]).await;
    administrator.give("u", "r").await;
    administrator.enable("pw").await;
    let user = login(&wire, "u", "pw").await.expect("the password is right");
    let root = login(&wire, "root", "pw").await.expect("the password is right");
    let identities = [
        wire.clone(),
        wire.clone().with_token("nonsense"),
        wire.clone().with_token(&user),
        wire.clone().with_token(&root),
    ];
    let mut told = Vec::new();
    for wire in &identities {
        tried(wire, &mut told).await;
    }
    for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
        let action = alarm_request::AlarmAction::Activate as i32;
        let raise = AlarmRequest { action, alarm: alarm as i32, ..Default::default() };
        let raised = identities[3].ask::<_, AlarmResponse>(wire::ALARM, &raise).await;
        raised.expect("root may");
        for wire in &identities {
            tried(wire, &mut told).await;
        }
    }
    told
}

#[test]
fn sizes_and_alarms_are_refused_before_users_as_by_etcd() {
    runtime().block_on(async {
        let [own, other] = [process::basalt(), process::etcd()].map(|binary| {
            let setup = Setup::new(binary).flag("bcrypt-cost", "4");
            setup.flag("max-request-bytes", &REQUEST_BYTES_MAX.to_string()).start()
        });
        let (own, other) = tokio::join!(conversation(&own), conversation(&other));
        for (own, other) in own.iter().zip(&other) {
            assert_eq!(own, other, "Basalt on the left, etcd on the right");
        }
    });
}
