//! The error of a run.

use std::error::Error;

/// An error that ends a run without a result.
pub type Fatal = Box<dyn Error + Send + Sync>;
