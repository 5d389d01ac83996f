//! member add, remove, update, list, promote, and move-leader.

use basalt_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse,
    StatusRequest, StatusResponse,
};

use crate::Failure;
use crate::command::Context;
use crate::command::keys::is_serializable;
use crate::print::cluster::Members;
use crate::print::{Format, Printed, out};
use gocompat::number::parse_uint;
use gocompat::quote::quote;

fn member_id(context: &Context) -> Result<u64, Failure> {
    context.exactly(1, "member ID is not provided")?;
    let id = parse_uint(&context.arg(0), 16);
    id.map_err(|it| Failure::bad_args(format!("bad member ID arg ({it}), expecting ID in Hex")))
}

fn urls(context: &Context) -> Result<Vec<String>, Failure> {
    match context.values.text("peer-urls") {
        "" => Err(Failure::bad_args("member peer urls not provided")),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

/// Checks that etcd's client makes before it sends a request.
fn check_url(url: &str) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::error(format!("{why}: {url}")));
    let Some((scheme, rest)) = url.trim().split_once("://") else {
        if url.split('/').next().is_some_and(|it| it.contains(':')) {
            let url = quote(url);
            return Err(Failure::error(format!(
                "parse {url}: first path segment in URL cannot contain colon"
            )));
        }
        return refused("URL scheme must be http, https, unix, or unixs");
    };
    match scheme {
        "http" | "https" => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if !host.contains(':') {
                return refused("URL address does not have the form \"host:port\"");
            }
            if path.is_empty() { Ok(()) } else { refused("URL must not contain a path") }
        }
        "unix" | "unixs" => Ok(()),
        _ => refused("URL scheme must be http, https, unix, or unixs"),
    }
}

/// # Errors
/// The arguments are invalid, or the server refused.
pub(crate) async fn add(mut context: Context) -> Result<(), Failure> {
    let count = context.args().len();
    if count == 0 {
        return Err(Failure::bad_args("member name not provided"));
    }
    if count > 1 {
        let mut text = "too many arguments".to_owned();
        for word in (0..count).map(|at| context.arg(at)) {
            if word.to_lowercase().starts_with("http") {
                text.push_str(&format!(", did you mean --peer-urls={word}"));
            }
        }
        return Err(Failure::bad_args(text));
    }
    let name = context.arg(0);
    let peer_ur_ls = urls(&context)?;
    let (client, printer) = context.connect().await?;
    peer_ur_ls.iter().try_for_each(|it| check_url(it))?;
    let request = MemberAddRequest { peer_ur_ls, is_learner: context.values.is_on("learner") };
    let method = "/etcdserverpb.Cluster/MemberAdd";
    let answer: MemberAddResponse = client.call(method, &request, client.deadline()).await?;
    let member = answer.member.clone().unwrap_or_default();
    let cluster = answer.header.unwrap_or_default().cluster_id;
    let how = if member.is_learner { " as learner " } else { " " };
    let text = format!("Member {:16x} added{how}to cluster {cluster:16x}\n", member.id);
    printer.show(&Members {
        printed: Printed::new("MemberAddResponse", &answer, text),
        header: answer.header,
        member: answer.member.clone(),
        members: answer.members.clone(),
    })?;
    if printer.format == Format::Simple {
        let all = answer.members.iter().flat_map(|it| {
            let name = if it.id == member.id { &name } else { &it.name };
            it.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        });
        let all: Vec<String> = all.collect();
        out::text(&format!(
            "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
             ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
            quote(&name),
            quote(all.join(",")),
            quote(context.values.text("peer-urls"))
        ));
    }
    Ok(())
}

/// # Errors
/// The id is missing or invalid, or the server refused.
pub(crate) async fn remove(mut context: Context) -> Result<(), Failure> {
    let id = member_id(&context)?;
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Cluster/MemberRemove";
    let request = MemberRemoveRequest { id };
    let answer: MemberRemoveResponse = client.call(method, &request, client.deadline()).await?;
    let cluster = answer.header.unwrap_or_default().cluster_id;
    let text = format!("Member {id:16x} removed from cluster {cluster:16x}\n");
    printer.show(&Members {
        printed: Printed::new("MemberRemoveResponse", &answer, text),
        header: answer.header,
        member: None,
        members: answer.members,
    })
}

/// # Errors
/// The id or the URLs are missing or invalid, or the server refused.
pub(crate) async fn update(mut context: Context) -> Result<(), Failure> {
    let id = member_id(&context)?;
    let request = MemberUpdateRequest { id, peer_ur_ls: urls(&context)? };
    let (client, printer) = context.connect().await?;
    request.peer_ur_ls.iter().try_for_each(|it| check_url(it))?;
    let method = "/etcdserverpb.Cluster/MemberUpdate";
    let answer: MemberUpdateResponse = client.call(method, &request, client.deadline()).await?;
    let cluster = answer.header.unwrap_or_default().cluster_id;
    let text = format!("Member {id:16x} updated in cluster {cluster:16x}\n");
    printer.show(&Members {
        printed: Printed::new("MemberUpdateResponse", &answer, text),
        header: answer.header,
        member: None,
        members: answer.members,
    })
}

/// # Errors
/// The id is missing or invalid, or the server refused.
pub(crate) async fn promote(mut context: Context) -> Result<(), Failure> {
    let id = member_id(&context)?;
    let (client, printer) = context.connect().await?;
    let method = "/etcdserverpb.Cluster/MemberPromote";
    let request = MemberPromoteRequest { id };
    let answer: MemberPromoteResponse = client.call(method, &request, client.deadline()).await?;
    let cluster = answer.header.unwrap_or_default().cluster_id;
    let text = format!("Member {id:16x} promoted in cluster {cluster:16x}\n");
    printer.show(&Members {
        printed: Printed::new("MemberPromoteResponse", &answer, text),
        header: answer.header,
        member: None,
        members: answer.members,
    })
}

/// # Errors
/// The server refused.
pub(crate) async fn list(mut context: Context) -> Result<(), Failure> {
    // The error names the flag of get, which has its default here.
    let serializable = is_serializable(context.values.text("consistency"), "l")?;
    let (client, printer) = context.connect().await?;
    let request = MemberListRequest { linearizable: !serializable };
    let method = "/etcdserverpb.Cluster/MemberList";
    let answer: MemberListResponse = client.call(method, &request, client.deadline()).await?;
    printer.show(&answer)
}

/// # Errors
/// The id is missing, no endpoint is the leader, or the server refused.
pub(crate) async fn move_leader(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "move-leader command needs 1 argument")?;
    let target = parse_uint(&context.arg(0), 16).map_err(Failure::bad_args)?;
    let (settings, printer) = context.settings().await?;
    let deadline = settings.client().await?.deadline();
    for endpoint in &settings.endpoints {
        let client = settings.only(endpoint).client().await?;
        let method = "/etcdserverpb.Maintenance/Status";
        let status: StatusResponse = client.call(method, &StatusRequest {}, deadline).await?;
        let leader = status.leader;
        if status.header.unwrap_or_default().member_id != leader {
            continue;
        }
        let method = "/etcdserverpb.Maintenance/MoveLeader";
        let request = MoveLeaderRequest { target_id: target };
        let answer: MoveLeaderResponse = client.call(method, &request, deadline).await?;
        let text = format!("Leadership transferred from {leader:x} to {target:x}\n");
        return printer.show(&Printed::new("MoveLeaderResponse", &answer, text));
    }
    let text = format!("no leader endpoint given at [{}]", settings.endpoints.join(" "));
    Err(Failure::bad_args(text))
}
