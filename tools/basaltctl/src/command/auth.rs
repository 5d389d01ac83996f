//! auth enable, disable, status.

use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthStatusRequest, AuthStatusResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
};

use crate::Failure;
use crate::command::Context;
use crate::print::{Printed, out};

/// # Errors
/// The server refused; a missing role of root is made and granted first.
pub(crate) async fn enable(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "auth enable command does not accept any arguments")?;
    let (client, _) = context.connect().await?;
    let deadline = client.deadline();
    loop {
        let method = "/etcdserverpb.Auth/AuthEnable";
        let request = AuthEnableRequest {};
        let answer = client.call::<_, AuthEnableResponse>(method, &request, deadline).await;
        match answer {
            Ok(_) => break,
            Err(it) if it.status.message() == "etcdserver: root user does not have root role" => {
                let request = AuthRoleAddRequest { name: "root".to_owned() };
                let method = "/etcdserverpb.Auth/RoleAdd";
                client.call::<_, AuthRoleAddResponse>(method, &request, deadline).await?;
                let (user, role) = ("root".to_owned(), "root".to_owned());
                let request = AuthUserGrantRoleRequest { user, role };
                let method = "/etcdserverpb.Auth/UserGrantRole";
                client.call::<_, AuthUserGrantRoleResponse>(method, &request, deadline).await?;
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
    out::line("Authentication Enabled");
    Ok(())
}

/// # Errors
/// The server refused.
pub(crate) async fn disable(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "auth disable command does not accept any arguments")?;
    let (client, _) = context.connect().await?;
    let method = "/etcdserverpb.Auth/AuthDisable";
    let request = AuthDisableRequest {};
    client.call::<_, AuthDisableResponse>(method, &request, client.deadline()).await?;
    out::line("Authentication Disabled");
    Ok(())
}

/// # Errors
/// The server refused.
pub(crate) async fn status(mut context: Context) -> Result<(), Failure> {
    context.exactly(0, "auth status command does not accept any arguments")?;
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Auth/AuthStatus";
    let request = AuthStatusRequest {};
    let answer: AuthStatusResponse = client.call(method, &request, client.deadline()).await?;
    let (enabled, revision) = (answer.enabled, answer.auth_revision);
    let text = format!("Authentication Status: {enabled}\nAuthRevision: {revision}\n");
    printer.show(&Printed::new("AuthStatusResponse", &answer, text))
}
