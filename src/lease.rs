//! Room lease.
