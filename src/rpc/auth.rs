//! `etcdserverpb.Auth`. Changes of users and roles are decided by all members at an entry's index; reads of them use the
//! published state after a read index, which is as good as going through the log.

use basalt_proto::authpb::Permission;
use std::time::Duration;

use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse, ResponseHeader,
};
use basalt_proto::server::etcdserverpb::auth_server;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tonic::{Request, Response, Status, async_trait};

use super::credentials::Credentials;
use super::login::{ClientAddress, authenticate, host};
use super::{header, mismatch, status};
use crate::actors::ReplicaClient;
use crate::auth::{Capability, Permissions, Principal, ROOT};
use crate::command::{AuthCommand, Command};
use crate::io::{PasswordError, clock};
use crate::machine::Reply;
use crate::types::{FeatureLevel, Refusal};

/// How long a change waits until all members know of users and roles, in ms, and how often it looks.
const LEVEL_WAIT_MS_MAX: u64 = 3000;
const LEVEL_LOOK: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(super) struct Auth(pub(super) ReplicaClient);

impl Auth {
    /// Proposes a change.
    async fn change<Q>(
        &self,
        request: Request<Q>,
        command: fn(Q) -> AuthCommand,
    ) -> Result<Option<ResponseHeader>, Status> {
        let credentials = Credentials::of(&request);
        self.propose(&credentials, command(request.into_inner())).await
    }

    async fn propose(
        &self,
        credentials: &Credentials,
        command: AuthCommand,
    ) -> Result<Option<ResponseHeader>, Status> {
        self.await_level().await;
        let reply = credentials.propose(&self.0, Command::Auth(command)).await?;
        if reply == Reply::Done { Ok(header(&self.0)) } else { Err(mismatch()) }
    }

    /// Gives members that have just started the time to agree on the feature level. Without it, the first requests to a new
    /// cluster would be refused.
    async fn await_level(&self) {
        let until_ms = clock::now_ms() + LEVEL_WAIT_MS_MAX;
        while self.0.state().feature_level < FeatureLevel::AUTH && clock::now_ms() < until_ms {
            clock::sleep(LEVEL_LOOK).await;
        }
    }

    /// Waits until the published state shows all that was acknowledged, and checks by it.
    async fn read(
        &self,
        credentials: &Credentials,
        check: impl Fn(&Permissions, Option<Principal<'_>>) -> Result<(), Refusal>,
    ) -> Result<(), Status> {
        self.0.read_index().await.map_err(status)?;
        credentials.require(&self.0, check).await.map(drop).map_err(status)
    }

    /// The hash that an entry holds instead of a password. The permission of the caller is checked before: the hash takes long.
    async fn hash(
        &self,
        credentials: &Credentials,
        user: &str,
        password: String,
    ) -> Result<String, Status> {
        let check = credentials.require_linearizable(&self.0, Permissions::check_root);
        check.await.map_err(status)?;
        match self.0.passwords().hash(user, password).await {
            Ok(hash) => Ok(BASE64_STANDARD.encode(hash)),
            Err(PasswordError::TooLong) => Err(status(Refusal::PasswordTooLong)),
            Err(PasswordError::Busy) => Err(status(Refusal::TooManyAnswers)),
        }
    }
}

/// A role's permissions. Root's are not kept, and are all there are.
fn permissions_of(permissions: &Permissions, role: &str) -> Result<Vec<Permission>, Refusal> {
    let found = permissions.role(role).ok_or(Refusal::RoleNotFound)?;
    if role != ROOT {
        return Ok(found.permissions().to_vec());
    }
    let (key, range_end) = (Bytes::new(), Bytes::from_static(b"\0"));
    Ok(vec![Permission { perm_type: Type::Readwrite as i32, key, range_end }])
}

#[async_trait]
impl auth_server::Auth for Auth {
    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        self.read(&Credentials::of(&request), |_, _| Ok(())).await?;
        let (enabled, auth_revision) =
            self.0.with_permissions(|it| (it.is_enabled(), it.revision()));
        Ok(Response::new(AuthStatusResponse { header: header(&self.0), enabled, auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let address = request.extensions().get::<ClientAddress>().cloned();
        let address = address.as_ref().map_or("", |ClientAddress(address)| host(address));
        let token = authenticate(&self.0, request.get_ref(), address).await?;
        Ok(Response::new(AuthenticateResponse { header: header(&self.0), token }))
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let credentials = Credentials::of(&request);
        let mut add = request.into_inner();
        // No password is ever in an entry, wanted or not.
        let password = std::mem::take(&mut add.password);
        add.hashed_password = match add.options.is_some_and(|options| options.no_password) {
            true => String::new(),
            false => self.hash(&credentials, &add.name, password).await?,
        };
        let header = self.propose(&credentials, AuthCommand::UserAdd(add)).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let credentials = Credentials::of(&request);
        let mut change = request.into_inner();
        let password = std::mem::take(&mut change.password);
        if !password.is_empty() {
            change.hashed_password = self.hash(&credentials, &change.name, password).await?;
        }
        let header = self.propose(&credentials, AuthCommand::UserChangePassword(change)).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        let credentials = Credentials::of(&request);
        let name = request.into_inner().name;
        self.read(&credentials, |it, who| it.check_user_get(who, &name)).await?;
        let roles = self.0.with_permissions(|it| it.user(&name).map(|user| user.roles().to_vec()));
        let roles = roles.ok_or_else(|| status(Refusal::UserNotFound))?;
        Ok(Response::new(AuthUserGetResponse { header: header(&self.0), roles }))
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let credentials = Credentials::of(&request);
        self.read(&credentials, |it, who| it.check_capability(who, Capability::ReadAuth)).await?;
        let users = self.0.with_permissions(|it| it.user_names().map(str::to_owned).collect());
        Ok(Response::new(AuthUserListResponse { header: header(&self.0), users }))
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        let credentials = Credentials::of(&request);
        let role = request.into_inner().role;
        self.read(&credentials, |it, who| it.check_role_get(who, &role)).await?;
        let perm = self.0.with_permissions(|it| permissions_of(it, &role)).map_err(status)?;
        Ok(Response::new(AuthRoleGetResponse { header: header(&self.0), perm }))
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let credentials = Credentials::of(&request);
        self.read(&credentials, |it, who| it.check_capability(who, Capability::ReadAuth)).await?;
        let roles = self.0.with_permissions(|it| it.role_names().map(str::to_owned).collect());
        Ok(Response::new(AuthRoleListResponse { header: header(&self.0), roles }))
    }

    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        let header = self.change(request, AuthCommand::Enable).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let header = self.change(request, AuthCommand::Disable).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let header = self.change(request, AuthCommand::UserDelete).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let header = self.change(request, AuthCommand::UserGrantRole).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let header = self.change(request, AuthCommand::UserRevokeRole).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        let header = self.change(request, AuthCommand::RoleAdd).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let header = self.change(request, AuthCommand::RoleDelete).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let header = self.change(request, AuthCommand::RoleGrantPermission).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let header = self.change(request, AuthCommand::RoleRevokePermission).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}
