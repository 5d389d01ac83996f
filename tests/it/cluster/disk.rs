//! Members whose disk is full: a tmpfs of its own for each, which a file fills up. No process ends, nothing
//! acknowledged is lost, reads and watches go on, and writes come back by themselves when the file is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DeleteRangeRequest, DeleteRangeResponse, RangeRequest,
    RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};
use bytes::Bytes;
use prost::Message as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tonic::Code;
use tonic::codegen::tokio_stream::StreamExt as _;

use super::members::Members;
use super::{runtime, setup};
use crate::process::{PATIENCE, run};
use crate::wire::{self, Talk, Wire};

/// Two segments of the log, the reserve and the margin, and room for some data.
const DISK_BYTES: u64 = 288 << 20;
/// Less data, which a busy machine writes in time, and still more than one segment.
const DISK_BYTES_TO_FILL: u64 = 256 << 20;
const REFUSAL: &str = "etcdserver: mvcc: database space exceeded";

/// A filesystem in memory, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None`, with the reason printed, if mounting is not permitted.
    fn mount(bytes: u64) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("disk-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a directory can be made");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&path);
        let told = run(command, PATIENCE);
        if told.code != Some(0) {
            eprintln!("skipped: no tmpfs can be mounted here: {}", told.stderr);
            let _ = fs::remove_dir(&path);
            return None;
        }
        Some(Self(path))
    }

    /// Takes all the room that is left, at once, when the member has made what it makes ahead.
    fn fill(&self, name: &str) {
        let until = Instant::now() + PATIENCE;
        let is_made = |name: &str| name.starts_with("free-");
        let wal = self.0.join("data/member/wal");
        let names = || fs::read_dir(&wal).expect("it reads").flatten().map(|it| it.file_name());
        while !names().any(|name| is_made(&name.to_string_lossy())) {
            assert!(Instant::now() < until, "no segment is made ahead");
            std::thread::sleep(Duration::from_millis(10));
        }
        let file = fs::File::create(self.0.join(name)).expect("a file can be made");
        let free = || statvfs(&self.0).expect("it says").f_bavail * 4096;
        // The member may give up its reserve later than its first refusal.
        while free() == 0 {
            assert!(Instant::now() < until, "nothing is given up");
            std::thread::sleep(Duration::from_millis(10));
        }
        let free = free();
        fallocate(&file, FallocateFlags::empty(), 0, free).expect("so much is free");
    }

    fn free(&self, name: &str) {
        fs::remove_file(self.0.join(name)).expect("it is there");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(&self.0);
        run(command, PATIENCE);
        let _ = fs::remove_dir(&self.0);
    }
}

/// Members with a disk each; the members are gone before their disks.
struct Cluster {
    members: Members,
    disks: Vec<Tmpfs>,
}

impl Cluster {
    fn found(count: usize) -> Option<Self> {
        Self::found_on(count, DISK_BYTES)
    }

    fn found_on(count: usize, bytes: u64) -> Option<Self> {
        sweep();
        let disks: Vec<_> = (0..count).map(|_| Tmpfs::mount(bytes)).collect::<Option<_>>()?;
        let data_dir = |disk: &Tmpfs| disk.0.join("data").display().to_string();
        let setups = disks.iter().map(|disk| setup().flag("data-dir", &data_dir(disk)));
        Some(Self { members: Members::found_with(setups), disks })
    }

    fn wire(&self, at: usize) -> Wire {
        self.members.wire(at)
    }

    /// Writes numbered values until one is refused; gives how many were acknowledged.
    async fn write_until_refused(&self, at: usize, value: &str) -> usize {
        let (wire, until) = (self.wire(at), Instant::now() + PATIENCE);
        let mut count = 0;
        while Instant::now() < until {
            match wire.put(&key(count), value).await {
                Ok(_) => count += 1,
                Err(refused) => {
                    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
                    assert_eq!(refused.message(), REFUSAL);
                    return count;
                }
            }
        }
        panic!("m{} takes writes for ever", at + 1);
    }

    /// Waits until a write is taken.
    async fn writes_come_back(&self, at: usize) {
        self.until("no write is taken", async || self.wire(at).put("back", "again").await.is_ok())
            .await;
    }

