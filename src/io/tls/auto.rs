//! `--auto-tls` and `--peer-auto-tls`: a certificate that this member makes and signs itself, where and as etcd does,
//! but of the curve P-256: a signature by etcd's P-521 costs ten times as much.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

use super::options::PairFiles;
use crate::io::clock;
use crate::types::Fault;

const DAYS_PER_YEAR: u64 = 365;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The files of such a certificate in `dir`; they are made unless both exist. `hosts` are names and addresses, with a
/// port or without one. A member shows it to others when it connects, too, if it is `for_peers`.
///
/// # Errors
/// They cannot be written.
pub fn make_self_signed(
    dir: &Path,
    hosts: &[String],
    years: u64,
    for_peers: bool,
) -> Result<PairFiles, Fault> {
    let files = PairFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
    if files.certificate.exists() && files.key.exists() {
        return Ok(files);
    }
    if years == 0 {
        return Err(Fault::new("selfSignedCertValidity is invalid,it should be greater than 0"));
    }
    let cannot = |error: &dyn std::fmt::Display| {
        Fault::new(format!("cannot make a certificate in {}: {error}", dir.display()))
    };
    let key = KeyPair::generate().map_err(|error| cannot(&error))?;
    let params = params(hosts, years, for_peers).map_err(|error| cannot(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| cannot(&error))?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| cannot(&error))?;
    // The key last: without both they are made anew.
    write(&files.certificate, &certificate.pem(), 0o644).map_err(|error| cannot(&error))?;
    write(&files.key, &key.serialize_pem(), 0o600).map_err(|error| cannot(&error))?;
    tracing::info!(path = %files.certificate.display(), "created cert file");
    tracing::info!(path = %files.key.display(), "created key file");
    Ok(files)
}

fn params(
    hosts: &[String],
    years: u64,
    for_peers: bool,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if for_peers {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    let now = clock::unix_time();
    let lifetime = DAY * u32::try_from(years * DAYS_PER_YEAR).unwrap_or(u32::MAX);
    params.not_before = (std::time::UNIX_EPOCH + now).into();
    params.not_after = (std::time::UNIX_EPOCH + now + lifetime).into();
    for host in hosts {
        let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into()?),
        });
    }
    Ok(params)
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_serves_the_hosts() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("fixtures/client");
        let hosts = ["127.0.0.1:2379".to_owned(), "a.example:2379".to_owned()];
        let made = make_self_signed(&dir, &hosts, 1, false).expect("it is made");
        let text = fs::read(&made.certificate).expect("it is there");
        let key = fs::read(&made.key).expect("it is there");
        let pair = gotls::key_pair(&text, &key).expect("they belong together");
        let leaf = gotls::Leaf::parse(&pair.cert[0]).expect("it reads");
        assert_eq!(leaf.verify_host("127.0.0.1"), Ok(()));
        assert_eq!(leaf.verify_host("a.example"), Ok(()));
        assert_eq!(leaf.common_name, None);
        let again = make_self_signed(&dir, &hosts, 1, false).expect("it is kept");
        assert_eq!(fs::read(again.certificate).expect("it is there"), text);
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(&made.key).expect("it is there").mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).expect("it is there").mode() & 0o777, 0o700);
        let refused = make_self_signed(&place.path().join("x"), &hosts, 0, false);
        assert!(refused.is_err(), "no certificate ends when it begins");
    }
}
