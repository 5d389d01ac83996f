//! Certificates that change while the member runs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::certificates::{Authority, Pair, Wanted, replace};
use super::{PATIENCE, assert_told, curl, etcdctl, metric, secure_endpoint, secured};
use crate::compare::from_environment;
use crate::process::{self, Scratch, Server, Setup};

/// True if curl gets an answer, with a certificate or without one.
fn is_served(server: &Server, authority: &str, pair: Option<&Pair>) -> bool {
    let url = format!("{}/health", secure_endpoint(server));
    let mut arguments = vec!["--cacert", authority, &url];
    if let Some(pair) = pair {
        arguments.extend(["--cert", &*pair.certificate, "--key", &*pair.key]);
    }
    curl(&arguments).stdout.contains("true")
}

fn wait(until: impl Fn() -> bool, what: &str, server: &Server) {
    let late = Instant::now() + PATIENCE;
    while !until() {
        assert!(Instant::now() < late, "{what}\n{}", server.logs.tail());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn certificates_authorities_and_revocations_are_read_again() {
    let place = Scratch::new();
    let (old, new) = (Authority::new(place.path(), "old"), Authority::new(place.path(), "new"));
    let path = |name: &str| place.path().join(name).display().to_string();
    let (trusted, list) = (path("trusted.crt"), path("list.crl"));
    fs::copy(&old.file, &trusted).expect("it is copied");
    fs::write(&list, old.revoke(&[])).expect("it is written");
    let pair = old.issue("server", &Wanted::default());
    let (client, fresh) = (
        old.issue("client", &Wanted { serial: 7, ..Wanted::default() }),
        new.issue("fresh", &Wanted::default()),
    );
    let setup = Setup::new(process::basalt())
        .flag("trusted-ca-file", &trusted)
        .flag("client-crl-file", &list);
    let server = secured(setup, &pair);
    assert!(is_served(&server, &old.file, Some(&client)));
    // The authority: both, then the new one alone.
    assert!(!is_served(&server, &old.file, Some(&fresh)));
    let both = [&old.file, &new.file].map(|file| fs::read_to_string(file).expect("it is there"));
    replace(&trusted, both.concat());
    wait(|| is_served(&server, &old.file, Some(&fresh)), "the new authority", &server);
    assert!(is_served(&server, &old.file, Some(&client)));
    // A list of revoked certificates, also in PEM.
    replace(&list, old.revoke(&[7]));
    wait(|| !is_served(&server, &old.file, Some(&client)), "the revoked one", &server);
    assert!(server.logs.wait_for("transport: certificate serial 07 revoked", PATIENCE));
    replace(&trusted, &both[1]);
    // The certificate, one file after the other: what does not belong together is not used.
    let (certificate, key) = new.texts(&Wanted::default());
    replace(&pair.certificate, certificate);
    wait(
        || {
            is_served(&server, &old.file, Some(&fresh));
            server.logs.mentions("tls: private key does not match public key")
        },
        "half of it",
        &server,
    );
    assert!(is_served(&server, &old.file, Some(&fresh)), "the last good one stays");
    replace(&pair.key, key);
    wait(|| is_served(&server, &new.file, Some(&fresh)), "the new certificate", &server);
    // A file without a certificate is logged, and the last one stays.
    replace(&trusted, "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
    server.signal(Signal::HUP);
    assert!(server.logs.wait_for("received signal; reading certificates", PATIENCE));
    wait(|| server.logs.mentions("malformed certificate"), "the bad authority", &server);
    assert!(is_served(&server, &new.file, Some(&fresh)));
}

#[test]
fn a_hangup_ends_nothing_and_certificates_that_end_are_announced() {
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let server = secured(Setup::new(process::basalt()), &pair);
    let (certificate, key) = authority.texts(&Wanted { last_year: 2021, ..Wanted::default() });
    fs::write(&pair.certificate, certificate).expect("it is written");
    fs::write(&pair.key, key).expect("it is written");
    server.signal(Signal::HUP);
    assert!(server.logs.wait_for("a certificate expires soon", PATIENCE), "{}", server.logs.tail());
    let health = format!("{}/metrics", secure_endpoint(&server));
    let told = curl(&["-k", &health]).stdout;
    assert!(told.contains("basalt_tls_reload_total{result=\"success\"} 1"), "{told}");
    let end =
        metric(&told, "basalt_tls_certificate_not_after_seconds{kind=\"client\",role=\"server\"}");
    assert_eq!(end, Some(1_609_459_200.0), "{told}");
}

/// Clients connect and write while the certificate is replaced again and again. No request fails. `ROTATIONS` says how often.
#[test]
fn no_request_fails_while_certificates_change() {
    let rotations: u64 = from_environment("ROTATIONS", 40);
    let place = Scratch::new();
    let authority = Authority::new(place.path(), "ca");
    let pair = authority.issue("server", &Wanted::default());
    let setup = Setup::new(process::basalt()).flag("trusted-ca-file", &authority.file);
    let server = secured(setup, &pair);
    let client = authority.issue("client", &Wanted::default());
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            let (endpoint, cacert) = (secure_endpoint(&server), authority.file.clone());
            let client = client.clone();
            std::thread::spawn(move || {
                let flags =
                    ["--cacert", &cacert, "--cert", &client.certificate, "--key", &client.key];
                while !over.load(Ordering::Relaxed) {
                    let key = format!("{writer}-{}", served.fetch_add(1, Ordering::Relaxed));
                    let told = etcdctl(&endpoint, &flags, &["put", &key, "x"]);
                    assert_eq!(told.code, Some(0), "{}", told.stderr);
                }
            })
        })
        .collect();
    for rotation in 0..rotations {
        let (certificate, key) =
            authority.texts(&Wanted { serial: rotation + 1, ..Wanted::default() });
        // As a rotator does it that knows nothing of the other file.
        replace(&pair.certificate, certificate);
        replace(&pair.key, key);
        std::thread::sleep(Duration::from_millis(25));
    }
    wait(|| served.load(Ordering::Relaxed) > 4, "clients are served", &server);
    over.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().expect("no request fails"));
    let flags = ["--cacert", &authority.file, "--cert", &client.certificate, "--key", &client.key];
    assert_told(&etcdctl(&secure_endpoint(&server), &flags, &["put", "last", "x"]), "OK", &server);
    let sure = |path: &Path| fs::metadata(path).is_ok();
    assert!(
        sure(Path::new(&pair.certificate))
            && server.logs.wait_for("reloaded certificates", PATIENCE)
    );
}
