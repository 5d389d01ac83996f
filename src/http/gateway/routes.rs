//! The paths of the gateway and their RPCs, from the table of RPCs.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use basalt_proto::rpc::{METHODS, Rpc};

use crate::json::Operation;
use crate::rpc::rule;

/// RPCs by their paths.
static ROUTES: LazyLock<BTreeMap<&str, Rpc>> = LazyLock::new(|| {
    let of = |rpc| rule(rpc).routes.iter().map(move |path| (*path, rpc));
    METHODS.iter().flat_map(|method| of(method.rpc)).collect()
});

/// The RPC of a path.
pub(super) fn find(path: &str) -> Option<Rpc> {
    ROUTES.get(path).copied()
}

/// All paths, for the description of the API.
pub(super) fn operations() -> Vec<Operation> {
    let described = |(path, rpc): (&&'static str, &Rpc)| {
        let method = rpc.method();
        let streams = matches!(rpc, Rpc::Streaming(_));
        Operation { path, service: method.service, method: method.name, streams }
    };
    ROUTES.iter().map(described).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_leads_to_an_rpc_with_known_messages() {
        for (path, rpc) in &*ROUTES {
            assert_eq!(find(path), Some(*rpc));
            assert!(super::super::types(*rpc).is_ok(), "{path}");
        }
        assert_eq!(ROUTES.len(), 51);
        assert!(find("/v3/kv/rangestream").is_none());
    }
}
