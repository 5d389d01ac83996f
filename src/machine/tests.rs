//! The whole replicated state over the store in memory.
