//! Room cluster.
