//! snapshot save: one member's whole state into a file, which gets its name only when it is complete.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use basalt_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use gocompat::duration;
use steady::WritebackFile;
use tokio::time::Instant;

use crate::client::error::Refusal;
use crate::client::settings::Settings;
use crate::command::Context;
use crate::print::progress::Progress;
use crate::print::{human, out};
use crate::{Failure, exit};
use dial::files::why;
use gocompat::zap::Line;

const METHOD: &str = "/etcdserverpb.Maintenance/Snapshot";
/// A snapshot ends with its checksum, so it is this much longer than whole sectors.
const SECTOR: u64 = 512;
const CHECKSUM: u64 = 32;

/// # Errors
/// The stream broke, or the file cannot be written.
pub(crate) async fn save(mut context: Context) -> Result<(), Failure> {
    context.exactly(1, "snapshot save expects one argument <filename>")?;
    let (settings, _) = context.settings().await?;
    let path = context.arg(0);
    let part = format!("{path}.part");
    let version = fetch(&settings, &path, &part).await;
    // The file exists only after a failure.
    let _ = std::fs::remove_file(&part);
    let version = version.map_err(|it| Failure::new(exit::INTERRUPTED, it))?;
    out::line(&format!("Snapshot saved at {path}"));
    if !version.is_empty() {
        out::line(&format!("Server version {version}"));
    }
    Ok(())
}

fn info(logger: &str, line: u32) -> Line {
    match logger {
        "" => Line::new("info", "", &format!("snapshot/v3_snapshot.go:{line}")),
        _ => Line::new("info", logger, &format!("v3@v3.7.1/maintenance.go:{line}")),
    }
}

#[allow(clippy::disallowed_methods, reason = "the log tells how long it took")]
async fn fetch(settings: &Settings, path: &str, part: &str) -> Result<String, String> {
    let [endpoint] = settings.endpoints.as_slice() else {
        let all = settings.endpoints.join(" ");
        return Err(format!(
            "snapshot must be requested to one selected node, not multiple [{all}]"
        ));
    };
    let client = settings.client_named("client").await;
    let client = client.map_err(|it| it.text.unwrap_or_default())?;
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part);
    let file =
        options.map_err(|it| format!("could not open {part} (open {part}: {})", why(&it)))?;
    // The member that sends the snapshot may write to the same disk.
    let mut file = WritebackFile::new(file);
    info("", 83).message("created temporary db file").text("path", part).write();
    let began = Instant::now();
    let deadline = settings.command_timeout_given.then(|| client.deadline()).flatten();
    let stream = client.answers::<_, SnapshotResponse>(METHOD, SnapshotRequest {}, deadline);
    let mut stream = stream.await.map_err(|it| refused(&it))?;
    info("client", 236).message("opened snapshot stream; downloading").write();
    let mut version = String::new();
    let mut size = 0;
    let progress = Progress::new();
    while let Some(chunk) = next(&mut stream, deadline).await? {
        if size == 0 {
            version = chunk.version;
            info("", 96).message("fetching snapshot").text("endpoint", endpoint).write();
        }
        file.write_all(&chunk.blob)
            .map_err(|it| format!("could not write snapshot: write {part}: {}", why(&it)))?;
        size += chunk.blob.len() as u64;
        let all = size + chunk.remaining_bytes;
        progress.show(|| format!("{} of {}", human::bytes(size), human::bytes(all)));
    }
    drop(progress);
    info("client", 302).message("completed snapshot read; closing").write();
    if size % SECTOR != CHECKSUM {
        return Err(format!("sha256 checksum not found [bytes: {size}]"));
    }
    finish(file.file(), part, path, || {
        info("", 111)
            .message("fetched snapshot")
            .text("endpoint", endpoint)
            .text("size", &human::bytes(size))
            .text("took", &duration::text(began.elapsed()))
            .text("etcd-version", &version)
            .write();
    })?;
    info("", 121).message("saved").text("path", path).write();
    Ok(version)
}

/// The log line of the Go client for a stream that could not be opened; none if the server itself refused it.
fn refused(refusal: &Refusal) -> String {
    if refusal.late {
        Line::new("error", "client", "v3@v3.7.1/retry_interceptor.go:134")
            .message("streamer failed to create ClientStream")
            .text("error", &refusal.grpc_text())
            .write();
        return refusal.text();
    }
    info("client", 236).message("opened snapshot stream; downloading").write();
    lost(refusal)
}

fn lost(refusal: &Refusal) -> String {
    Line::new("warn", "client", "v3@v3.7.1/maintenance.go:304")
        .message("failed to receive from snapshot stream; closing")
        .text("error", &refusal.grpc_text())
        .write();
    refusal.text()
}

async fn next(
    stream: &mut tonic::Streaming<SnapshotResponse>,
    deadline: Option<Instant>,
) -> Result<Option<SnapshotResponse>, String> {
    let message = match deadline {
        None => stream.message().await,
        Some(deadline) => match tokio::time::timeout_at(deadline, stream.message()).await {
            Ok(message) => message,
            Err(_) => return Err("context deadline exceeded".to_owned()),
        },
    };
    message.map_err(|it| lost(&Refusal::of(it)))
}

/// Makes the file durable and renames it.
fn finish(file: &File, part: &str, path: &str, fetched: impl FnOnce()) -> Result<(), String> {
    file.sync_all().map_err(|it| format!("could not fsync snapshot: {}", why(&it)))?;
    fetched();
    std::fs::rename(Path::new(part), Path::new(path)).map_err(|it| {
        let why = why(&it);
        format!("could not rename {part} to {path} (rename {part} {path}: {why})")
    })
}
