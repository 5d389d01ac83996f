//! Paths, dates, usages, names and revocations, beside the rules of Go.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SerialNumber, date_time_ymd,
};

use super::*;
use crate::suites::{Suites, provider};

/// A certificate and what can sign others in its name.
struct Made {
    der: CertificateDer<'static>,
    pem: String,
    params: CertificateParams,
    key: KeyPair,
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn made(params: CertificateParams, issuer: Option<&Made>) -> Made {
    let key = KeyPair::generate().expect("a key");
    let certificate = match issuer {
        Some(made) => params.signed_by(&key, &Issuer::from_params(&made.params, &made.key)),
        None => params.self_signed(&key),
    };
    let certificate = certificate.expect("a certificate");
    Made { der: certificate.der().clone(), pem: certificate.pem(), params, key }
}

fn trust(roots: &[&Made]) -> Trust {
    let pem: String = roots.iter().map(|root| root.pem.as_str()).collect();
    Trust { roots: Roots::parse(pem.as_bytes()).expect("they read"), ..Trust::default() }
}

fn verify(trust: &Trust, chain: &[&Made], usage: Usage, host: Option<&str>) -> Result<(), String> {
    let algorithms = provider(&Suites::All).signature_verification_algorithms;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_764_409_445));
    let others: Vec<_> = chain[1..].iter().map(|made| made.der.clone()).collect();
    let verified = trust.verify(&algorithms, &chain[0].der, &others, now, usage, host);
    verified.map_err(|refused| refused.text)
}

const SIGNED: &str =
    "tls: failed to verify certificate: x509: certificate signed by unknown authority";

#[test]
fn paths_are_those_of_go() {
    let root = made(params("root", true), None);
    let middle = made(params("middle", true), Some(&root));
    let leaf = made(params("leaf", false), Some(&middle));
    let (both, client) = (trust(&[&root]), Usage::Client);
    assert_eq!(verify(&both, &[&leaf, &middle], client, None), Ok(()));
    assert_eq!(verify(&both, &[&leaf], client, None), Err(SIGNED.to_owned()));
    assert_eq!(verify(&Trust::default(), &[&leaf], client, None), Err(SIGNED.to_owned()));
    // One that is marked as an authority may be a leaf, if a root has signed it.
    let marked = made(params("marked", true), Some(&root));
    assert_eq!(verify(&both, &[&marked], client, None), Ok(()));
    assert_eq!(verify(&both, &[&marked], Usage::Server, Some("marked")), Ok(()));
    let stranger = made(params("root", true), None);
    let forged = made(params("marked", true), Some(&stranger));
    assert_eq!(verify(&both, &[&forged], client, None), Err(SIGNED.to_owned()));
    // A certificate in the trust file is trusted, whoever has signed it.
    let own = made(params("own", true), None);
    assert_eq!(verify(&trust(&[&own]), &[&own], Usage::Server, Some("own")), Ok(()));
    assert_eq!(verify(&trust(&[&leaf]), &[&leaf], client, None), Ok(()));
    assert_eq!(verify(&both, &[&own], client, None), Err(SIGNED.to_owned()));
}

#[test]
fn dates_usages_names_and_revocations_are_looked_at() {
    let client = Usage::Client;
    let mut over = params("over", true);
    over.not_after = date_time_ymd(2021, 1, 1);
    let over = made(over, None);
    let under = made(params("leaf", false), Some(&over));
    let ended = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: \
        current time 2025-11-29T09:44:05Z is after 2021-01-01T00:00:00Z";
    assert_eq!(verify(&trust(&[&over]), &[&under], client, None), Err(ended.to_owned()));
    assert_eq!(verify(&trust(&[&over]), &[&over], client, None), Err(ended.to_owned()));
    let root = made(params("root", true), None);
    let mut usage = params("leaf", false);
    usage.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    usage.serial_number = Some(SerialNumber::from(0x0abc));
    let leaf = made(usage, Some(&root));
    let mut trust = trust(&[&root]);
    let wrong = format!("tls: failed to verify certificate: {USAGE}");
    assert_eq!(verify(&trust, &[&leaf], client, None), Err(wrong));
    assert_eq!(verify(&trust, &[&leaf], Usage::Server, Some("leaf")), Ok(()));
    let name = "tls: failed to verify certificate: x509: certificate is valid for leaf, not other";
    assert_eq!(verify(&trust, &[&leaf], Usage::Server, Some("other")), Err(name.to_owned()));
    trust.allowed = Allowed::CommonNames(vec!["other".to_owned()]);
    let refused = "client certificate authentication failed";
    assert_eq!(verify(&trust, &[&leaf], Usage::Server, Some("leaf")), Err(refused.to_owned()));
    trust.allowed = Allowed::HostNames(vec!["leaf".to_owned()]);
    assert_eq!(verify(&trust, &[&leaf], Usage::Server, Some("leaf")), Ok(()));
    let list = rcgen::CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2021, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(0x0abc),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    // Whoever has issued the list, and when.
    let issuer = Issuer::from_params(&over.params, &over.key);
    let list = list.signed_by(&issuer).expect("a list");
    let pem = list.pem().expect("as text");
    for file in [list.der().as_ref(), pem.as_bytes()] {
        trust.revoked = Some(Revoked::parse(file).expect("it reads"));
        let refused = "transport: certificate serial 0abc revoked";
        assert_eq!(verify(&trust, &[&leaf], Usage::Server, Some("leaf")), Err(refused.to_owned()));
    }
    assert_eq!(Revoked::parse(b"x"), Err("x509: malformed crl".to_owned()));
    assert_eq!(Revoked::parse(root.pem.as_bytes()), Err("x509: malformed crl".to_owned()));
}

#[test]
fn a_chain_is_verified_once_in_a_second() {
    let (end, over) = (1_764_409_445, 1_764_409_446);
    let at = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
    let root = made(params("root", true), None);
    let mut ends = params("leaf", false);
    ends.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
    let leaf = made(ends, Some(&root));
    let verifier = ClientVerifier::new(provider(&Suites::All), trust(&[&root]));
    let accepts = |leaf: &Made, others: &[CertificateDer<'_>], second| {
        verifier.verify_client_cert(&leaf.der, others, at(second)).is_ok()
    };
    let noted = || verifier.accepted.lock().expect("no test panics").chains.len();
    assert!(accepts(&leaf, &[], end));
    assert!(verifier.has_accepted(&chain_bytes(&leaf.der, &[]), at(end)));
    assert!(accepts(&leaf, &[], end) && noted() == 1);
    // Another key in the same name, and the same certificate with others, are other chains.
    let forged = made(params("leaf", false), Some(&made(params("root", true), None)));
    assert!(!accepts(&forged, &[], end) && noted() == 1);
    assert!(accepts(&leaf, std::slice::from_ref(&root.der), end) && noted() == 2);
    assert!(!accepts(&leaf, &[], over), "its time is over in the next second");
    for number in 0..ACCEPTED_MAX + 10 {
        verifier.note_accepted(number.to_be_bytes().to_vec(), at(over));
    }
    assert_eq!(noted(), ACCEPTED_MAX);
    verifier.note_accepted(vec![0; ACCEPTED_BYTES_MAX + 1], at(end));
    assert_eq!(noted(), 0, "it is too large");
    assert!(accepts(&leaf, &[], end) && noted() == 1);
}
