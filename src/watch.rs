//! Room watch.
