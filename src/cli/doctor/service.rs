//! The service itself: whether it runs, and, if not, whether its address is free.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};

use super::finding::Finding;
use crate::cli::health::{self, Question};
use crate::cli::service::Place;
use crate::wal;

const SERVICE: &str = "service";

/// Asks for it. The log's lock is looked for and not tried: a service that starts in that moment would
/// find it taken.
pub(super) fn examine(dir: &Path, place: Place) -> Vec<Finding> {
    let holder = holder(dir);
    let live = health::ask(place, Question::Live);
    let is_live = live.as_ref().is_ok_and(|answer| answer.is_yes);
    let who = holder.map_or("it runs".to_owned(), |pid| format!("it runs (process {pid})"));
    match (holder, live) {
        (None, _) if !is_live => vec![Finding::ok(SERVICE, "it does not run"), address(place)],
        (Some(_), Err(health::Error::NoPort)) => vec![Finding::ok(SERVICE, who)],
        (_, Ok(_)) if is_live => vec![readiness(&who, place)],
        (_, answer) => {
            let why = answer.map_or_else(|error| error.to_string(), |answer| answer.body);
            vec![Finding::fail(
                SERVICE,
                format!("{who}, and does not say that it lives: {why}"),
                "see its log output, and restart it",
            )]
        }
    }
}

fn readiness(who: &str, place: Place) -> Finding {
    match health::ask(place, Question::Ready) {
        Ok(answer) if answer.is_yes => {
            Finding::ok(SERVICE, format!("{who}, and takes messages in"))
        }
        Ok(answer) => Finding::fail(
            SERVICE,
            format!("{who}, and takes no messages in: {}", answer.body),
            "see what else fails here",
        ),
        Err(error) => Finding::fail(
            SERVICE,
            format!("{who}, and does not say whether it is ready: {error}"),
            "see its log output",
        ),
    }
}

fn address(place: Place) -> Finding {
    match TcpListener::bind(place.address) {
        Ok(_) => Finding::ok("http", format!("{} is free", place.address)),
        Err(error) => Finding::fail(
            "http",
            format!("{} cannot be listened at: {error}", place.address),
            "stop what listens there, or set HTTP_ADDR",
        ),
    }
}

/// The process that holds the log in `dir`, as the kernel lists it (proc(5), `/proc/locks`).
fn holder(dir: &Path) -> Option<u32> {
    let lock = fs::metadata(dir.join(wal::LOCK)).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let device = format!("{:02x}:{:02x}", major(lock.dev()), minor(lock.dev()));
    locks.lines().filter_map(of_line).find_map(|(pid, place, inode)| {
        // Layered filesystems show another device than the one that the kernel lists.
        let is_ours = || {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "ingestor"
        };
        (inode == lock.ino() && (place == device || is_ours())).then_some(pid)
    })
}

/// Process, device and inode of an exclusive lock of a whole file.
fn of_line(line: &str) -> Option<(u32, &str, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let is_it = [words.next()?, words.next()?, words.next()?] == ["FLOCK", "ADVISORY", "WRITE"];
    let pid = words.next()?.parse().ok()?;
    let (device, inode) = words.next()?.rsplit_once(':')?;
    is_it.then_some((pid, device, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_kernels_list_of_locks_is_read() {
        let line = "12: FLOCK  ADVISORY  WRITE 2217 fd:00:1573023 0 EOF";
        assert_eq!(of_line(line), Some((2_217, "fd:00", 1_573_023)));
        assert_eq!(of_line("12: -> FLOCK  ADVISORY  WRITE 2217 fd:00:1 0 EOF"), None);
        assert_eq!(of_line("1: POSIX  ADVISORY  WRITE 5 00:1c:29 0 EOF"), None);
        assert_eq!(of_line(""), None);
    }

    #[test]
    fn whoever_holds_the_log_is_known_and_is_not_held_up() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), None);
        let lock = File::create(dir.path().join(wal::LOCK)).unwrap();
        assert_eq!(holder(dir.path()), None);
        lock.try_lock().unwrap();
        assert_eq!(holder(dir.path()), Some(std::process::id()));
        lock.unlock().unwrap();
        assert_eq!(holder(dir.path()), None);
    }
}
