//! The flags of `grpc-proxy start`, checked in etcd's order and refused in its words.

use std::time::Duration;

use dial::KeepAlive;
use dial::tls::Security;
use gocompat::flags::Values;
use gocompat::quote::quote;
use gotls::Suites;
use rustls::SupportedProtocolVersion;

use crate::discovery;
use crate::{Failure, info, warn};

/// Where and how long a proxy is known to others.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) prefix: String,
    pub(super) address: String,
    pub(super) ttl_s: i64,
}

/// TLS towards clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Listening {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) trusted_ca: String,
    pub(super) crl: String,
    pub(super) suites: Suites,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// Make a certificate if there is none, valid for so many years.
    pub(super) auto_years: Option<u64>,
    pub(super) data_dir: String,
}

/// The values of the flags.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) listen: String,
    /// URLs of further listeners for pages.
    pub(super) metrics: Vec<String>,
    pub(super) endpoints: Vec<String>,
    pub(super) sync_interval: Option<Duration>,
    pub(super) keep_alive: KeepAlive,
    pub(super) send_bytes_max: usize,
    pub(super) receive_bytes_max: usize,
    /// TLS towards members.
    pub(super) security: Security,
    pub(super) listening: Listening,
    pub(super) advertised: String,
    pub(super) registration: Option<Registration>,
    pub(super) namespace: String,
    pub(super) ping_interval: Option<Duration>,
    pub(super) ping_timeout: Duration,
    pub(super) streams_max: u32,
    pub(super) ordered: bool,
    pub(super) leasing: bool,
    pub(super) log_calls: bool,
    pub(super) debug: bool,
    pub(super) discovery: Discovery,
}

/// `--discovery-srv` and its companions.
#[derive(Debug)]
pub(super) struct Discovery {
    domain: String,
    suffix: String,
    accept_insecure: bool,
}

impl Options {
    /// # Errors
    /// The first flag that is wrong.
    pub(super) fn read(values: &Values) -> Result<Self, Failure> {
        let text = |name: &str| values.text(name).to_owned();
        let registration = registration(values)?;
        let given = |name: &str| Some(values.duration(name)).filter(|it| !it.is_zero());
        let bytes = |name: &str, otherwise| match usize::try_from(values.int(name)) {
            Ok(0) | Err(_) => otherwise,
            Ok(bytes) => bytes,
        };
        let security = Security {
            cert: text("cert"),
            key: text("key"),
            cacert: text("cacert"),
            server_name: String::new(),
            insecure_transport: true,
            skip_verify: values.is_on("insecure-skip-tls-verify"),
        };
        Ok(Self {
            listen: text("listen-addr"),
            metrics: addresses(values.text("metrics-addr")),
            endpoints: values.list("endpoints"),
            sync_interval: given("endpoints-auto-sync-interval"),
            keep_alive: KeepAlive {
                interval: given("dial-keepalive-time"),
                timeout: values.duration("dial-keepalive-timeout"),
                while_idle: values.is_on("permit-without-stream"),
            },
            // The limits of etcd's client.
            send_bytes_max: bytes("max-send-bytes", 2 << 20),
            receive_bytes_max: bytes("max-recv-bytes", i32::MAX as usize),
            security,
            listening: listening(values)?,
            advertised: text("advertise-client-url"),
            registration,
            namespace: text("namespace"),
            ping_interval: given("grpc-keepalive-interval"),
            ping_timeout: given("grpc-keepalive-timeout").unwrap_or(Duration::from_secs(20)),
            streams_max: values.text("max-concurrent-streams").parse().unwrap_or(u32::MAX),
            ordered: values.is_on("experimental-serializable-ordering"),
            leasing: !values.text("experimental-leasing-prefix").is_empty(),
            log_calls: values.is_on("experimental-enable-grpc-logging"),
            debug: values.is_on("debug"),
            discovery: Discovery {
                domain: text("discovery-srv"),
                suffix: text("discovery-srv-name"),
                accept_insecure: values.is_on("insecure-discovery"),
            },
        })
    }

