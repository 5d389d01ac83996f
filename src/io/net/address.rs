//! Where sockets are.

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// The path of a socket, which is made anew.
    Unix(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) | Self::Unix(address) => out.write_str(address),
        }
    }
}

impl Address {
    /// Where a URL of a member leads: to `host:port`, or to the path of a socket for `unix://path` and `unixs://path`. etcd's own such URLs
    /// look like `unix://host:port`, which is a path relative to the working directory.
    pub fn of_url(url: &str) -> Self {
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        match scheme {
            "unix" | "unixs" => Self::Unix(rest.to_owned()),
            _ => Self::Tcp(rest.split('/').next().unwrap_or(rest).to_owned()),
        }
    }
}
