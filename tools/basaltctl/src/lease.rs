//! lease grant, revoke, timetolive, list, keep-alive.

use basalt_proto::etcdserverpb::lease_client::LeaseClient;
use basalt_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
};

use crate::args::{Args, Spec};
use crate::client::Client;
use crate::{Failure, output};

const NONE: Spec = Spec { values: &[], switches: &["keys", "once"] };

fn lease(client: &Client) -> LeaseClient<tonic::transport::Channel> {
    LeaseClient::new(client.channel.clone())
}

fn id(args: &Args, command: &str) -> Result<i64, Failure> {
    let [id] = args.positional.as_slice() else {
        let text = format!("lease {command} command needs lease ID as argument");
        return Err(Failure::bad_args(text));
    };
    // Ids are printed as what they are in memory: a negative one has its first bit set.
    u64::from_str_radix(id, 16)
        .map(|id| id as i64)
        .map_err(|_| Failure::bad_args(format!("bad lease ID arg (strconv.ParseInt: parsing {id:?}: invalid syntax), expecting ID in Hex")))
}

/// `lease grant <ttl>`.
pub(crate) async fn grant(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, NONE)?;
    let [ttl] = args.positional.as_slice() else {
        return Err(Failure::bad_args("lease grant command needs TTL argument"));
    };
    let ttl = ttl.parse().map_err(|_| {
        Failure::bad_args(format!("bad TTL (strconv.ParseInt: parsing {ttl:?}: invalid syntax)"))
    })?;
    let client = Client::connect(&args).await?;
    let response = client.ask(lease(&client).lease_grant(LeaseGrantRequest { ttl, id: 0 })).await?;
    output::line(&format!("lease {:016x} granted with TTL({}s)", response.id, response.ttl));
    Ok(())
}

/// `lease revoke <id>`.
pub(crate) async fn revoke(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, NONE)?;
    let id = id(&args, "revoke")?;
    let client = Client::connect(&args).await?;
    client.ask(lease(&client).lease_revoke(LeaseRevokeRequest { id })).await?;
    output::line(&format!("lease {id:016x} revoked"));
    Ok(())
}

/// `lease timetolive <id>`.
pub(crate) async fn time_to_live(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, NONE)?;
    let (id, keys) = (id(&args, "timetolive")?, args.is_on("keys"));
    let client = Client::connect(&args).await?;
    let request = LeaseTimeToLiveRequest { id, keys };
    let response = client.ask(lease(&client).lease_time_to_live(request)).await?;
    if response.granted_ttl == 0 && response.ttl == -1 {
        output::line(&format!("lease {id:016x} already expired"));
        return Ok(());
    }
    let (granted, left) = (response.granted_ttl, response.ttl);
    let mut line = format!("lease {id:016x} granted with TTL({granted}s), remaining({left}s)");
    if keys {
        let keys: Vec<_> = response.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        line.push_str(&format!(", attached keys([{}])", keys.join(" ")));
    }
    output::line(&line);
    Ok(())
}

/// `lease list`.
pub(crate) async fn list(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, NONE)?;
    let client = Client::connect(&args).await?;
    let response = client.ask(lease(&client).lease_leases(LeaseLeasesRequest {})).await?;
    output::line(&format!("found {} leases", response.leases.len()));
    response.leases.iter().for_each(|lease| output::line(&format!("{:016x}", lease.id)));
    Ok(())
}

/// `lease keep-alive <id>`: until the lease is gone, or once.
pub(crate) async fn keep_alive(rest: Vec<String>) -> Result<(), Failure> {
    let args = Args::read(rest, NONE)?;
    let id = id(&args, "keep-alive")?;
    let client = Client::connect(&args).await?;
    loop {
        let one = tokio_once(LeaseKeepAliveRequest { id });
        let mut answers = lease(&client).lease_keep_alive(one).await?.into_inner();
        let ttl = answers.message().await?.map_or(0, |answer| answer.ttl);
        if ttl <= 0 {
            output::line(&format!("lease {id:016x} expired or revoked."));
            return Ok(());
        }
        output::line(&format!("lease {id:016x} keepalived with TTL({ttl})"));
        if args.is_on("once") {
            return Ok(());
        }
        let third = std::time::Duration::from_millis(ttl as u64 * 1000 / 3);
        tokio::time::sleep(third).await;
    }
}

/// A stream of one request.
pub(crate) fn tokio_once<T: Send + 'static>(request: T) -> tonic::codegen::tokio_stream::Once<T> {
    tonic::codegen::tokio_stream::once(request)
}
