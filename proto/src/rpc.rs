//! The list of all RPCs, made from the descriptors by `build/rpc.rs`.
//!
//! An [`Rpc`] is two bytes: dispatch code matches on [`Unary`] or [`Streaming`] without a default arm, so that
//! an RPC that is added to a .proto file and served nowhere does not compile.

include!(concat!(env!("OUT_DIR"), "/rpc.rs"));

/// Number of messages in each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// Many requests, one response.
    ClientStream,
    /// One request, many responses.
    ServerStream,
    /// Many requests, many responses.
    BidiStream,
}

impl Kind {
    /// The value of the label `grpc_type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ClientStream => "client_stream",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// An RPC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rpc {
    /// One message each way.
    Unary(Unary),
    /// Many messages one way or both.
    Streaming(Streaming),
}

/// An RPC as its descriptor has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Method {
    /// The RPC.
    pub rpc: Rpc,
    /// `/package.Service/Name`.
    pub path: &'static str,
    /// `package.Service`.
    pub service: &'static str,
    /// The name in the service.
    pub name: &'static str,
    /// Number of messages in each direction.
    pub kind: Kind,
    /// Full name of the request's message.
    pub input: &'static str,
    /// Full name of the response's message.
    pub output: &'static str,
}

impl Rpc {
    /// The RPC of a path, `/package.Service/Name`.
    pub fn find(path: &str) -> Option<Self> {
        let order = |(known, _): &(&str, Self)| (known.len(), *known).cmp(&(path.len(), path));
        BY_PATH.binary_search_by(order).ok().map(|at| BY_PATH[at].1)
    }

    /// The number of this RPC, below [`COUNT`].
    pub const fn number(self) -> usize {
        match self {
            Self::Unary(rpc) => rpc as usize,
            Self::Streaming(rpc) => rpc as usize,
        }
    }

    /// The names of this RPC.
    pub fn method(self) -> &'static Method {
        &METHODS[self.number()]
    }
}

/// True if RPCs of a service are served.
pub fn is_service(service: &str) -> bool {
    METHODS.iter().any(|method| method.service == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_its_rpc() {
        assert!(METHODS.is_sorted_by_key(|method| (method.service, method.name)));
        for (number, method) in METHODS.iter().enumerate() {
            assert_eq!(method.rpc.number(), number, "{method:?}");
            assert_eq!(Rpc::find(method.path), Some(method.rpc), "{method:?}");
            assert_eq!(matches!(method.rpc, Rpc::Unary(_)), method.kind == Kind::Unary);
        }
        for unknown in
            ["", "/", "/etcdserverpb.KV/Rang", "/etcdserverpb.KV/Rangf", "etcdserverpb.KV/Range"]
        {
            assert_eq!(Rpc::find(unknown), None, "{unknown:?}");
        }
        assert!(is_service("etcdserverpb.KV") && !is_service("etcdserverpb.K"));
    }

    #[test]
    fn a_method_is_as_its_descriptor_says() {
        assert_eq!(
            Rpc::Unary(Unary::KVRange).method(),
            &Method {
                rpc: Rpc::Unary(Unary::KVRange),
                path: "/etcdserverpb.KV/Range",
                service: "etcdserverpb.KV",
                name: "Range",
                kind: Kind::Unary,
                input: "etcdserverpb.RangeRequest",
                output: "etcdserverpb.RangeResponse",
            }
        );
        assert_eq!(Rpc::Streaming(Streaming::LeaseKeepAlive).method().kind, Kind::BidiStream);
    }
}
