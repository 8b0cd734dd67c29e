//! What a process has used, as the kernel counts it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use crate::harness::process::children_of;

/// `USER_HZ`, which has been 100 on every Linux for as long as there has been one.
const TICKS_A_SECOND: u32 = 100;

/// Processor time of all its threads, those that have ended included; in steps of 10 ms.
pub(crate) fn cpu(pid: Pid) -> Duration {
    cpu_if_there(pid).unwrap()
}

/// The same of a process that may have ended.
pub(crate) fn cpu_if_there(pid: Pid) -> Option<Duration> {
    let stat = std::fs::read_to_string(proc(pid, "stat")).ok()?;
    // The name before may hold anything but a closing parenthesis followed by the rest.
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks = |field: usize| rest.split(' ').nth(field - 3)?.parse::<u32>().ok();
    Some(Duration::from_secs(1) * (ticks(14)? + ticks(15)?) / TICKS_A_SECOND)
}

/// Of the process and of its children that still run, as PostgreSQL's connections do.
pub(crate) fn cpu_of_family(pid: Pid) -> Duration {
    cpu(pid) + children_of(pid).into_iter().map(cpu).sum::<Duration>()
}

/// Processor time of its threads that still run, to the nanosecond.
pub(crate) fn cpu_of_threads(pid: Pid) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    let nanos = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    tasks.filter_map(nanos).sum()
}

/// Bytes that it has caused to be written to the disk. More than really were, where the page cache
/// holds a file in large pieces: the kernel counts a whole one for each change in it.
pub(crate) fn written(pid: Pid) -> u64 {
    let io = read(pid, "io");
    let count = |name: &str| -> u64 {
        io.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    match count("write_bytes:") {
        // On tmpfs nothing is: what was handed to the kernel then.
        0 => count("wchar:"),
        bytes => bytes,
    }
}

/// Bytes that anybody has written to the disk under `path` since the machine started, the
/// filesystem's own included; nothing if what is under it is no single disk.
pub(crate) fn written_to_disk_under(path: &Path) -> Option<u64> {
    let filesystem = File::open(path).unwrap();
    rustix::fs::syncfs(&filesystem).unwrap();
    let device = filesystem.metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    // In the kernel's Documentation/block/stat.rst: sectors of 512 bytes, whatever the disk's are.
    stat.split_whitespace().nth(6)?.parse::<u64>().ok().map(|sectors| sectors * 512)
}

fn read(pid: Pid, file: &str) -> String {
    std::fs::read_to_string(proc(pid, file)).unwrap()
}

fn proc(pid: Pid, file: &str) -> String {
    format!("/proc/{}/{file}", pid.as_raw_nonzero())
}
