//! Room wal.
