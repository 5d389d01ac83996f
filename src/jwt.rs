//! JSON web tokens (RFC 7519, signed as RFC 7515 says) as etcd 3.7.1 makes and reads them (`server/auth/jwt.go`), with
//! all of its 13 signing methods. The time is an argument; files are read by `server`.
//!
//! ```text
//!  --auth-token ─TokenKind::parse─► Options ─(files are read)─► Keys ─sign, verify─► token ⇄ Claims
//! ```
//!
//! Verification with RSA takes some 20 us, with P-521 more than 100: [`Verified`] keeps what was verified.

mod claims;
mod der;
mod encoding;
mod jwks;
mod keys;
mod method;
mod options;
#[cfg(test)]
mod tests;
mod token;
mod verified;

pub use self::claims::{Claims, Invalid};
pub use self::keys::{KeyError, KeyFiles, Keys, SignError};
pub use self::method::Method;
pub use self::options::{InvalidOptions, Options, TokenKind};
pub use self::verified::Verified;
