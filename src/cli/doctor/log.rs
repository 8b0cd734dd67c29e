//! The log's directory and the disk below it.
//!
//! Of the log itself nothing is opened and nothing locked: a service that starts in this moment must not
//! find it taken. What the disk is asked with has no name where the filesystem can do that.

#![expect(clippy::disallowed_methods, reason = "it measures a disk")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, StatVfs};

use super::finding::Finding;
use crate::cli::installation::User;
use crate::wal::Settings;

const DIRECTORY: &str = "log directory";
const ROOM: &str = "room";
const DISK: &str = "disk";

const ROOT: u32 = 0;

/// Syncs that are timed.
const SYNCS: usize = 20;
/// An acknowledgement waits for one of them, and the broker for it.
const SLOW: Duration = Duration::from_millis(100);
const PAGE: [u8; 4_096] = [0; 4_096];

/// Looks at it. It should be `user`'s, or, where that is unknown, be of one user.
pub(super) fn examine(settings: &Settings, user: Option<&User>) -> Vec<Finding> {
    let dir = std::path::absolute(&settings.dir).unwrap_or_else(|_| settings.dir.clone());
    let place = existing(&dir);
    let times = match file_without_a_name(&place).and_then(|file| time_syncs(&file)) {
        Ok(times) => times,
        Err(error) => {
            return vec![Finding::fail(
                DIRECTORY,
                format!("{} cannot be written to: {error}", place.display()),
                "let WAL_DIR be a directory of the service's user, on a disk that is mounted for writing",
            )];
        }
    };
    let mut findings = vec![directory(&dir, &place, user)];
    if let Ok(stat) = rustix::fs::statvfs(&place) {
        findings.push(room(settings, &dir, &stat));
    }
    findings.push(disk(&place, times));
    findings
}

