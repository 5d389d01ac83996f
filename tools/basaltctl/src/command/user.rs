//! user add, delete, get, list, passwd, grant-role, revoke-role. They wait for a response without a
//! timeout, as etcdctl's do.

use basalt_proto::authpb::UserAddOptions;
use basalt_proto::etcdserverpb::{
    AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
};

use crate::Failure;
use crate::client::password;
use crate::command::{Context, role};
use crate::print::{Printed, fields, out};

/// # Errors
/// No password, or the server refused.
pub(crate) async fn add(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "user add command requires user name as its argument")?;
    let argument = context.arg(0);
    let no_password = context.values.is_on("no-password");
    let from_flag = context.values.text("new-user-password").to_owned();
    let (name, password) = match argument.split_once(':') {
        _ if no_password => (argument.clone(), String::new()),
        _ if !from_flag.is_empty() => (argument.clone(), from_flag),
        Some(("", _)) => return Err(Failure::bad_args("empty user name is not allowed")),
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => (argument.clone(), new_password(&context, &argument)?),
    };
    let (client, printer) = context.connect().await?;
    let request = AuthUserAddRequest {
        name: name.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        ..AuthUserAddRequest::default()
    };
    let method = "/etcdserverpb.Auth/UserAdd";
    let answer: AuthUserAddResponse = client.call(method, &request, None).await?;
    let printed = Printed::new("AuthUserAddResponse", &answer, format!("User {name} created\n"));
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// Reads the password twice, or once if it is not interactive.
fn new_password(context: &Context, name: &str) -> Result<String, Failure> {
    if !context.values.is_on("interactive") {
        return Ok(password::scan());
    }
    let ask = |prompt: &str| {
        let asked = password::ask(prompt);
        asked.map_err(|it| Failure::bad_args(format!("failed to ask password: {it}")))
    };
    let first = ask(&format!("Password of {name}: "))?;
    if first.is_empty() {
        return Err(Failure::bad_args("empty password"));
    }
    let second = ask(&format!("Type password of {name} again for confirmation: "))?;
    match first == second {
        true => Ok(first),
        false => Err(Failure::bad_args("given passwords are different")),
    }
}

/// # Errors
/// The server refused.
pub(crate) async fn delete(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "user delete command requires user name as its argument")?;
    let name = context.arg(0);
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/UserDelete";
    let request = AuthUserDeleteRequest { name: name.clone() };
    let answer: AuthUserDeleteResponse = client.call(method, &request, None).await?;
    let printed = Printed::new("AuthUserDeleteResponse", &answer, format!("User {name} deleted\n"));
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// # Errors
/// The server refused.
pub(crate) async fn get(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "user get command requires user name as its argument")?;
    let name = context.arg(0);
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/UserGet";
    let request = AuthUserGetRequest { name: name.clone() };
    let answer: AuthUserGetResponse = client.call(method, &request, None).await?;
    if context.values.is_on("detail") {
        out::line(&format!("User: {name}"));
        for name in &answer.roles {
            out::text("\n");
            role::show(&client, &printer, name).await?;
        }
        return Ok(());
    }
    let roles: String = answer.roles.iter().map(|it| format!(" {it}")).collect();
    let text = format!("User: {name}\nRoles:{roles}\n");
    printer.show(&Printed::new("AuthUserGetResponse", &answer, text))
}

/// # Errors
/// The server refused.
pub(crate) async fn list(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "user list command requires no arguments")?;
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/UserList";
    let answer: AuthUserListResponse = client.call(method, &AuthUserListRequest {}, None).await?;
    let text = answer.users.iter().map(|it| format!("{it}\n")).collect();
    printer.show(&Printed::new("AuthUserListResponse", &answer, text))
}

/// # Errors
/// No password, or the server refused.
pub(crate) async fn passwd(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "user passwd command requires user name as its argument")?;
    let name = context.arg(0);
    let password = new_password(&context, &name)?;
    let (client, printer) = context.connect().await?;
    let request = AuthUserChangePasswordRequest {
        name,
        password,
        ..AuthUserChangePasswordRequest::default()
    };
    let method = "/etcdserverpb.Auth/UserChangePassword";
    let answer: AuthUserChangePasswordResponse = client.call(method, &request, None).await?;
    let text = "Password updated\n".to_owned();
    let printed = Printed::new("AuthUserChangePasswordResponse", &answer, text);
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// # Errors
/// The server refused.
pub(crate) async fn grant_role(mut context: Context) -> Result<(), Failure> {
    context.exactly(2, "user grant command requires user name and role name as its argument")?;
    let (user, role) = (context.arg(0), context.arg(1));
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/UserGrantRole";
    let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
    let answer: AuthUserGrantRoleResponse = client.call(method, &request, None).await?;
    let text = format!("Role {role} is granted to user {user}\n");
    let printed = Printed::new("AuthUserGrantRoleResponse", &answer, text);
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}

/// # Errors
/// The server refused.
pub(crate) async fn revoke_role(mut context: Context) -> Result<(), Failure> {
    context.exactly(2, "user revoke-role requires user name and role name as its argument")?;
    let (name, role) = (context.arg(0), context.arg(1));
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/UserRevokeRole";
    let request = AuthUserRevokeRoleRequest { name: name.clone(), role: role.clone() };
    let answer: AuthUserRevokeRoleResponse = client.call(method, &request, None).await?;
    let text = format!("Role {role} is revoked from user {name}\n");
    let printed = Printed::new("AuthUserRevokeRoleResponse", &answer, text);
    printer.show(&printed.fields(fields::only_header(answer.header.as_ref(), printer.hex)))
}
