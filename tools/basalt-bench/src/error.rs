//! The error of a run.

use std::error::Error;

/// Anything that ends a run before it is one.
pub type Fatal = Box<dyn Error + Send + Sync>;