/// `dir`, or what there is of the way to it.
pub(super) fn existing(dir: &Path) -> PathBuf {
    dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn directory(dir: &Path, place: &Path, user: Option<&User>) -> Finding {
    let shown = dir.display();
    if place != dir {
        let what = format!("{shown} is not there yet, and made at the first start");
        return Finding::ok(DIRECTORY, what);
    }
    let Ok(metadata) = fs::metadata(dir) else {
        return Finding::fail(
            DIRECTORY,
            format!("{shown} cannot be looked at"),
            "run this as root",
        );
    };
    let wanted = user.map_or(metadata.uid(), |user| user.id);
    match first_unusable(dir, wanted) {
        Ok(None) => Finding::ok(DIRECTORY, shown.to_string()),
        Ok(Some(path)) => {
            let owner = user.map_or_else(
                || format!("--reference={shown}"),
                |user| format!("{}:{}", user.id, user.group),
            );
            Finding::fail(
                DIRECTORY,
                format!("{} is not the service's user's to read and to write", path.display()),
                format!("chown --recursive {owner} {shown} && chmod --recursive u+rwX {shown}"),
            )
        }
        Err(error) => Finding::warning(
            DIRECTORY,
            format!("not all of {shown} can be looked at: {error}"),
            "run this as root",
        ),
    }
}

/// What a program that was once run as root, or a copy, has left in `dir` or made of it.
fn first_unusable(dir: &Path, user: u32) -> io::Result<Option<PathBuf>> {
    let metadata = match fs::symlink_metadata(dir) {
        // Trimmed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let needed = if metadata.is_dir() { 0o700 } else { 0o600 };
    let has_rights = user == ROOT || metadata.mode() & needed == needed;
    let is_usable = metadata.uid() == user && has_rights;
    if !(metadata.is_symlink() || is_usable) {
        return Ok(Some(dir.to_owned()));
    }
    if !metadata.is_dir() {
        return Ok(None);
    }
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    for entry in entries {
        // Root's, on a disk of its own.
        let entry = entry?;
        if entry.file_name() == "lost+found" {
            continue;
        }
        if let Some(path) = first_unusable(&entry.path(), user)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn room(settings: &Settings, dir: &Path, stat: &StatVfs) -> Finding {
    const MIB: u64 = 1024 * 1024;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let left = settings.max_bytes.saturating_sub(bytes_below(dir));
    let shown = format!("{} MiB are free, of which the log may take {}", free / MIB, left / MIB);
    if free < settings.min_free_bytes {
        return Finding::fail(
            ROOM,
            format!("{shown}: it counts as full, and nothing is taken from the broker"),
            "free room on that disk, or lower WAL_MIN_FREE_BYTES",
        );
    }
    if free - settings.min_free_bytes < left {
        return Finding::warning(
            ROOM,
            format!("{shown}, so the disk is full before the log is"),
            "give it a larger disk, or lower WAL_MAX_BYTES",
        );
    }
    Finding::ok(ROOM, shown)
}

fn bytes_below(dir: &Path) -> u64 {
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        // Trimmed meanwhile.
        Err(_) => 0,
    };
    fs::read_dir(dir).map_or(0, |entries| entries.flatten().map(bytes).sum())
}

/// A file that is gone as soon as it is closed.
fn file_without_a_name(dir: &Path) -> io::Result<File> {
    let (owner, flags) = (Mode::RUSR | Mode::WUSR, OFlags::TMPFILE | OFlags::RDWR);
    if let Ok(file) = rustix::fs::open(dir, flags | OFlags::CLOEXEC, owner) {
        return Ok(file.into());
    }
    let path = dir.join(format!(".ingestor-doctor-{}", std::process::id()));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn time_syncs(file: &File) -> io::Result<Vec<Duration>> {
    let time = |at: u64| {
        file.write_all_at(&PAGE, at * PAGE.len() as u64)?;
        let began = Instant::now();
        file.sync_data().map(|()| began.elapsed())
    };
    (0..SYNCS as u64).map(time).collect()
}

fn disk(place: &Path, mut times: Vec<Duration>) -> Finding {
    if let Some(kind) = forgetful(place) {
        return Finding::fail(
            DISK,
            format!("{} is {kind}, so what is acknowledged does not survive", place.display()),
            "put WAL_DIR on a disk",
        );
    }
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let shown = format!(
        "a sync takes {:.1} ms, at worst {:.1} ms of {SYNCS}",
        milliseconds(median),
        milliseconds(worst)
    );
    if median > SLOW {
        return Finding::warning(
            DISK,
            format!("{shown}, and acknowledgements wait for it"),
            "put WAL_DIR on another disk, and see what else writes to this one",
        );
    }
    Finding::ok(DISK, shown)
}

/// The kind of a filesystem that keeps nothing (statfs(2)).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of 32 bits")]
fn forgetful(place: &Path) -> Option<&'static str> {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    match rustix::fs::statfs(place).ok()?.f_type as u32 {
        TMPFS | RAMFS => Some("in memory"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path, max_bytes: u64, min_free_bytes: u64) -> Settings {
        let dir = dir.to_owned();
        let retain = Duration::from_secs(60);
        Settings { dir, max_bytes, min_free_bytes, generation_bytes: 1 << 20, retain }
    }

    fn line_of<'l>(lines: &'l [String], name: &str) -> &'l str {
        let is_it = |line: &&String| line.contains(&format!(" {name}: "));
        lines.iter().find(is_it).unwrap_or_else(|| panic!("{name} in {lines:?}"))
    }

    fn lines(settings: &Settings) -> Vec<String> {
        examine(settings, None).iter().map(Finding::line).collect()
    }

    #[test]
    fn nothing_of_it_stays_and_a_directory_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let found = lines(&settings(&dir.path().join("a/b"), 1 << 22, 0));
        assert!(line_of(&found, DIRECTORY).contains("is not there yet"), "{found:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_written_to_is_a_failure() {
        let found = lines(&settings(Path::new("/proc/wal"), 1 << 22, 0));
        assert!(
            found.iter().any(|line| line.starts_with("FAIL log directory: /proc cannot")),
            "{found:?}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = lines(&settings(file.path(), 1 << 22, 0));
        assert!(line_of(&found, DIRECTORY).contains("Not a directory"), "{found:?}");
    }

    #[test]
    fn a_log_that_is_not_all_its_users_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (generation, settings) = (dir.path().join("1"), settings(dir.path(), 1 << 22, 0));
        fs::create_dir(&generation).unwrap();
        fs::write(generation.join("db"), "").unwrap();
        let id = fs::metadata(dir.path()).unwrap().uid();
        let found = |id: Option<u32>| {
            let user = id.map(|id| User { id, group: 7, others: vec![] });
            let lines: Vec<_> =
                examine(&settings, user.as_ref()).iter().map(Finding::line).collect();
            line_of(&lines, DIRECTORY).to_owned()
        };
        assert!(found(None).starts_with("ok "));
        assert!(found(Some(id)).starts_with("ok "));
        let other = found(Some(id + 1));
        assert!(
            other.starts_with("FAIL ")
                && other.contains(&format!("chown --recursive {}:7", id + 1))
        );
        assert_eq!(first_unusable(dir.path(), id + 1).unwrap().as_deref(), Some(dir.path()));
        assert_eq!(first_unusable(&dir.path().join("gone"), id).unwrap(), None);
    }

    #[test]
    fn room_that_ends_before_the_log_is_full_is_a_warning_and_none_at_all_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let room = |max_bytes, min_free_bytes| {
            line_of(&lines(&settings(dir.path(), max_bytes, min_free_bytes)), ROOM).to_owned()
        };
        assert!(room(1 << 22, 0).starts_with("ok room: "));
        assert!(room(1 << 50, 0).starts_with("warning room: "));
        assert!(room(1 << 22, 1 << 50).starts_with("FAIL room: "));
    }

    #[test]
    fn a_slow_disk_is_a_warning_with_what_it_takes() {
        let times = vec![Duration::from_millis(150); SYNCS];
        let line = disk(Path::new("/proc"), times).line();
        assert!(line.starts_with("warning disk: a sync takes 150.0 ms"), "{line}");
    }
}