    async fn until(&self, otherwise: &str, is_so: impl AsyncFn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so().await {
            let said: Vec<_> = self.members.0.iter().map(|it| it.logs.tail()).collect();
            assert!(Instant::now() < until, "{otherwise}:\n{}", said.join("\n\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn reads(&self, at: usize, key: &str, value: &str) {
        for serializable in [false, true] {
            let key = Bytes::from(key.to_owned());
            let request = RangeRequest { key, serializable, ..Default::default() };
            let read = self.wire(at).ask::<_, RangeResponse>(wire::RANGE, &request).await;
            let kvs = read.expect("it reads").kvs;
            assert_eq!(kvs.first().map(|kv| kv.value.as_ref()), Some(value.as_bytes()));
        }
    }

    /// How many alarms are listed.
    async fn alarms(&self, at: usize) -> usize {
        let request = AlarmRequest::default();
        let answer = self.wire(at).ask::<_, AlarmResponse>(wire::ALARM, &request).await;
        answer.expect("it lists").alarms.len()
    }

    fn nobody_ended(&mut self) {
        for (at, server) in self.members.0.iter_mut().enumerate() {
            let ended = server.wait_exit(Duration::from_millis(1));
            assert!(ended.is_none(), "m{} ended: {}", at + 1, server.logs.tail());
        }
    }
}

/// Takes away the filesystems of test processes that were killed.
fn sweep() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disk-").display().to_string();
    for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let Some(name) = path.strip_prefix(&prefix) else { continue };
        let pid = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            drop(Tmpfs(path.into()));
        }
    }
}

fn key(number: usize) -> String {
    format!("key-{number:05}")
}

async fn watch(wire: &Wire, key: &str) -> Talk {
    let create = WatchCreateRequest { key: Bytes::from(key.to_owned()), ..Default::default() };
    let request_union = Some(watch_request::RequestUnion::CreateRequest(create));
    let request = WatchRequest { request_union }.encode_to_vec().into();
    let mut talk = wire.talk(wire::WATCH, request).await.expect("it watches");
    talk.answers.next().await.expect("it answers").expect("it is created");
    talk
}

async fn delete(wire: &Wire, key: &str) -> i64 {
    let request = DeleteRangeRequest { key: Bytes::from(key.to_owned()), ..Default::default() };
    let answer = wire.ask::<_, DeleteRangeResponse>(wire::DELETE_RANGE, &request).await;
    answer.expect("a delete needs no room").deleted
}

#[test]
fn a_member_alone_on_a_full_disk_reads_and_takes_writes_again_when_there_is_room() {
    runtime().block_on(async {
        let Some(mut cluster) = Cluster::found(1) else { return };
        let wire = cluster.wire(0);
        wire.put("a", "1").await.expect("there is room");
        wire.put("watched", "1").await.expect("there is room");
        let mut watching = watch(&wire, "watched").await;
        cluster.disks[0].fill("ballast");
        let count = cluster.write_until_refused(0, "x").await;
        cluster.reads(0, "a", "1").await;
        assert_eq!(delete(&wire, "watched").await, 1);
        let event = watching.answers.next().await.expect("it goes on").expect("it goes on");
        assert_eq!(WatchResponse::decode(event).expect("it reads").events.len(), 1);
        // A request may be refused a moment before the disk is looked at again.
        cluster.until("no alarm", async || cluster.alarms(0).await == 1).await;
        let health = super::page(&cluster.members.0[0].endpoint(), "/health");
        assert!(health.contains("ALARM NOSPACE"), "{health}");
        cluster.nobody_ended();

        // On the full disk it starts as it was, and says so.
        cluster.members.0[0].kill();
        cluster.members.restart(0);
        let logs = &cluster.members.0[0].logs;
        assert!(logs.wait_for("the disk is full", PATIENCE), "{}", logs.all());
        cluster.until("no alarm", async || cluster.alarms(0).await == 1).await;
        cluster.write_until_refused(0, "x").await;
        cluster.reads(0, "a", "1").await;

        cluster.disks[0].free("ballast");
        cluster.writes_come_back(0).await;
        cluster.until("the alarm stays", async || cluster.alarms(0).await == 0).await;
        for number in 0..count {
            cluster.reads(0, &key(number), "x").await;
        }
        cluster.nobody_ended();
    });
}

#[test]
fn a_disk_without_any_room_is_named_at_the_start() {
    runtime().block_on(async {
        let Some(mut cluster) = Cluster::found(1) else { return };
        cluster.wire(0).put("a", "1").await.expect("there is room");
        cluster.disks[0].fill("ballast");
        cluster.write_until_refused(0, "x").await;
        // Somebody takes what was given up, too.
        cluster.disks[0].fill("more");
        cluster.reads(0, "a", "1").await;
        cluster.nobody_ended();
        let server = &mut cluster.members.0[0];
        server.kill();
        server.launch();
        let status = server.wait_exit(PATIENCE);
        assert_eq!(status.map(|it| it.success()), Some(false), "{}", server.logs.tail());
        let said = server.logs.all();
        assert!(said.contains("is full: 0 bytes are free and the member needs"), "{said}");
        server.kill();
        cluster.disks[0].free("more");
        cluster.members.restart(0);
        cluster.reads(0, "a", "1").await;
        cluster.disks[0].free("ballast");
        cluster.writes_come_back(0).await;
    });
}

