//! When certificates end.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::text::Writer;

/// The purpose of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateRole {
    /// Shown to those who connect.
    Server,
    /// Shown when this member connects.
    Client,
    /// Trusted to sign others.
    Authority,
}

impl CertificateRole {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Authority => "ca",
        }
    }
}

const ROLES: [CertificateRole; 3] =
    [CertificateRole::Server, CertificateRole::Client, CertificateRole::Authority];
const KINDS: [&str; 2] = ["client", "peer"];

/// 0 for those that are not there.
static ENDS: [[AtomicI64; ROLES.len()]; KINDS.len()] =
    [const { [const { AtomicI64::new(0) }; ROLES.len()] }; KINDS.len()];

/// The certificate of the `client` or the `peer` side ends then, in seconds since 1970. Of several of the same role
/// the one counts that was told last.
pub fn certificate_ends(kind: &str, role: CertificateRole, not_after: i64) {
    if let Some(at) = KINDS.iter().position(|known| *known == kind) {
        ENDS[at][role as usize].store(not_after, Relaxed);
    }
}

pub(super) fn write(out: &mut Writer) {
    let rows = KINDS.iter().zip(&ENDS).flat_map(|(kind, ends)| {
        ROLES.iter().zip(ends).filter_map(move |(role, end)| {
            let end = end.load(Relaxed);
            (end != 0).then(|| (format!("kind=\"{kind}\",role=\"{}\"", role.name()), end as f64))
        })
    });
    let rows: Vec<_> = rows.collect();
    let help = "Unix time at which the certificate in use expires.";
    out.family("basalt_tls_certificate_not_after_seconds", "gauge", help, rows.into_iter());
    let help = "Total number of times that changed certificate files were read, by result.";
    let reloads = [
        ("result=\"failure\"".to_owned(), super::TLS_RELOADS_FAILED.get() as f64),
        ("result=\"success\"".to_owned(), super::TLS_RELOADS.get() as f64),
    ];
    out.family("basalt_tls_reload_total", "counter", help, reloads.into_iter());
}
