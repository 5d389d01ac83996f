//! Standard output and standard error.

use std::io::Write as _;

use basalt::snapshot::{KvHash, Status};
use gocompat::bytes;

use crate::{Failure, exit};

/// Writes text; a closed pipe ends the program as it does others.
pub(crate) fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

pub(crate) fn error(line: &str) {
    // Standard error is closed: there is no other place to report it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// `--write-out`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    /// Accepted, and supported by no command.
    Protobuf,
    Table,
}

impl Format {
    pub(crate) fn new(name: &str) -> Result<Self, Failure> {
        match name {
            "simple" => Ok(Self::Simple),
            "fields" => Ok(Self::Fields),
            "json" => Ok(Self::Json),
            "protobuf" => Ok(Self::Protobuf),
            "table" => Ok(Self::Table),
            _ => Err(Failure::new(exit::BAD_FEATURE, "unsupported output format")),
        }
    }

    pub(crate) fn status(self, status: &Status) -> Result<String, Failure> {
        let Status { hash, revision, keys, bytes, version } = status;
        let row = [
            format!("{hash:x}"),
            revision.to_string(),
            keys.to_string(),
            bytes::text(*bytes),
            version.clone(),
        ];
        Ok(match self {
            Self::Protobuf => return Err(unsupported()),
            Self::Simple => format!("{}\n", row.join(", ")),
            Self::Fields => format!(
                "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {keys}\n\"Size\" : {bytes}\n\
                 \"Version\" : {version}\n"
            ),
            Self::Json => format!(
                "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{keys},\"totalSize\":{bytes},\
                 \"version\":{}}}\n",
                serde_json::Value::from(version.as_str())
            ),
            Self::Table => table(["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], &row),
        })
    }

    pub(crate) fn hash_kv(self, found: &KvHash) -> Result<String, Failure> {
        let KvHash { hash, revision, compact_revision } = found;
        let row = [hash.to_string(), revision.to_string(), compact_revision.to_string()];
        Ok(match self {
            Self::Protobuf => return Err(unsupported()),
            Self::Simple => format!("{}\n", row.join(", ")),
            Self::Fields => format!(
                "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\
                 \"Compact revision\" : {compact_revision}\n"
            ),
            Self::Json => format!(
                "{{\"hash\":{hash},\"hashRevision\":{revision},\"compactRevision\":{compact_revision}}}\n"
            ),
            Self::Table => table(["HASH", "HASH REVISION", "COMPACT REVISION"], &row),
        })
    }
}

fn unsupported() -> Failure {
    Failure::new(exit::BAD_FEATURE, "protobuf not supported as output format")
}

/// A table of one row: titles centred, values aligned right.
fn table<const COLUMNS: usize>(titles: [&str; COLUMNS], row: &[String; COLUMNS]) -> String {
    let widths: Vec<_> =
        titles.iter().zip(row).map(|(title, value)| title.len().max(value.len()) + 2).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let lines: Vec<_> = widths.iter().map(|width| "─".repeat(*width)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let titles: Vec<_> =
        titles.iter().zip(&widths).map(|(title, width)| format!("{title:^width$}")).collect();
    let values: Vec<_> =
        row.iter().zip(&widths).map(|(value, width)| format!("{value:>0$} ", width - 1)).collect();
    [
        rule("┌", "┬", "┐"),
        format!("│{}│\n", titles.join("│")),
        rule("├", "┼", "┤"),
        format!("│{}│\n", values.join("│")),
        rule("└", "┴", "┘"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_etcdutls() {
        let status = Status {
            hash: 0xc4c1_4e26,
            revision: 35,
            keys: 7,
            bytes: 155_648,
            version: "3.7.0".to_owned(),
        };
        assert_eq!(Format::Simple.status(&status).unwrap(), "c4c14e26, 35, 7, 156 kB, 3.7.0\n");
        assert_eq!(
            Format::Json.status(&status).unwrap(),
            "{\"hash\":3301002790,\"revision\":35,\"totalKey\":7,\"totalSize\":155648,\
             \"version\":\"3.7.0\"}\n"
        );
        let hash = KvHash { hash: 429_950_868, revision: 35, compact_revision: 12 };
        assert_eq!(
            Format::Table.hash_kv(&hash).unwrap(),
            "┌───────────┬───────────────┬──────────────────┐\n\
             │   HASH    │ HASH REVISION │ COMPACT REVISION │\n\
             ├───────────┼───────────────┼──────────────────┤\n\
             │ 429950868 │            35 │               12 │\n\
             └───────────┴───────────────┴──────────────────┘\n"
        );
        assert_eq!(Format::Protobuf.hash_kv(&hash).unwrap_err().code, 4);
        assert_eq!(Format::new("yaml").unwrap_err().code, 4);
    }
}
