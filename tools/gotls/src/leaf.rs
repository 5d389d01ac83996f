//! The contents of a certificate.

use std::net::IpAddr;

use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::crl::normal;

/// A certificate, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The common name: the last one of several, as in Go.
    pub common_name: Option<String>,
    /// Names of hosts in the subject's alternative names.
    pub dns_names: Vec<String>,
    /// Addresses there.
    pub ip_addresses: Vec<IpAddr>,
    /// The first second at which it is valid, since 1970.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
    /// The serial number, without leading zeros.
    pub serial: Vec<u8>,
    /// There are alternative names of any kind.
    has_alternative_names: bool,
    usages: Option<Usages>,
    /// Extensions restrict whose certificates it may sign, or are critical and unknown here.
    pub(super) is_plain: bool,
}

/// The usages in the extension for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Usages {
    any: bool,
    client: bool,
    server: bool,
}

/// A use of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    /// To prove who a client is.
    Client,
    /// To prove who a server is.
    Server,
}

impl Leaf {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| "x509: malformed certificate".to_owned())?;
        let mut leaf = Self {
            common_name: certificate
                .subject()
                .iter_common_name()
                .last()
                .map(|name| String::from_utf8_lossy(name.as_slice()).into_owned()),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            serial: normal(certificate.raw_serial()).to_vec(),
            has_alternative_names: false,
            usages: None,
            is_plain: true,
        };
        for extension in certificate.iter_extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    leaf.has_alternative_names = true;
                    names.general_names.iter().for_each(|name| leaf.take_name(name));
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    leaf.usages = Some(Usages {
                        any: usage.any,
                        client: usage.client_auth,
                        server: usage.server_auth,
                    });
                }
                ParsedExtension::NameConstraints(_) => leaf.is_plain = false,
                ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::AuthorityKeyIdentifier(_) => (),
                _ if extension.critical => leaf.is_plain = false,
                _ => (),
            }
        }
        Ok(leaf)
    }

    fn take_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
                let sixteen = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok();
                self.ip_addresses.extend(four.or_else(sixteen));
            }
            _ => (),
        }
    }

    /// Tells if it may be used so: any usage that it does not restrict is allowed.
    pub(super) fn allows(&self, usage: Usage) -> bool {
        self.usages.is_none_or(|usages| {
            let named = match usage {
                Usage::Client => usages.client,
                Usage::Server => usages.server,
            };
            usages.any || named
        })
    }

    /// Tells if it is valid for a host, by its alternative names alone (Go's `VerifyHostname`).
    ///
    /// # Errors
    /// It is not, in Go's words.
    pub fn verify_host(&self, host: &str) -> Result<(), String> {
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let address = address.to_canonical();
            if self.ip_addresses.iter().any(|known| known.to_canonical() == address) {
                return Ok(());
            }
            if self.ip_addresses.is_empty() {
                return Err(format!(
                    "x509: cannot validate certificate for {bare} because it doesn't contain any IP SANs"
                ));
            }
            let known: Vec<_> = self.ip_addresses.iter().map(IpAddr::to_string).collect();
            return Err(format!("x509: certificate is valid for {}, not {bare}", known.join(", ")));
        }
        if self.dns_names.iter().any(|pattern| matches(pattern, host)) {
            return Ok(());
        }
        let named = self.common_name.as_deref().unwrap_or_default();
        if !self.has_alternative_names && matches(named, host) {
            return Err(
                "x509: certificate relies on legacy Common Name field, use SANs instead".to_owned()
            );
        }
        if self.dns_names.is_empty() {
            return Err(format!(
                "x509: certificate is not valid for any names, but wanted to match {host}"
            ));
        }
        let known = self.dns_names.join(", ");
        Err(format!("x509: certificate is valid for {known}, not {host}"))
    }

    /// The serial number as etcd prints it: its bytes, two digits each.
    pub(super) fn serial_text(&self) -> String {
        self.serial.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Tells if a host is one of a pattern, whose first label may be `*`.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    let (mut patterns, mut labels) = (pattern.split('.'), host.split('.'));
    let mut is_first = true;
    loop {
        match (patterns.next(), labels.next()) {
            (None, None) => return true,
            (Some("*"), Some(label)) if is_first && !label.is_empty() => (),
            (Some(pattern), Some(label)) if pattern.eq_ignore_ascii_case(label) => (),
            _ => return false,
        }
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(dns: &[&str], ips: &[&str]) -> Leaf {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "only.common");
        for name in dns {
            let name = (*name).try_into().expect("a name");
            params.subject_alt_names.push(rcgen::SanType::DnsName(name));
        }
        for address in ips {
            let address = address.parse().expect("an address");
            params.subject_alt_names.push(rcgen::SanType::IpAddress(address));
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        Leaf::parse(params.self_signed(&key).expect("a certificate").der()).expect("it reads")
    }

    #[test]
    fn hosts_are_verified_as_in_go() {
        let both = leaf(&["*.a.example", "b"], &["127.0.0.1"]);
        assert_eq!(both.common_name.as_deref(), Some("only.common"));
        for host in ["x.A.example", "b", "b.", "127.0.0.1", "[127.0.0.1]"] {
            assert_eq!(both.verify_host(host), Ok(()), "{host}");
        }
        for (host, why) in [
            ("a.example", "x509: certificate is valid for *.a.example, b, not a.example"),
            ("x.y.a.example", "x509: certificate is valid for *.a.example, b, not x.y.a.example"),
            ("127.0.0.2", "x509: certificate is valid for 127.0.0.1, not 127.0.0.2"),
        ] {
            assert_eq!(both.verify_host(host), Err(why.to_owned()));
        }
        let none = leaf(&[], &[]);
        for (host, why) in [
            (
                "only.common",
                "x509: certificate relies on legacy Common Name field, use SANs instead",
            ),
            ("c", "x509: certificate is not valid for any names, but wanted to match c"),
            (
                "::1",
                "x509: cannot validate certificate for ::1 because it doesn't contain any IP SANs",
            ),
        ] {
            assert_eq!(none.verify_host(host), Err(why.to_owned()));
        }
    }
}
