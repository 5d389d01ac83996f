//! Limits of the control groups that the process is in, of either version.

use std::fs;
use std::path::{Path, PathBuf};

/// A limit in either version: controller, mount and file of version 1; file of version 2.
pub(super) struct Limit {
    pub(super) controller: &'static str,
    pub(super) file_v1: &'static str,
    pub(super) file_v2: &'static str,
}

/// The files of a limit, and the version that each belongs to: one for each group and each of its parents, all of
/// which limit the process. In a container the path may be that of the host, and then only the root is found.
pub(super) fn files(root: &Path, limit: &Limit) -> Vec<(u8, PathBuf)> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut files = Vec::new();
    for line in groups.lines() {
        let Some((controllers, path)) = line.split_once(':').and_then(|it| it.1.split_once(':'))
        else {
            continue;
        };
        let (version, mount, file) = match controllers {
            "" => (2, "sys/fs/cgroup".to_owned(), limit.file_v2),
            named if named.split(',').any(|it| it == limit.controller) => {
                (1, format!("sys/fs/cgroup/{}", limit.controller), limit.file_v1)
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        let above = path.ancestors().map(|path| root.join(&mount).join(path).join(file));
        files.extend(above.map(|path| (version, path)));
    }
    files
}
