//! Servers from DNS: `_etcd-client-ssl._tcp.<domain>` and `_etcd-client._tcp.<domain>`.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng as _};

use crate::dns::{self, Service};

/// A server of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// Its host, port, priority and weight.
    pub service: Service,
}

impl Server {
    /// `https://host.:port`.
    pub fn endpoint(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.service.target, self.service.port)
    }
}

/// Endpoints of the servers of a domain, those with TLS first.
///
/// # Errors
/// Neither name can be looked up; Go's text.
pub async fn endpoints(domain: &str, suffix: &str) -> Result<Vec<String>, String> {
    Ok(servers(domain, suffix).await?.iter().map(Server::endpoint).collect())
}

/// The servers of a domain, those with TLS first.
///
/// # Errors
/// Neither name can be looked up; Go's text.
pub async fn servers(domain: &str, suffix: &str) -> Result<Vec<Server>, String> {
    let service = |base: &str| match suffix {
        "" => base.to_owned(),
        _ => format!("{base}-{suffix}"),
    };
    let secure = dns::services(&service("etcd-client-ssl"), domain).await;
    let plain = dns::services(&service("etcd-client"), domain).await;
    if let (Err(secure), Err(plain)) = (&secure, &plain) {
        return Err(format!("dns lookup errors: {secure} and {plain}"));
    }
    let mut random = SmallRng::from_os_rng();
    let all = [("https", secure), ("http", plain)].into_iter();
    Ok(all
        .flat_map(|(scheme, found)| {
            let found = ordered(found.unwrap_or_default(), &mut random).into_iter();
            found.map(move |service| Server { scheme, service })
        })
        .collect())
}

/// By priority; among equals random, a larger weight being first more often (RFC 2782).
fn ordered(mut services: Vec<Service>, random: &mut impl Rng) -> Vec<Service> {
    services.sort_by_key(|it| (it.priority, it.weight));
    for equals in services.chunk_by_mut(|one, other| one.priority == other.priority) {
        let mut sum: u32 = equals.iter().map(|it| u32::from(it.weight)).sum();
        let mut rest = equals;
        while sum > 0 && rest.len() > 1 {
            let mut drawn = random.random_range(0..sum);
            let chosen = rest.iter().position(|it| match drawn.checked_sub(it.weight.into()) {
                Some(left) => {
                    drawn = left;
                    false
                }
                None => true,
            });
            rest.swap(0, chosen.expect("less than the sum was drawn"));
            sum -= u32::from(rest[0].weight);
            rest = &mut rest[1..];
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_weights_are_first_more_often() {
        let service = |port, priority, weight| Service {
            target: "h.test.".to_owned(),
            port,
            priority,
            weight,
        };
        let all = vec![
            service(1, 20, 0),
            service(2, 10, 10),
            service(3, 10, 30),
            service(4, 10, 0),
            service(5, 5, 1),
        ];
        let mut random = SmallRng::seed_from_u64(1);
        let mut first = [0; 6];
        for _ in 0..4000 {
            let ports: Vec<u16> =
                ordered(all.clone(), &mut random).iter().map(|it| it.port).collect();
            assert_eq!((ports[0], ports[4]), (5, 1), "priorities come before weights");
            first[usize::from(ports[1])] += 1;
        }
        assert_eq!(first[2] + first[3], 4000, "who has no weight is last");
        assert!((2850..3150).contains(&first[3]), "{first:?}");
    }
}
