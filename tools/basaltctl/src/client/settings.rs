//! The values of the global flags, read in etcdctl's order so that the same error is printed first.

use std::io::Write as _;
use std::time::Duration;

use dial::tls::Security;
use dial::{KeepAlive, srv};
use gocompat::flags::Values;
use gocompat::zap;

use crate::client::password;
use crate::print::out;
use crate::print::{Format, Printer};
use crate::{Failure, exit};

/// A request is no larger than this unless a flag allows it.
const SEND_BYTES_MAX: usize = 2 * 1024 * 1024;
const RECEIVE_BYTES_MAX: usize = i32::MAX as usize;

/// Endpoints and options of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<String>,
    pub(crate) dial_timeout: Duration,
    pub(crate) command_timeout: Duration,
    /// True if the flag was given.
    pub(crate) command_timeout_given: bool,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) send_bytes_max: usize,
    pub(crate) receive_bytes_max: usize,
    pub(crate) security: Security,
    pub(crate) auth: Option<Auth>,
}

/// User and password.
#[derive(Clone, Debug, Default)]
pub(crate) struct Auth {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) token: String,
}

impl Settings {
    /// Reads flags and environment, and the output format.
    ///
    /// # Errors
    /// etcdctl's error text before it dials.
    pub(crate) async fn read(values: &mut Values, watch: bool) -> Result<(Self, Printer), Failure> {
        environment(values, watch)?;
        if values.is_on("debug") {
            debug(values, watch);
        }
        let endpoints = endpoints(values).await?;
        let security = security(values)?;
        let auth = auth(values)?;
        let printer = printer(values)?;
        let settings = Self { endpoints, security, auth, ..Self::of(values) };
        Ok((settings, printer))
    }

    /// The settings for the destination of a mirror: its own certificates and user, otherwise the same flags.
    pub(crate) fn of_destination(
        values: &Values,
        endpoint: String,
        security: Security,
        auth: Option<Auth>,
    ) -> Self {
        Self { endpoints: vec![endpoint], security, auth, ..Self::of(values) }
    }

    /// The flags that need neither DNS nor standard input.
    fn of(values: &Values) -> Self {
        let limit = |name: &str, default| match usize::try_from(values.int(name)) {
            Ok(0) | Err(_) => default,
            Ok(given) => given,
        };
        Self {
            endpoints: Vec::new(),
            dial_timeout: values.duration("dial-timeout"),
            command_timeout: values.duration("command-timeout"),
            command_timeout_given: values.changed("command-timeout"),
            keep_alive: KeepAlive {
                interval: Some(values.duration("keepalive-time")),
                timeout: values.duration("keepalive-timeout"),
                while_idle: false,
            },
            send_bytes_max: limit("max-request-bytes", SEND_BYTES_MAX),
            receive_bytes_max: limit("max-recv-bytes", RECEIVE_BYTES_MAX),
            security: Security::default(),
            auth: None,
        }
    }

    /// The same settings for one server.
    pub(crate) fn only(&self, endpoint: &str) -> Self {
        Self { endpoints: vec![endpoint.to_owned()], ..self.clone() }
    }
}

/// Sets flags from `ETCDCTL_*`; a variable of a flag that is given too ends the command.
fn environment(values: &mut Values, watch: bool) -> Result<(), Failure> {
    let (mut used, shadowed) = values.fill(variable_name, |name| std::env::var(name).ok());
    if watch {
        used.extend(["ETCDCTL_WATCH_KEY".to_owned(), "ETCDCTL_WATCH_RANGE_END".to_owned()]);
    }
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if used.iter().any(|it| *it == name) {
            continue;
        }
        if shadowed.iter().any(|it| *it == name) {
            zap::Line::new("fatal", "", "flags/flag.go:86")
                .message(
                    "conflicting environment variable is shadowed by corresponding command-line \
                     flag (either unset environment variable or disable flag))",
                )
                .text("environment-variable", &name)
                .write();
            return Err(Failure::silent(exit::ERROR));
        }
        if name.starts_with("ETCDCTL_") {
            zap::Line::new("warn", "", "flags/flag.go:94")
                .message("unrecognized environment variable")
                .text("environment-variable", &format!("{name}={value}"))
                .write();
        }
    }
    Ok(())
}

