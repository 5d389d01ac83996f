//! Room rpc.
