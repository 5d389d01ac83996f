//! `etcd grpc-proxy`: clients of etcd's gRPC API on one side, members on the other.
//!
//! ```text
//!  listener ─► services ─┬─► kv ─► cache, namespace ───────────────┐
//!  (TLS, HTTP/1, HTTP/2) ├─► watch: one upstream watch per range ──┤
//!                        ├─► lease: one renewal for many ──────────┼─► upstream ─► members
//!                        ├─► cluster: the proxies of a prefix ─────┤
//!                        └─► everything else as it is ─────────────┘
//!                        └─► pages: /metrics, /health, /proxy/…
//! ```
//!
//! Messages are decoded only where the proxy has to know them. A caller's token goes with each of its calls, and an error of
//! a member goes back with its code and text.

mod cache;
mod caller;
mod cluster;
mod codec;
mod concurrency;
mod kv;
mod lease;
mod listener;
mod metrics;
mod namespace;
mod options;
mod outbox;
mod pages;
mod register;
mod services;
mod upstream;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use gocompat::flags::Values;
use tokio::time::sleep;

use self::caller::Caller;
use self::cluster::Cluster;
use self::kv::Kv;
use self::lease::KeepAlives;
use self::metrics::Metrics;
use self::namespace::Namespace;
use self::options::Options;
use self::pages::Pages;
use self::services::Services;
use self::upstream::Upstream;
use self::watch::Watches;
use crate::{Failure, SelfSign, info, notify_systemd, warn};

/// Runs the proxy; it ends with an error alone.
///
/// # Errors
/// A flag, a file or an address is wrong.
pub(crate) async fn run(values: &Values, self_sign: SelfSign) -> Result<(), Failure> {
    let options = Options::read(values)?;
    let secured = listener::Secured::new(&options, self_sign)?;
    let clients = dial::listen(&options.listen).await.map_err(Failure::Error)?;
    let secured = secured.map(|it| it.checked(&clients)).transpose()?;
    let message = "listening for gRPC proxy client requests";
    info("etcdmain/grpc_proxy.go:463", message).text("address", &options.listen).write();
    let upstream = Arc::new(Upstream::new(&options).await?);
    let services = Arc::new(services(&options, &upstream).await);
    let served = listener::Served { services, options: Arc::new(options) };
    let pages = listener::metrics(&served, secured.as_ref()).await?;
    let first = tokio::spawn(listener::serve(clients, secured, served.clone()));
    for (listener, secured) in pages {
        info("etcdmain/grpc_proxy.go:609", "gRPC proxy server metrics URL serving").write();
        tokio::spawn(listener::serve(listener, secured, served.clone()));
    }
    let address = &served.options.listen;
    info("etcdmain/grpc_proxy.go:283", "started gRPC proxy").text("address", address).write();
    notify_systemd();
    // It never ends; an error of one connection is that connection's alone.
    first.await.map_err(|error| Failure::Error(error.to_string()))
}

async fn services(options: &Options, upstream: &Arc<Upstream>) -> Services {
    let metrics = Arc::new(Metrics::default());
    let namespace = Namespace::new(&options.namespace);
    let kv = Arc::new(Kv::new(options, upstream, &namespace, &metrics));
    if options.ordered {
        recover_ordering(&kv).await;
    }
    if options.leasing {
        let message = "--experimental-leasing-prefix is accepted and does nothing: no keys are \
                       leased, linearizable reads go to the members";
        warn("proxy/grpc_proxy.rs", message).write();
    }
    if let Some(interval) = options.sync_interval {
        tokio::spawn(upstream::follow_members(Arc::clone(upstream), interval));
    }
    let watches = Watches::new(options, upstream, &namespace, &kv);
    let cluster = Cluster::new(options);
    if let Some(registration) = &options.registration {
        tokio::spawn(register::keep_registered(Arc::clone(&kv), registration.clone()));
        tokio::spawn(cluster::follow_proxies(
            Arc::clone(&cluster),
            Arc::clone(&kv),
            registration.prefix.clone(),
        ));
    }
    Services {
        keep_alives: KeepAlives::new(upstream),
        pages: Pages::new(options, &kv, &watches, &metrics, upstream),
        log_calls: options.log_calls,
        upstream: Arc::clone(upstream),
        namespace,
        metrics,
        kv,
        watches,
        cluster,
    }
}

/// A linearizable read, whose revision no serializable one may be below; tried until one succeeds.
async fn recover_ordering(kv: &Kv) {
    const PAUSE: Duration = Duration::from_secs(1);
    let message = "waiting for linearized read from cluster to recover ordering";
    info("etcdmain/grpc_proxy.go:472", message).write();
    while let Err(status) = kv.probe("_", false, &Caller::proxy()).await {
        if caller::is_refusal_of_user(&status) {
            // Only users may read; the revisions of their reads count from now on.
            return;
        }
        warn("etcdmain/grpc_proxy.go:478", "ordering recovery failed, retrying in 1s")
            .text("error", status.message())
            .write();
        sleep(PAUSE).await;
    }
}
