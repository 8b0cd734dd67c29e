//! A disk that fails, is full, slow, or not to be written to.

use std::fs;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Pid, Signal};

use super::arena::{Arena, Fault};
use crate::disasters::SmallFilesystem;
use crate::harness::{Load, PATIENCE, eventually, try_within};

pub(super) const FAULTS: [(&str, Fault); 6] = [
    ("EIO from a sync", sync_fails),
    ("EIO from a write", write_fails),
    ("ENOSPC from some writes", writes_find_no_space),
    ("slow syncs", slow_syncs),
    ("full filesystem", full_filesystem),
    ("read-only filesystem", read_only_filesystem),
];

/// Starts the service with system calls that fail as `inject` says, for a second or two or until
/// it ends, which it has to do in order.
fn start_failing(arena: &mut Arena, call: &str, inject: &str) {
    arena.kill();
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{inject}"));
    let mut victim = arena.service.launch_traced(&["--seccomp-bpf", "-e", &trace, "-e", &inject]);
    if try_within(Duration::from_secs(2), || (!victim.is_running()).then_some(())).is_some() {
        assert_eq!(victim.await_exit(PATIENCE), 1, "{}", victim.log_text());
    }
    victim.kill();
}

fn sync_fails(arena: &mut Arena, _: &Load, random: &mut Rng) {
    let call = *random.choice(&["fdatasync", "fdatasync", "fsync", "sync_file_range"]).unwrap();
    start_failing(arena, call, &format!("error=EIO:when={}", random.u32(1..80)));
}

fn write_fails(arena: &mut Arena, _: &Load, random: &mut Rng) {
    let call = *random.choice(&["pwrite64", "pwrite64", "ftruncate"]).unwrap();
    start_failing(arena, call, &format!("error=EIO:when={}", random.u32(1..150)));
}

fn writes_find_no_space(arena: &mut Arena, load: &Load, random: &mut Rng) {
    arena.kill();
    let first = random.u32(20..150);
    let last = first + random.u32(..20);
    let inject = format!("pwrite64:error=ENOSPC:when={first}..{last}");
    arena.ingestor = Some(arena.service.start_tampered(&inject));
    load.await_more(6_000);
    arena.ingestor().must_run();
}

fn slow_syncs(arena: &mut Arena, load: &Load, _: &mut Rng) {
    arena.kill();
    arena.ingestor = Some(arena.service.start_tampered("fdatasync:delay_exit=300000"));
    load.await_more(8_000);
}

fn full_filesystem(arena: &mut Arena, load: &Load, random: &mut Rng) {
    arena.kill();
    let dir = arena.service.wal_dir();
    if arena.enter_filesystem(|place| SmallFilesystem::mount(place, "size=16m")).is_none() {
        return;
    }
    // Here and there before the service has its first file.
    let left = random.usize(..4 << 20);
    let filler = dir.join("filler");
    fs::write(&filler, vec![0; (16 << 20) - left]).ok();
    arena.postgres.stop();
    let mut ingestor = arena.service.launch();
    load.await_more(12_000);
    let has_ended = !ingestor.is_running();
    assert!(!has_ended, "a full disk is no reason to end: {}", ingestor.log_text());
    if random.bool() {
        ingestor.kill();
    } else {
        ingestor.await_listening();
        arena.ingestor = Some(ingestor);
    }
    // The database comes back before there is room, or the other way round.
    if random.bool() {
        arena.postgres.launch();
        load.await_more(2_000);
        fs::remove_file(filler).unwrap();
    } else {
        fs::remove_file(filler).unwrap();
        load.await_more(2_000);
        arena.postgres.launch();
    }
}

/// An error of the filesystem, upon which ext4 becomes read-only below the files that are open;
/// `mount -o remount,ro` refuses to do that.
///
/// The service stands still meanwhile: an fdatasync that is under way at that very moment returns
/// success although nothing became durable (Linux 6.18; three of 150 files that a loop of `pwrite`
/// and `fdatasync` wrote lost their last piece). No program can help that.
fn read_only_filesystem(arena: &mut Arena, load: &Load, random: &mut Rng) {
    arena.kill();
    let image = arena.service.dir().join("image");
    if arena.enter_filesystem(|place| SmallFilesystem::mount_ext4(place, &image)).is_none() {
        return;
    }
    arena.restart();
    load.await_more(random.u64(1..4_000));
    arena.ingestor().signal(Signal::STOP);
    eventually("it stands still", || has_stopped(arena.ingestor().pid()).then_some(()));
    arena.filesystem().break_down();
    arena.ingestor().signal(Signal::CONT);
    let code = arena.ingestor().await_exit(PATIENCE);
    assert_eq!(code, 1, "{}", arena.ingestor().log_text());
    let mut refused = arena.service.launch();
    assert_eq!(refused.await_exit(PATIENCE), 1, "{}", refused.log_text());
    arena.filesystem().mend();
}

/// Whether no thread of it is in a system call any more.
fn has_stopped(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

#[test]
fn a_disk_that_fails_costs_nothing_that_was_acknowledged() {
    Arena::new().campaign("io-errors", FAULTS.len(), &FAULTS);
}
