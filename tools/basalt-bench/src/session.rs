//! Surroundings of a load: TLS and the user's token, single calls, the revision before and
//! after, the processor time used.

use std::fs;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread;

use basalt_proto::etcdserverpb::{
    AuthenticateRequest, AuthenticateResponse, MemberListRequest, MemberListResponse, RangeRequest,
    RangeResponse,
};
use bytes::Bytes;
use gotls::{Roots, ServerVerifier, SkipVerification, Suites, Trust};
use prost::Message;
use tokio::runtime;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;

use crate::error::Fatal;
use crate::options::Globals;
use crate::paths;
use crate::report::{Verified, Written};
use crate::wire::Dialer;

/// A dialer by the flags, with the user's token if there is a user.
///
/// # Errors
/// Certificates cannot be read, or the user is refused.
pub fn dialer(globals: &Globals) -> Result<Dialer, Fatal> {
    let given = globals.cert.is_some() || globals.cacert.is_some();
    let secure = given || globals.insecure_skip_tls_verify;
    let wanted = globals.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    let mut dialer = Dialer {
        endpoints: globals.endpoints.iter().map(|endpoint| endpoint.trim().to_owned()).collect(),
        tls: if secure || wanted { Some(Arc::new(tls(globals)?)) } else { None },
        secure,
        metadata: Vec::new(),
        timeout: globals.dial_timeout,
        members: Arc::default(),
    };
    if let Some(user) = &globals.user {
        let token = authenticate(&dialer, user)?;
        dialer.metadata.push(("token".to_owned(), token));
    }
    if !globals.auto_sync_interval.is_zero() {
        let (dialer, every) = (dialer.clone(), globals.auto_sync_interval);
        // The thread ends when no other dialer is left.
        thread::spawn(move || {
            while Arc::strong_count(&dialer.members) > 1 {
                thread::park_timeout(every);
                sync(&dialer);
            }
        });
    }
    Ok(dialer)
}

/// Updates the endpoints from the member list. Keeps them if there is no answer; the next interval asks again.
fn sync(dialer: &Dialer) {
    let request = MemberListRequest::default();
    let listed: Result<MemberListResponse, Fatal> = call(dialer, paths::MEMBER_LIST, &request);
    let Ok(listed) = listed else { return };
    let urls = listed.members.into_iter().filter(|member| !member.is_learner);
    let urls: Vec<String> = urls.flat_map(|member| member.client_ur_ls).collect();
    if !urls.is_empty() {
        *dialer.members.lock().unwrap_or_else(PoisonError::into_inner) = urls;
    }
}

/// One call on a connection of its own.
///
/// # Errors
/// There is no connection, or the status is not OK.
pub fn call<R: Message + Default>(
    dialer: &Dialer,
    path: &'static str,
    request: &impl Message,
) -> Result<R, Fatal> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Ok(dialer.dial(0).await?.call(path, request).await?) })
}

/// The newest revision, read linearizably.
///
/// # Errors
/// The revision cannot be read.
pub fn revision(dialer: &Dialer) -> Result<i64, Fatal> {
    let request = RangeRequest {
        key: Bytes::from_static(b"\0"),
        count_only: true,
        ..RangeRequest::default()
    };
    let response: RangeResponse = call(dialer, paths::RANGE, &request)?;
    Ok(response.header.map_or(0, |header| header.revision))
}

/// Runs `load`, which returns the number of revisions that it made, and compares.
///
/// # Errors
/// Errors of the load, and if the revision cannot be read.
pub fn verified<T>(
    dialer: &Dialer,
    verify: bool,
    load: impl FnOnce() -> Result<(T, Written), Fatal>,
) -> Result<(T, Option<Verified>), Fatal> {
    if !verify {
        return Ok((load()?.0, None));
    }
    let revision_before = revision(dialer)?;
    let (result, written) = load()?;
    let revision_after = revision(dialer)?;
    Ok((result, Some(Verified::new(revision_before, revision_after, written))))
}

fn authenticate(dialer: &Dialer, user: &str) -> Result<String, Fatal> {
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => {
            eprint!("Password: ");
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            (user.to_owned(), line.trim_end_matches(['\r', '\n']).to_owned())
        }
    };
    let request = AuthenticateRequest { name, password };
    let response: AuthenticateResponse = call(dialer, paths::AUTHENTICATE, &request)?;
    Ok(response.token)
}

fn tls(globals: &Globals) -> Result<ClientConfig, Fatal> {
    let suites = Suites::All;
    let provider = gotls::provider(&suites);
    let verifier: Arc<dyn ServerCertVerifier> = if globals.insecure_skip_tls_verify {
        SkipVerification::new(provider)
    } else {
        let roots = match &globals.cacert {
            Some(path) => Roots::parse(&read(path)?)?,
            None => gotls::system_roots(),
        };
        ServerVerifier::new(provider, Trust { roots, ..Trust::default() })
    };
    let identity = match (&globals.cert, &globals.key_file) {
        (Some(cert), Some(key)) => Some(gotls::key_pair(&read(cert)?, &read(key)?)?),
        _ => None,
    };
    Ok(gotls::client_config(&suites, gotls::VERSIONS, verifier, identity, &[b"h2"])?)
}

fn read(path: &Path) -> Result<Vec<u8>, Fatal> {
    Ok(fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?)
}
