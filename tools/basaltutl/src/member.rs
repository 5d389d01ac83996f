//! `defrag` and `migrate`: etcd's files need them at times, Basalt's do not.

use std::path::Path;

use crate::args::Args;
use crate::{Failure, api_version, exit, output};

/// The program that wrote a data directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Basalt,
    Etcd,
}

/// # Errors
/// There is no member, in etcd's words.
fn owner(data_dir: &str) -> Result<Owner, Failure> {
    if Path::new(data_dir).join("member/store").exists() {
        return Ok(Owner::Basalt);
    }
    let file = Path::new(data_dir).join("member/snap/db");
    file.metadata().map_err(|error| Failure::file("stat", &file, &error))?;
    Ok(Owner::Etcd)
}

/// Prints that nothing has to be done.
///
/// # Errors
/// It is not a directory of Basalt.
pub(crate) fn defrag(args: &Args) -> Result<(), Failure> {
    let data_dir = args.get("data-dir");
    let failed =
        |why: &str| Failure::error(format!("Failed to defragment etcd data[{data_dir}] ({why})"));
    match owner(data_dir).map_err(|it| failed(&it.text))? {
        Owner::Basalt => {
            output::error(
                "Nothing to defragment: a member gives space back by itself while it runs.",
            );
            Ok(())
        }
        Owner::Etcd => Err(failed("these are etcd's files: use etcd's own etcdutl")),
    }
}

/// Prints that nothing is to be migrated, or the way to another version.
///
/// # Errors
/// The version is missing, unknown, or needs another way.
pub(crate) fn migrate(args: &Args) -> Result<(), Failure> {
    let target =
        version(args.get("target-version")).map_err(|text| Failure::new(exit::BAD_ARGS, text))?;
    match owner(args.get("data-dir"))? {
        Owner::Basalt if version(&api_version()) == Ok(target) => {
            output::error("Nothing to migrate: a member of Basalt serves this version as it is.");
            Ok(())
        }
        Owner::Basalt => {
            let (major, minor) = target;
            Err(Failure::error(format!(
                "Basalt's files have no storage version {major}.{minor}: to go there, save a \
                 snapshot of the member and restore it with that version's etcdutl"
            )))
        }
        Owner::Etcd => Err(Failure::error(
            "these are etcd's files: use etcd's own etcdutl, or restore a snapshot of them",
        )),
    }
}

/// `X.Y`, not older than 3.5.
fn version(text: &str) -> Result<(i64, i64), String> {
    let parts = text.split_once('.').filter(|(_, minor)| !minor.contains('.'));
    let Some((major, minor)) = parts else {
        return Err(format!("wrong target version format, expected \"X.Y\", got {text:?}"));
    };
    let number = |part: &str| {
        part.parse::<i64>().map_err(|_| {
            format!(
                "failed to parse target version: strconv.ParseInt: parsing {part:?}: invalid syntax"
            )
        })
    };
    let version = (number(major)?, number(minor)?);
    match version < (3, 5) {
        true => {
            let (major, minor) = version;
            Err(format!("target version \"{major}.{minor}\" not supported. Minimal \"3.5\""))
        }
        false => Ok(version),
    }
}
