//! Room consensus.
