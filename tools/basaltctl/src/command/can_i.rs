//! auth can-i: whether a user may read or write keys, as the server's roles say. Not etcdctl's.

use basalt_proto::authpb::Permission;
use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AuthRoleGetRequest, AuthRoleGetResponse, AuthUserGetRequest, AuthUserGetResponse,
};

use crate::Failure;
use crate::command::{Context, role};
use crate::exit;
use crate::print::out;

/// The role that may do everything.
const ROOT: &str = "root";

/// # Errors
/// The arguments make no sense, the server refused, or the answer is no.
pub(crate) async fn can_i(mut context: Context) -> Result<(), Failure> {
    if !(3..=4).contains(&context.args().len()) {
        let text = "auth can-i command requires user name, permission type, and key [endkey] as \
                    its argument";
        return Err(Failure::bad_args(text));
    }
    let (name, kind) = (context.arg(0), context.arg(1));
    let kind = Type::from_str_name(&kind.to_uppercase())
        .ok_or_else(|| Failure::bad_args(format!("invalid permission type: {kind}")))?;
    let (key, end) = role::range(&context, 2)?;
    let (client, _) = context.connect().await?;
    let deadline = client.deadline();
    let method = "/etcdserverpb.Auth/UserGet";
    let user: AuthUserGetResponse =
        client.call(method, &AuthUserGetRequest { name }, deadline).await?;
    let mut granted = Vec::new();
    let is_root = user.roles.iter().any(|role| role == ROOT);
    for role in user.roles.into_iter().filter(|_| !is_root) {
        let method = "/etcdserverpb.Auth/RoleGet";
        let request = AuthRoleGetRequest { role };
        match client.call::<_, AuthRoleGetResponse>(method, &request, deadline).await {
            Ok(role) => granted.extend(role.perm),
            // A role for operators, which grants no keys.
            Err(it) if it.status.message() == "etcdserver: role name not found" => (),
            Err(refusal) => return Err(refusal.into()),
        }
    }
    let kinds = match kind {
        Type::Readwrite => &[Type::Read, Type::Write][..],
        Type::Read => &[Type::Read],
        Type::Write => &[Type::Write],
    };
    let may = is_root || kinds.iter().all(|kind| covers(&granted, *kind, &key, &end));
    out::line(if may { "yes" } else { "no" });
    if may { Ok(()) } else { Err(Failure::silent(exit::ERROR)) }
}

/// True if permissions cover all keys from `key` to `range_end` together.
fn covers(granted: &[Permission], kind: Type, key: &[u8], range_end: &[u8]) -> bool {
    let is_of_kind = |it: &&Permission| {
        let granted = it.perm_type();
        granted == kind || granted == Type::Readwrite
    };
    let granted: Vec<_> = granted.iter().filter(is_of_kind).collect();
    let is_open = range_end == [0];
    let is_point = !is_open && range_end <= key;
    let mut at = key.to_vec();
    loop {
        let ends = granted.iter().filter(|it| it.key[..] <= at[..]).filter_map(|it| {
            match &it.range_end[..] {
                [] => (it.key[..] == at[..]).then(|| Some([&at[..], &[0]].concat())),
                [0] => Some(None),
                end => (at[..] < *end).then(|| Some(end.to_vec())),
            }
        });
        let ends: Vec<_> = ends.collect();
        if ends.contains(&None) {
            return true;
        }
        match ends.into_iter().flatten().max() {
            None => return false,
            Some(_) if is_point => return true,
            Some(end) if !is_open && range_end <= &end[..] => return true,
            Some(end) => at = end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(kind: Type, key: &'static str, end: &'static str) -> Permission {
        Permission { perm_type: kind as i32, key: key.into(), range_end: end.into() }
    }

    #[test]
    fn permissions_that_touch_cover_what_is_between_them() {
        let all = [
            granted(Type::Read, "a", "b"),
            granted(Type::Readwrite, "b", "c"),
            granted(Type::Read, "c", ""),
            granted(Type::Write, "x", "\0"),
        ];
        let may = |kind, key: &str, end: &str| covers(&all, kind, key.as_bytes(), end.as_bytes());
        assert!(
            may(Type::Read, "a", "c") && may(Type::Read, "a", "c\0") && may(Type::Read, "b", "")
        );
        assert!(!may(Type::Read, "a", "d") && !may(Type::Read, "a", "\0"));
        assert!(may(Type::Write, "b", "") && may(Type::Write, "y", "\0"));
        assert!(!may(Type::Write, "a", "") && !may(Type::Write, "b", "\0"));
    }
}
