//! etcd's check of those who connect to peer and metrics ports: the alternative names of their certificate must name
//! the address that they come from (client/pkg/transport/listener_tls.go). Looks up names, so it may block.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use gotls::Leaf;

/// Tells if the check needs no look-up of names, and if so its result.
pub(super) fn check_addresses(
    leaf: &Leaf,
    remote: Option<SocketAddr>,
) -> Option<Result<(), String>> {
    if leaf.ip_addresses.is_empty() && leaf.dns_names.is_empty() {
        return Some(Ok(()));
    }
    let Some(remote) = remote else {
        return Some(Err("address @: missing port in address".to_owned()));
    };
    if !leaf.ip_addresses.is_empty() {
        match leaf.verify_host(&remote.ip().to_canonical().to_string()) {
            Ok(()) => return Some(Ok(())),
            Err(why) if leaf.dns_names.is_empty() => return Some(Err(why)),
            Err(_) => (),
        }
    }
    None
}

/// Compares the names of hosts: the names of the address must be among them, or one of them must have the address.
///
/// # Errors
/// Neither, in etcd's words.
pub(super) fn check_names(leaf: &Leaf, remote: IpAddr) -> Result<(), String> {
    let remote = remote.to_canonical();
    if names_of(remote).iter().any(|name| is_named(&leaf.dns_names, name)) {
        return Ok(());
    }
    let plain = leaf.dns_names.iter().filter(|name| !name.starts_with("*."));
    for name in plain {
        let found = (name.as_str(), 0).to_socket_addrs();
        if found.is_ok_and(|mut all| all.any(|it| it.ip().to_canonical() == remote)) {
            return Ok(());
        }
    }
    let names: Vec<_> = leaf.dns_names.iter().map(|name| format!("{name:?}")).collect();
    Err(format!("tls: \"{remote}\" does not match any of DNSNames [{}]", names.join(" ")))
}

fn is_named(names: &[String], found: &str) -> bool {
    let found = found.strip_suffix('.').unwrap_or(found);
    names.iter().any(|name| match name.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => found.ends_with(suffix),
        _ => name == found,
    })
}

/// The name of an address, if it has one.
#[allow(unsafe_code, reason = "neither std nor rustix has this call")]
fn names_of(address: IpAddr) -> Option<String> {
    const NAME_BYTES_MAX: usize = 1025;
    let mut name = [0u8; NAME_BYTES_MAX];
    let length = NAME_BYTES_MAX as libc::socklen_t;
    let into = name.as_mut_ptr().cast::<libc::c_char>();
    let outcome = match address {
        IpAddr::V4(address) => {
            // SAFETY: all bytes of the struct may be zero.
            let mut socket: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            socket.sin_family = libc::AF_INET as libc::sa_family_t;
            socket.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            // SAFETY: the address is as long as is said, and so is the room for the name.
            unsafe {
                libc::getnameinfo(
                    (&raw const socket).cast(),
                    size_of::<libc::sockaddr_in>() as libc::socklen_t,
                    into,
                    length,
                    std::ptr::null_mut(),
                    0,
                    libc::NI_NAMEREQD,
                )
            }
        }
        IpAddr::V6(address) => {
            // SAFETY: all bytes of the struct may be zero.
            let mut socket: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            socket.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            socket.sin6_addr.s6_addr = address.octets();
            // SAFETY: the address is as long as is said, and so is the room for the name.
            unsafe {
                libc::getnameinfo(
                    (&raw const socket).cast(),
                    size_of::<libc::sockaddr_in6>() as libc::socklen_t,
                    into,
                    length,
                    std::ptr::null_mut(),
                    0,
                    libc::NI_NAMEREQD,
                )
            }
        }
    };
    let end = name.iter().position(|byte| *byte == 0)?;
    (outcome == 0).then(|| String::from_utf8_lossy(&name[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(dns: &[&str], ips: &[&str]) -> Leaf {
        let mut params = rcgen::CertificateParams::default();
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
    fn certificates_must_name_the_address_that_connects() {
        let remote: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let check = |leaf: &Leaf| check_addresses(leaf, Some(remote));
        assert_eq!(check(&leaf(&[], &[])), Some(Ok(())), "no names are fine");
        assert_eq!(check(&leaf(&[], &["127.0.0.1"])), Some(Ok(())));
        let why = "x509: certificate is valid for 10.1.2.3, not 127.0.0.1";
        assert_eq!(check(&leaf(&[], &["10.1.2.3"])), Some(Err(why.to_owned())));
        assert_eq!(check(&leaf(&["localhost"], &["10.1.2.3"])), None, "names are looked up");
        let nameless = leaf(&[], &["10.1.2.3"]);
        assert!(check_addresses(&nameless, None).is_some_and(|it| it.is_err()));
        assert!(is_named(&["*.b".to_owned()], "a.b.") && !is_named(&["*.b".to_owned()], "b"));
        assert_eq!(check_names(&leaf(&["localhost"], &[]), remote.ip()), Ok(()));
        let why = "tls: \"127.0.0.1\" does not match any of DNSNames [\"h.invalid\"]";
        assert_eq!(check_names(&leaf(&["h.invalid"], &[]), remote.ip()), Err(why.to_owned()));
    }
}
