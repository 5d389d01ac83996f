//! The flags by which `pod`, a program beside the member, knows the member's name and files.

use std::path::PathBuf;

use super::settings::Flags;
use super::table;

/// Name and files of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberFiles {
    /// `--name`.
    pub name: String,
    /// `--data-dir`, or its default.
    pub data_dir: PathBuf,
    /// `--wal-dir`, if it is set.
    pub wal_dir: Option<PathBuf>,
    /// `--trusted-ca-file`.
    pub ca: String,
    /// The certificate that the member shows when it dials, as in etcd: `--client-cert-file`, or `--cert-file`.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl MemberFiles {
    /// # Errors
    /// The flags are in a configuration file, to which none can be added.
    pub fn of(flags: &Flags) -> Result<Self, String> {
        if flags.from_file {
            return Err("--config-file cannot be used here: give the flags themselves".to_owned());
        }
        let name = table::NAME.get(flags);
        let data_dir = super::config::data_dir(flags, &name);
        let wal_dir = super::config::wal_dir(flags);
        let own = (table::CLIENT_CERT_FILE.get(flags), table::CLIENT_KEY_FILE.get(flags));
        let (certificate, key) = match own.0.is_empty() {
            true => (table::CERT_FILE.get(flags), table::KEY_FILE.get(flags)),
            false => own,
        };
        let ca = table::TRUSTED_CA_FILE.get(flags);
        Ok(Self { name, data_dir, wal_dir, ca, certificate, key })
    }
}
