//! `etcd gateway`: passes the bytes of each connection to one endpoint and back. TLS is between client and member.
//!
//! ```text
//!  accept ─► endpoints: one that is active ─► connect ─┬─► copy, each direction to its end
//!               ▲                                      └─ failed: inactive, the next one
//!               └── every --retry-delay: those that are inactive are tried
//! ```

mod checks;
mod endpoints;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gocompat::flags::Values;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use self::endpoints::{Endpoint, Endpoints};
use crate::limits::{ACCEPT_BACKOFF, CONNECT_TIME_MAX, GATEWAY_BUFFER_BYTES};
use crate::{Failure, discovery, info, notify_systemd, warn};

/// The interval in which etcd looks for endpoints that are back if `--retry-delay` is zero.
const RETRY_DELAY_DEFAULT: Duration = Duration::from_secs(300);

/// Runs the gateway; it ends with an error alone.
///
/// # Errors
/// An address is invalid, is in use, or is the gateway's own.
pub(crate) async fn run(values: &Values, arguments: &[String]) -> Result<(), Failure> {
    info("etcdmain/gateway.go:101", "Running: ").texts("args", arguments).write();
    let found = discovery::servers(
        values.text("discovery-srv"),
        values.text("discovery-srv-name"),
        values.text("trusted-ca-file"),
        values.is_on("insecure-discovery"),
    )
    .await?;
    let endpoints: Vec<Endpoint> = match found.is_empty() {
        true => checks::endpoints(&values.list("endpoints"))?,
        false => found.into_iter().map(|it| Endpoint::new(it.service)).collect(),
    };
    let listen = values.text("listen-addr");
    checks::refuse_own_address(listen, &endpoints).await?;
    if endpoints.is_empty() {
        return Err(Failure::Output("no endpoints found\n".to_owned()));
    }
    let listener = dial::listen(listen).await.map_err(Failure::Error)?;
    notify_systemd();
    let retry_delay = match values.duration("retry-delay") {
        Duration::ZERO => RETRY_DELAY_DEFAULT,
        given => given,
    };
    let names: Vec<String> = endpoints.iter().map(Endpoint::address).collect();
    let message = "ready to proxy client requests";
    info("tcpproxy/userspace.go:85", message).texts("endpoints", &names).write();
    serve(listener, Arc::new(Endpoints::new(endpoints)), retry_delay).await
}

async fn serve(
    listener: TcpListener,
    endpoints: Arc<Endpoints>,
    retry_delay: Duration,
) -> Result<(), Failure> {
    let own = listener.local_addr().map_err(|error| Failure::Error(error.to_string()))?;
    tokio::spawn(monitor(Arc::clone(&endpoints), own, retry_delay));
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        tokio::spawn(pass(client, Arc::clone(&endpoints), own, retry_delay));
    }
}

/// One connection of a client, to its end.
async fn pass(
    mut client: TcpStream,
    endpoints: Arc<Endpoints>,
    own: SocketAddr,
    retry_delay: Duration,
) {
    while let Some(endpoint) = endpoints.draw() {
        match connect(&endpoint.address(), own).await {
            Ok(mut member) => {
                let _ = client.set_nodelay(true);
                // A direction that has ended is shut down, while the other one goes on. A reset ends both.
                let size = GATEWAY_BUFFER_BYTES;
                let _ =
                    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut member, size, size)
                        .await;
                return;
            }
            Err(why) => {
                endpoint.set_active(false);
                warn("tcpproxy/userspace.go:176", "deactivated endpoint")
                    .text("address", &endpoint.address())
                    .text("interval", &gocompat::duration::text(retry_delay))
                    .text("error", &why)
                    .write();
            }
        }
    }
}

/// Tries the endpoints that are inactive, at intervals.
async fn monitor(endpoints: Arc<Endpoints>, own: SocketAddr, retry_delay: Duration) {
    loop {
        sleep(retry_delay).await;
        for endpoint in endpoints.inactive() {
            tokio::spawn(async move {
                let address = endpoint.address();
                match connect(&address, own).await {
                    Ok(_) => {
                        endpoint.set_active(true);
                        info("tcpproxy/userspace.go:212", "activated")
                            .text("address", &address)
                            .write();
                    }
                    Err(why) => {
                        let message =
                            "failed to activate endpoint (stay inactive for another interval)";
                        warn("tcpproxy/userspace.go:208", message)
                            .text("address", &address)
                            .text("interval", &gocompat::duration::text(retry_delay))
                            .text("error", &why)
                            .write();
                    }
                }
            });
        }
    }
}

/// # Errors
/// Go's text: the endpoint cannot be reached, or it is the gateway itself, which would connect to itself without end.
async fn connect(address: &str, own: SocketAddr) -> Result<TcpStream, String> {
    let connected = timeout(CONNECT_TIME_MAX, dial::tcp(address)).await;
    let socket = connected.unwrap_or_else(|_| Err(format!("dial tcp {address}: i/o timeout")))?;
    match socket.peer_addr() {
        Ok(peer) if checks::is_own(peer, own) => {
            Err(format!("dial tcp {address}: it is the gateway's own listen address"))
        }
        Ok(_) => Ok(socket),
        Err(error) => Err(format!("dial tcp {address}: {}", dial::files::why(&error))),
    }
}