#[test]
fn a_member_that_fills_its_disk_itself_loses_nothing_and_goes_on() {
    runtime().block_on(async {
        let Some(mut cluster) = Cluster::found_on(1, DISK_BYTES_TO_FILL) else { return };
        // Values that compress would leave the disk to the log, which is truncated meanwhile.
        let value = noise(0, 100_000);
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let (wire, value) = (cluster.wire(0), value.clone());
                tokio::spawn(async move {
                    for count in 0.. {
                        let key = format!("{writer}-{count}");
                        if let Err(refused) = wire.put(&key, &value).await {
                            assert_eq!(refused.message(), REFUSAL);
                            return count;
                        }
                    }
                    unreachable!("the disk is not endless")
                })
            })
            .collect();
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.push(
                tokio::time::timeout(4 * PATIENCE, writer)
                    .await
                    .expect("in time")
                    .expect("refused"),
            );
        }
        assert!(
            acknowledged.iter().sum::<usize>() > 50,
            "a small disk is of no use: {acknowledged:?}"
        );
        let everything = async |cluster: &Cluster| {
            for (writer, count) in acknowledged.iter().enumerate() {
                for count in 0..*count {
                    let read = cluster.wire(0).get(&format!("{writer}-{count}")).await;
                    assert_eq!(read.expect("it reads").kvs[0].value, value.as_bytes());
                }
            }
        };
        everything(&cluster).await;
        cluster.nobody_ended();
        cluster.members.0[0].kill();
        cluster.members.restart(0);
        everything(&cluster).await;
        assert_eq!(delete(&cluster.wire(0), "0-0").await, 1);
        let mut command = Command::new("mount");
        command.args(["-o", "remount,size=1g"]).arg(&cluster.disks[0].0);
        assert_eq!(run(command, PATIENCE).code, Some(0));
        cluster.writes_come_back(0).await;
        cluster.nobody_ended();
    });
}

/// Text that the store cannot make much shorter.
fn noise(seed: usize, length: usize) -> String {
    let mut state = seed as u64 + 1;
    let next = || {
        // Knuth's MMIX; the upper bits are the random ones.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 58) as u8)
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn of_three_members_those_with_room_go_on_and_the_others_follow_when_they_have_some() {
    runtime().block_on(async {
        let Some(mut cluster) = Cluster::found(3) else { return };
        let full = cluster.members.leader().await;
        let others = [(full + 1) % 3, (full + 2) % 3];
        cluster.wire(full).put("a", "1").await.expect("there is room");
        cluster.disks[full].fill("ballast");
        // It hands over, and what is asked of it goes to the next leader.
        let leads = async |at| cluster.members.leader().await == at;
        cluster.until("it leads on", async || !leads(full).await).await;
        cluster
            .until("nothing is taken", async || cluster.wire(full).put("b", "1").await.is_ok())
            .await;
        for at in 0..3 {
            cluster.reads(at, "a", "1").await;
            assert_eq!(cluster.alarms(at).await, 0, "a quorum has room");
        }
        // More than its reserve: it takes no more, and the others do.
        for number in 0..100 {
            let value = noise(number, 200_000);
            cluster.wire(others[0]).put(&key(number), &value).await.expect("the others have room");
        }
        assert_ne!(cluster.members.leader().await, full);
        cluster.nobody_ended();
        let revision = async |cluster: &Cluster, at: usize| {
            let request = RangeRequest {
                key: Bytes::from_static(b"a"),
                serializable: true,
                ..Default::default()
            };
            let read = cluster.wire(at).ask::<_, RangeResponse>(wire::RANGE, &request).await;
            read.expect("it reads").header.expect("a header").revision
        };
        assert!(
            revision(&cluster, full).await < revision(&cluster, others[0]).await,
            "it has no room for that"
        );

        // Of two without room, none can write.
        cluster.disks[others[0]].fill("ballast");
        for at in others {
            cluster.write_until_refused(at, "x").await;
            cluster.reads(at, "a", "1").await;
        }
        cluster.until("no alarm", async || cluster.alarms(others[1]).await == 2).await;
        cluster.disks[others[0]].free("ballast");
        cluster.writes_come_back(others[0]).await;
        assert_eq!(cluster.alarms(others[1]).await, 0);

        cluster.disks[full].free("ballast");
        cluster.writes_come_back(full).await;
        cluster.members.agree().await;
        cluster.nobody_ended();
    });
}
