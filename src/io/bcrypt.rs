//! Passwords as bcrypt hashes, in the text that etcd writes. Each takes some sixty milliseconds: to be made in a pool.

use ::bcrypt::{Version, hash_with_result};

/// etcd's default cost.
const COST: u32 = 10;

/// The hash of a password with a salt of its own.
///
/// # Errors
/// There is no randomness, or the password is too long; which, in a sentence.
pub fn hash_password(password: &str) -> Result<String, String> {
    let parts = hash_with_result(password, COST).map_err(|error| error.to_string())?;
    Ok(parts.format_for_version(Version::TwoA))
}
