//! Certificates for tests: an authority, and what it signs.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// Replaces a file as a whole.
pub(crate) fn replace(path: &str, text: impl AsRef<[u8]>) {
    let next = format!("{path}.next");
    fs::write(&next, text).expect("it is written");
    fs::rename(next, path).expect("it is replaced");
}

/// A certificate authority, with its certificate in a file.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    dir: PathBuf,
    pub(crate) file: String,
}

/// A certificate and its key, in files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The content of a certificate.
pub(crate) struct Wanted<'a> {
    pub(crate) common_name: &'a str,
    /// Names and addresses.
    pub(crate) hosts: &'a [&'a str],
    pub(crate) usages: &'a [ExtendedKeyUsagePurpose],
    pub(crate) serial: u64,
    pub(crate) last_year: i32,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            common_name: "",
            hosts: &["localhost", "127.0.0.1"],
            usages: BOTH,
            serial: 1000,
            last_year: 2099,
        }
    }
}

pub(crate) const BOTH: &[ExtendedKeyUsagePurpose] =
    &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

impl Authority {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let path = dir.join(format!("{name}.crt"));
        fs::write(&path, certificate.pem()).expect("it is written");
        Self { params, key, dir: dir.to_owned(), file: path.display().to_string() }
    }

    /// A pair in new files of this name.
    pub(crate) fn issue(&self, name: &str, wanted: &Wanted<'_>) -> Pair {
        let (certificate, key) = self.texts(wanted);
        let pair = Pair {
            certificate: self.dir.join(format!("{name}.crt")).display().to_string(),
            key: self.dir.join(format!("{name}.key")).display().to_string(),
        };
        fs::write(&pair.certificate, certificate).expect("it is written");
        fs::write(&pair.key, key).expect("it is written");
        pair
    }

    /// A certificate and its key as PEM.
    pub(crate) fn texts(&self, wanted: &Wanted<'_>) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !wanted.common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, wanted.common_name);
        }
        for host in wanted.hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*host).try_into().expect("a name")),
            });
        }
        params.extended_key_usages = wanted.usages.to_vec();
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(wanted.last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A list of revoked serial numbers, in DER.
    pub(crate) fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            // Over for long: nobody looks at it.
            next_update: date_time_ymd(2021, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&issuer).expect("a list").der().to_vec()
    }
}