    /// The endpoints found by DNS, otherwise those typed.
    ///
    /// # Errors
    /// The domain cannot be looked up.
    pub(super) async fn find_endpoints(&self) -> Result<Vec<String>, Failure> {
        let Discovery { domain, suffix, accept_insecure } = &self.discovery;
        let ca = &self.security.cacert;
        let found = discovery::servers(domain, suffix, ca, *accept_insecure).await?;
        Ok(match found.is_empty() {
            true => self.endpoints.clone(),
            false => found.iter().map(dial::srv::Server::endpoint).collect(),
        })
    }
}

fn addresses(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

fn registration(values: &Values) -> Result<Option<Registration>, Failure> {
    let error = |text: String| Err(Failure::Error(text));
    let (prefix, ttl_s) = (values.text("resolver-prefix"), values.int("resolver-ttl"));
    let address = values.text("advertise-client-url");
    if !prefix.is_empty() && ttl_s < 1 {
        return error(format!("invalid resolver-ttl {ttl_s}"));
    }
    if prefix.is_empty() && ttl_s > 0 {
        return error(format!("invalid resolver-prefix {}", quote(prefix)));
    }
    if !prefix.is_empty() && address.is_empty() {
        return error(format!("invalid advertise-client-url {}", quote(address)));
    }
    let (prefix, address) = (prefix.to_owned(), address.to_owned());
    Ok((!prefix.is_empty()).then_some(Registration { prefix, address, ttl_s }))
}

fn listening(values: &Values) -> Result<Listening, Failure> {
    let error = |text: &str| Failure::Error(text.to_owned());
    let text = |name: &str| values.text(name).to_owned();
    let years = values.text("self-signed-cert-validity").parse().unwrap_or_default();
    let auto = values.is_on("auto-tls");
    if auto && years == 0 {
        return Err(error("selfSignedCertValidity is invalid,it should be greater than 0"));
    }
    let (least, most) = (values.text("tls-min-version"), values.text("tls-max-version"));
    let version = |name: &str, flag: &str| match name {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(12)),
        "TLS1.3" => Ok(Some(13)),
        other => Err(Failure::Error(format!(
            "{flag} is invalid: unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)",
            quote(other)
        ))),
    };
    let from = version(least, "tls-min-version")?.unwrap_or(12);
    let to = version(most, "tls-max-version")?.unwrap_or(13);
    if from > to {
        return Err(Failure::Error(format!(
            "min version ({least}) is greater than max version ({most})"
        )));
    }
    let names = values.list("listen-cipher-suites");
    if least == "TLS1.3" && !names.is_empty() {
        return Err(error("cipher suites cannot be configured when only TLS1.3 is enabled"));
    }
    let secured =
        auto || !(text("cert-file") + &text("key-file") + &text("trusted-ca-file")).is_empty();
    let mut suites = Suites::All;
    if secured {
        let (chosen, skipped) = Suites::parse(&names).map_err(Failure::Error)?;
        if !skipped.is_empty() {
            warn("proxy/options.rs", "cipher suites that are not offered")
                .texts("names", &skipped)
                .write();
        }
        suites = chosen;
    }
    let versions = gotls::VERSIONS.iter().zip([13, 12]).filter(|(_, it)| (from..=to).contains(it));
    Ok(Listening {
        cert: text("cert-file"),
        key: text("key-file"),
        trusted_ca: text("trusted-ca-file"),
        crl: text("client-crl-file"),
        suites,
        versions: versions.map(|(version, _)| *version).collect(),
        auto_years: auto.then_some(years),
        data_dir: text("data-dir"),
    })
}

/// The files of one side's TLS, as etcd prints them.
pub(super) fn tell_tls(caller: &str, message: &str, cert: &str, key: &str, ca: &str) {
    let text = format!(
        "cert = {cert}, key = {key}, client-cert=, client-key=, trusted-ca = {ca}, client-cert-auth = false, crl-file = "
    );
    info(caller, message).text("tls-info", &text).write();
}
