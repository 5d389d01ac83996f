//! Users and roles beside a real etcd: permissions, texts and codes of refusals, and snapshots that carry users and roles both ways.

mod can_i;
mod cluster;
mod histories;
mod matrix;
mod order;
mod shapes;
mod snapshots;

use std::time::Duration;

use basalt_proto::authpb::permission::Type;
use basalt_proto::authpb::{Permission, UserAddOptions};
use basalt_proto::etcdserverpb::{
    AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse,
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthenticateRequest,
    AuthenticateResponse,
};
use tonic::Status;

use crate::wire::Wire;

const USER_ADD: &str = "/etcdserverpb.Auth/UserAdd";
const USER_GRANT_ROLE: &str = "/etcdserverpb.Auth/UserGrantRole";
const ROLE_ADD: &str = "/etcdserverpb.Auth/RoleAdd";
const ROLE_GRANT_PERMISSION: &str = "/etcdserverpb.Auth/RoleGrantPermission";
const AUTH_ENABLE: &str = "/etcdserverpb.Auth/AuthEnable";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The requests of a test that changes users and roles.
pub(crate) struct Administrator(pub(crate) Wire);

impl Administrator {
    pub(crate) async fn user(&self, name: &str, password: &str) {
        let options = password.is_empty().then_some(UserAddOptions { no_password: true });
        let (name, password) = (name.to_owned(), password.to_owned());
        let add = AuthUserAddRequest { name, password, options, ..Default::default() };
        self.0.ask::<_, AuthUserAddResponse>(USER_ADD, &add).await.expect("a new user");
    }

    pub(crate) async fn role(&self, name: &str, granted: &[(Type, &str, &str)]) {
        let add = AuthRoleAddRequest { name: name.to_owned() };
        self.0.ask::<_, AuthRoleAddResponse>(ROLE_ADD, &add).await.expect("a new role");
        for (kind, key, end) in granted {
            let (key, range_end) = ((*key).to_owned().into(), (*end).to_owned().into());
            let perm = Some(Permission { perm_type: *kind as i32, key, range_end });
            let grant = AuthRoleGrantPermissionRequest { name: name.to_owned(), perm };
            let path = ROLE_GRANT_PERMISSION;
            let granted = self.0.ask::<_, AuthRoleGrantPermissionResponse>(path, &grant).await;
            granted.expect("a permission");
        }
    }

    pub(crate) async fn give(&self, user: &str, role: &str) {
        let grant = AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        let granted = self.0.ask::<_, AuthUserGrantRoleResponse>(USER_GRANT_ROLE, &grant).await;
        granted.expect("a role");
    }

    /// Root with a password, and auth on.
    pub(crate) async fn enable(&self, password: &str) {
        self.user("root", password).await;
        self.role("root", &[]).await;
        self.give("root", "root").await;
        let request = AuthEnableRequest {};
        let enabled = self.0.ask::<_, AuthEnableResponse>(AUTH_ENABLE, &request).await;
        enabled.expect("auth is on");
    }
}

/// A token for a password.
pub(crate) async fn login(wire: &Wire, name: &str, password: &str) -> Result<String, Status> {
    let (name, password) = (name.to_owned(), password.to_owned());
    let request = AuthenticateRequest { name, password };
    let answer: AuthenticateResponse = wire.ask(AUTHENTICATE, &request).await?;
    Ok(answer.token)
}
