//! role add, delete, get, list, grant-permission, revoke-permission.

use basalt_proto::authpb::Permission;
use basalt_proto::authpb::permission::Type;
use basalt_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse,
};
use bytes::Bytes;

use crate::Failure;
use crate::client::Client;
use crate::client::requests::prefix_end;
use crate::command::Context;
use crate::print::{Printed, Printer, auth, fields};
use gocompat::quote::quote;

/// # Errors
/// The server refused.
pub(crate) async fn add(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "role add command requires role name as its argument")?;
    let name = context.arg(0);
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/RoleAdd";
    let request = AuthRoleAddRequest { name: name.clone() };
    let answer: AuthRoleAddResponse = client.call(method, &request, None).await?;
    let printed = Printed::new("AuthRoleAddResponse", &answer, format!("Role {name} created\n"));
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// # Errors
/// The server refused.
pub(crate) async fn delete(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "role delete command requires role name as its argument")?;
    let role = context.arg(0);
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/RoleDelete";
    let request = AuthRoleDeleteRequest { role: role.clone() };
    let answer: AuthRoleDeleteResponse = client.call(method, &request, None).await?;
    let printed = Printed::new("AuthRoleDeleteResponse", &answer, format!("Role {role} deleted\n"));
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// # Errors
/// The server refused.
pub(crate) async fn get(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "role get command requires role name as its argument")?;
    let (client, printer) = context.connect().await?;
    show(&client, &printer, &context.arg(0)).await
}

/// Prints the permissions of a role.
///
/// # Errors
/// The server refused.
pub(crate) async fn show(client: &Client, printer: &Printer, name: &str) -> Result<(), Failure> {
    let method = "/etcdserverpb.Auth/RoleGet";
    let request = AuthRoleGetRequest { role: name.to_owned() };
    let answer: AuthRoleGetResponse = client.call(method, &request, None).await?;
    let mut printed = Printed::new("AuthRoleGetResponse", &answer, String::new());
    printed.simple = auth::role(name, &answer);
    printer.show(&printed.fields(auth::role_fields(&answer, printer.hex)))
}

/// # Errors
/// The server refused.
pub(crate) async fn list(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "role list command requires no arguments")?;
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/RoleList";
    let answer: AuthRoleListResponse = client.call(method, &AuthRoleListRequest {}, None).await?;
    let text = answer.roles.iter().map(|it| format!("{it}\n")).collect();
    let mut lines = fields::only_header(answer.header.as_ref(), printer.hex);
    let roles: String = answer.roles.iter().map(|it| format!(" {}", quote(it))).collect();
    lines.push_str(&format!("\"Roles\" :{roles}\n"));
    printer.show(&Printed::new("AuthRoleListResponse", &answer, text).fields(lines))
}

/// # Errors
/// The arguments are invalid, or the server refused.
pub(crate) async fn grant_permission(mut context: Context) -> Result<(), Failure> {
    if context.args().len() < 3 {
        let text = "role grant command requires role name, permission type, and key [endkey] as \
                    its argument";
        return Err(Failure::bad_args(text));
    }
    let (name, kind) = (context.arg(0), context.arg(1));
    let kind = Type::from_str_name(&kind.to_uppercase())
        .ok_or_else(|| Failure::bad_args(format!("invalid permission type: {kind}")))?;
    let (key, range_end) = range(&context, 2)?;
    let (client, printer) = context.connect().await?;
    let perm = Permission { perm_type: kind.into(), key, range_end };
    let method = "/etcdserverpb.Auth/RoleGrantPermission";
    let request = AuthRoleGrantPermissionRequest { name: name.clone(), perm: Some(perm) };
    let answer: AuthRoleGrantPermissionResponse = client.call(method, &request, None).await?;
    let text = format!("Role {name} updated\n");
    let printed = Printed::new("AuthRoleGrantPermissionResponse", &answer, text);
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// # Errors
/// The arguments are invalid, or the server refused.
pub(crate) async fn revoke_permission(mut context: Context) -> Result<(), Failure> {
    if context.args().len() < 2 {
        let text = "role revoke-permission command requires role name and key [endkey] as its \
                    argument";
        return Err(Failure::bad_args(text));
    }
    let role = context.arg(0);
    let (key, range_end) = range(&context, 1)?;
    let (client, printer) = context.connect().await?;
    let request =
        AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end: range_end.clone() };
    let method = "/etcdserverpb.Auth/RoleRevokePermission";
    let answer: AuthRoleRevokePermissionResponse = client.call(method, &request, None).await?;
    let key = context.args()[1].as_slice();
    let printed = match range_end.as_ref() {
        b"" => [b"key ", key].concat(),
        b"\0" => [b"range [", key, b", <open ended>"].concat(),
        end => [b"range [", key, b", ", end, b")"].concat(),
    };
    let text = [b"Permission of ", printed.as_slice(), b" is revoked from role ", role.as_bytes()];
    let mut printed = Printed::new("AuthRoleRevokePermissionResponse", &answer, String::new());
    printed.simple = [text.concat().as_slice(), b"\n"].concat();
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// The range named by the flags and the arguments from `at` on.
pub(crate) fn range(context: &Context, at: usize) -> Result<(Bytes, Bytes), Failure> {
    const END: Bytes = Bytes::from_static(b"\0");
    let (prefix, from_key) = (context.values.is_on("prefix"), context.values.is_on("from-key"));
    let key = Bytes::from(context.args()[at].clone());
    let exclusive = "--from-key and --prefix flags are mutually exclusive";
    let end = context.args().get(at + 1);
    if key.is_empty() {
        if prefix && from_key {
            return Err(Failure::bad_args(exclusive));
        }
        return Ok((END, if prefix || from_key { END } else { Bytes::new() }));
    }
    let refused = |text: &str| Err(Failure::bad_args(text));
    match end {
        None if prefix && from_key => refused(exclusive),
        None if prefix => Ok((key.clone(), prefix_end(&key))),
        None if from_key => Ok((key, END)),
        None => Ok((key, Bytes::new())),
        Some(_) if prefix => refused("unexpected endkey argument with --prefix flag"),
        Some(_) if from_key => refused("unexpected endkey argument with --from-key flag"),
        Some(end) => Ok((key, Bytes::from(end.clone()))),
    }
}
