//! Public reports and advisories about TLS and users, replayed: on a real etcd too where it can be asked. `README.md` has the
//! table of all of them, and of the tests that replay the others.

mod advisories;
mod certificates;
mod leases;
mod snapshots;
mod streams;
mod tokens;
mod watches;
mod websockets;

use basalt_proto::etcdserverpb::{AuthDisableRequest, AuthDisableResponse};
use basalt_proto::etcdserverpb::{AuthEnableRequest, AuthEnableResponse};

use crate::process::PATIENCE;
use crate::wire::Wire;

const USER_CHANGE_PASSWORD: &str = "/etcdserverpb.Auth/UserChangePassword";

/// Switches auth off, as root.
async fn disable_auth(root: &Wire) {
    let path = "/etcdserverpb.Auth/AuthDisable";
    let disabled = root.ask::<_, AuthDisableResponse>(path, &AuthDisableRequest {}).await;
    disabled.expect("root may");
}

async fn enable_auth(wire: &Wire) {
    let path = "/etcdserverpb.Auth/AuthEnable";
    let enabled = wire.ask::<_, AuthEnableResponse>(path, &AuthEnableRequest {}).await;
    enabled.expect("there is a root");
}
