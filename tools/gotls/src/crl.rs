//! Certificate revocation lists. As in etcd only serial numbers are looked at: no issuer, no signature, no dates.

use std::collections::BTreeSet;

use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

/// Serial numbers of revoked certificates, without leading zeros.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revoked(BTreeSet<Vec<u8>>);

/// A serial number without its sign and leading zeros.
pub(super) fn normal(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

impl Revoked {
    /// Reads a list in DER, or any number of them in PEM, where etcd takes DER alone.
    ///
    /// # Errors
    /// It is neither, in Go's words.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let malformed = || "x509: malformed crl".to_owned();
        let is_pem = file.windows(PEM.len()).any(|part| part == PEM);
        let mut serials = BTreeSet::new();
        let mut take = |der: &[u8]| {
            let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| malformed())?;
            let revoked = list.iter_revoked_certificates();
            serials.extend(revoked.map(|it| normal(it.raw_serial()).to_vec()));
            Ok::<_, String>(())
        };
        if !is_pem {
            take(file)?;
            return Ok(Self(serials));
        }
        use rustls::pki_types::CertificateRevocationListDer;
        use rustls::pki_types::pem::PemObject as _;
        let mut lists = 0;
        for list in CertificateRevocationListDer::pem_slice_iter(file) {
            take(&list.map_err(|_| malformed())?)?;
            lists += 1;
        }
        if lists == 0 { Err(malformed()) } else { Ok(Self(serials)) }
    }

    /// Tells if the certificate with this serial number was revoked.
    pub fn contains(&self, serial: &[u8]) -> bool {
        self.0.contains(normal(serial))
    }
}

const PEM: &[u8] = b"-----BEGIN ";