/// `ETCDCTL_DIAL_TIMEOUT` of `dial-timeout`.
fn variable_name(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}

fn debug(values: &Values, watch: bool) {
    let mut above = values.above();
    if watch {
        above.extend([("watch-key", String::new()), ("watch-range-end", String::new())]);
        above.sort_by_key(|it| it.0);
    }
    for (name, value) in above {
        let _ = writeln!(std::io::stderr(), "{}={value}", variable_name(name));
    }
}

/// The endpoints found by DNS if a domain is named, otherwise those typed.
async fn endpoints(values: &Values) -> Result<Vec<String>, Failure> {
    let domain = values.text("discovery-srv");
    let mut found = Vec::new();
    if !domain.is_empty() {
        let service = values.text("discovery-srv-name");
        let all = srv::endpoints(domain, service).await;
        found = all.map_err(|it| Failure::new(exit::ERROR, it))?;
        if !values.is_on("insecure-discovery") {
            found.retain(|endpoint| {
                let insecure = endpoint.starts_with("http://");
                if insecure {
                    let endpoint = gocompat::quote::quote(endpoint);
                    out::error(&format!("ignoring discovered insecure endpoint {endpoint}"));
                }
                !insecure
            });
        }
    }
    if found.is_empty() {
        found = values.list("endpoints").iter().map(|it| it.trim().to_owned()).collect();
    }
    Ok(found)
}

fn security(values: &Values) -> Result<Security, Failure> {
    for name in ["cert", "key", "cacert"] {
        if values.text(name).is_empty() && values.changed(name) {
            return Err(Failure::bad_args(format!("empty string is passed to --{name} option")));
        }
    }
    let server_name = match values.is_on("insecure-discovery") {
        true => String::new(),
        false => values.text("discovery-srv").to_owned(),
    };
    Ok(Security {
        cert: values.text("cert").to_owned(),
        key: values.text("key").to_owned(),
        cacert: values.text("cacert").to_owned(),
        server_name,
        insecure_transport: values.is_on("insecure-transport"),
        skip_verify: values.is_on("insecure-skip-tls-verify"),
    })
}

fn auth(values: &Values) -> Result<Option<Auth>, Failure> {
    let token = values.text("auth-jwt-token");
    if !token.is_empty() {
        return Ok(Some(Auth { token: token.to_owned(), ..Auth::default() }));
    }
    let (mut user, mut password) =
        (values.text("user").to_owned(), values.text("password").to_owned());
    let (variable, file) = (values.text("user-from-env"), values.text("password-file"));
    if !variable.is_empty() {
        let missing = |_| Failure::bad_args(format!("no environment variable {variable}"));
        user = std::env::var(variable).map_err(missing)?;
    }
    if !file.is_empty() {
        let unread = |error| Failure::bad_args(format!("open {file}: {error}"));
        let text = std::fs::read_to_string(file).map_err(unread)?;
        text.lines().next().unwrap_or_default().clone_into(&mut password);
    }
    named(&user, &password, "Password: ")
}

/// A user from `name`, `name:password` or `name` and `password`; a missing password is asked for.
///
/// # Errors
/// Standard input cannot be read.
pub(crate) fn named(user: &str, password: &str, prompt: &str) -> Result<Option<Auth>, Failure> {
    if user.is_empty() {
        return Ok(None);
    }
    let (name, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((name, password)) => (name, password.to_owned()),
        None => {
            let asked = password::ask(prompt);
            (user, asked.map_err(|it| Failure::new(exit::ERROR, it))?)
        }
    };
    Ok(Some(Auth { name: name.to_owned(), password, token: String::new() }))
}

fn printer(values: &Values) -> Result<Printer, Failure> {
    let format = match values.text("write-out") {
        "simple" => Format::Simple,
        "fields" => Format::Fields,
        "json" => Format::Json,
        "protobuf" => Format::Protobuf,
        "table" => Format::Table,
        _ => return Err(Failure::new(exit::BAD_FEATURE, "unsupported output format")),
    };
    Ok(Printer { format, hex: values.is_on("hex"), value_only: false })
}
