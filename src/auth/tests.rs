//! Users and roles over the store in memory: facts, and two models with seeds.

mod facts;
mod model;
mod ranges;

use basalt_proto::authpb::permission::Type;
use basalt_proto::authpb::{Permission, UserAddOptions};
use basalt_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest,
};
use bytes::Bytes;

use super::*;
use crate::store::{Engine as _, Memory, MemoryView, Overlay};
use crate::types::Refusal;

/// `hash` in base64.
const HASH: &str = "aGFzaA==";

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Users and roles, and the store under them.
struct Bench {
    auth: Auth,
    engine: Memory,
    tx: Overlay<MemoryView>,
}

type Outcome = Result<Option<Change>, Refusal>;

impl Bench {
    fn new() -> Self {
        let engine = Memory::default();
        let auth = Auth::open(&engine.view(), true).expect("an empty store reads");
        Self { auth, tx: Overlay::new(engine.view()), engine }
    }

    /// The state after a restart.
    fn reopened(&mut self) -> Permissions {
        self.engine.commit(self.tx.take()).expect("memory takes it");
        self.tx.rebase(self.engine.view());
        let auth = Auth::open(&self.engine.view(), true).expect("it reads back");
        Permissions::clone(auth.permissions())
    }

    fn user(&mut self, name: &str) -> Outcome {
        let (name, hashed_password) = (name.to_owned(), HASH.to_owned());
        let add = AuthUserAddRequest { name, hashed_password, ..AuthUserAddRequest::default() };
        self.auth.user_add(&mut self.tx, &add)
    }

    fn user_without_password(&mut self, name: &str) -> Outcome {
        let options = Some(UserAddOptions { no_password: true });
        let add = AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() };
        self.auth.user_add(&mut self.tx, &add)
    }

    fn delete_user(&mut self, name: &str) -> Outcome {
        self.auth.user_delete(&mut self.tx, name)
    }

    fn password(&mut self, name: &str, hashed_password: &str) -> Outcome {
        let (name, hashed_password) = (name.to_owned(), hashed_password.to_owned());
        let change = AuthUserChangePasswordRequest { name, hashed_password, ..Default::default() };
        self.auth.user_change_password(&mut self.tx, &change)
    }

    fn role(&mut self, name: &str) -> Outcome {
        self.auth.role_add(&mut self.tx, name)
    }

    fn delete_role(&mut self, name: &str) -> Outcome {
        self.auth.role_delete(&mut self.tx, name)
    }

    fn give(&mut self, user: &str, role: &str) -> Outcome {
        self.auth.user_grant_role(&mut self.tx, user, role)
    }

    fn take(&mut self, user: &str, role: &str) -> Outcome {
        self.auth.user_revoke_role(&mut self.tx, user, role)
    }

    fn grant(&mut self, role: &str, kind: Type, key: &[u8], end: &[u8]) -> Outcome {
        let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end));
        let perm = Some(Permission { perm_type: kind as i32, key, range_end });
        let grant = AuthRoleGrantPermissionRequest { name: role.to_owned(), perm };
        self.auth.role_grant_permission(&mut self.tx, &grant)
    }

    fn revoke(&mut self, role: &str, key: &[u8], end: &[u8]) -> Outcome {
        let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end));
        let revoke = AuthRoleRevokePermissionRequest { role: role.to_owned(), key, range_end };
        self.auth.role_revoke_permission(&mut self.tx, &revoke)
    }

    fn enable(&mut self) -> Outcome {
        self.auth.enable(&mut self.tx)
    }

    fn disable(&mut self) -> Outcome {
        self.auth.disable(&mut self.tx)
    }

    fn revision(&self) -> u64 {
        self.auth.permissions().revision()
    }

    /// Root, and auth on.
    fn enabled() -> Self {
        let mut bench = Self::new();
        bench.user(ROOT).expect("a user");
        bench.give(ROOT, ROOT).expect("a role");
        bench.enable().expect("root is there");
        bench
    }
}

/// Somebody at the newest revision there can be.
fn somebody(user: &str) -> Option<Principal<'_>> {
    Some(Principal { user, revision: u64::MAX })
}
