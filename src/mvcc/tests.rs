//! The key space over the store in memory.
