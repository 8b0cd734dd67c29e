//! Generations on disk, one sled database each. The only file that knows sled.
//!
//! ```text
//! WAL_DIR/LOCK                    held for as long as a process uses the directory
//! WAL_DIR/positions               how far the log is committed and flushed; written, not synced
//! WAL_DIR/<20 digits>/            a generation, named by the offset of its first record
//! WAL_DIR/quarantine/<20 digits>/ a damaged one, with report.json
//! WAL_DIR/dead-letters/           not of the log, see `dead_letters`
//! ```
//!
//! sled 0.34.7 is fast at appending, and that is all it is used for: a database is written by the
//! process that made it and never opened again (see `scan`, which reads it without sled). What
//! is left of the traps it is known for, and what is done about them:
//! - `flush()` is no fsync on Linux → `fdatasync` on a descriptor of our own after it.
//! - A new database is not durable by itself → its files and directories are synced on creation.
//! - Large pages go to blob files that are never synced → frames stay under 7,000 bytes.
//! - A deletion that is not durable yet may already be written over → see
//!   [`Active::remove_below`].
//! - A write that fails may leave `flush()` waiting for ever → see [`wake_on_error`].

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ::sled::{Db, IVec};

use crate::wal::contract::{
    Active, Generation, Known, Positions, Quarantined, Sealed, Storage, generation_id,
};
use crate::wal::error::WalError;
use crate::wal::frame::{self, Block, Offset};
use crate::wal::scan;

/// sled's page cache. Blocks are read once and in order, so a larger one would only cost memory.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;

/// How often the watch looks for an error that sled has noted.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is known of a generation in quarantine.
const REPORT: &str = "report.json";

/// The WAL directory.
pub struct SledStorage {
    dir: PathBuf,
    positions: File,
    _lock: File,
}

impl SledStorage {
    /// Takes the directory for this process, making it if it is not there.
    ///
    /// # Errors
    /// [`WalError::Locked`] while another process holds it, [`WalError::Io`] if it cannot be used.
    pub fn open(dir: &Path) -> Result<Self, WalError> {
        let io = |what: &'static str| move |source| WalError::Io { what, source };
        make_dir(dir).map_err(io("make the WAL directory"))?;
        let lock = options().open(dir.join("LOCK")).map_err(io("open the WAL's lock file"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => WalError::Locked { dir: dir.to_owned() },
            fs::TryLockError::Error(source) => WalError::Io { what: "lock the WAL", source },
        })?;
        // Now, so that a full disk does not keep a damaged generation from being set aside.
        fs::create_dir_all(dir.join("quarantine")).map_err(io("make WAL/quarantine"))?;
        let positions = options().open(dir.join("positions")).map_err(io("open WAL/positions"))?;
        sync_dir(dir).map_err(io("sync the WAL directory"))?;
        Ok(Self { dir: dir.to_owned(), positions, _lock: lock })
    }

    fn path(&self, first: Offset) -> PathBuf {
        self.dir.join(generation_id(first))
    }

    fn quarantine_dir(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    /// What is in quarantine: each directory, and its report if that can be read.
    fn set_aside(&self) -> Vec<(PathBuf, Option<Quarantined>)> {
        let Ok(entries) = fs::read_dir(self.quarantine_dir()) else { return Vec::new() };
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .map(|dir| {
                let report = report(&dir);
                (dir, report)
            })
            .collect()
    }
}

/// The generations in a directory, oldest first.
pub(in crate::wal) fn generations(dir: &Path) -> io::Result<Vec<Offset>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(first) = first_offset(&entry.file_name())
        {
            all.push(first);
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// What the name of a generation's directory says.
pub(in crate::wal) fn first_offset(name: &OsStr) -> Option<Offset> {
    let is_id = |name: &&str| name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    name.to_str().filter(is_id)?.parse().ok()
}

/// What was noted in `WAL_DIR/positions`.
pub(in crate::wal) fn read_positions(file: &File) -> Option<Positions> {
    let mut note = [0; 20];
    file.read_exact_at(&mut note, 0).ok()?;
    let (positions, checksum) = note.split_at(16);
    if crc32fast::hash(positions).to_le_bytes() != checksum {
        return None;
    }
    let (committed, flushed) = positions.split_at(8);
    let offset = |bytes: &[u8]| bytes.try_into().map(Offset::from_le_bytes).ok();
    Some(Positions { committed: offset(committed)?, flushed: offset(flushed)? })
}

/// What was written down when the generation in `dir` was set aside.
pub(in crate::wal) fn report(dir: &Path) -> Option<Quarantined> {
    let report = fs::read(dir.join(REPORT)).ok()?;
    serde_json::from_slice(&report).ok()
}

/// Bytes that the files in `dir` take.
pub(in crate::wal) fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
}

/// Makes `dir` and what is missing above it, durably. Its own name is made durable even if it was
/// there: whoever made it may not have come to that.
fn make_dir(dir: &Path) -> io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let missing = dir.ancestors().skip(1).take_while(|ancestor| !ancestor.exists()).count();
    fs::create_dir_all(&dir)?;
    dir.ancestors().skip(1).take(missing + 1).try_for_each(sync_dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Runs a call into sled, which panics on some errors.
fn guarded<T>(call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, WalError> {
    let io = |source| WalError::Io { what: "use the WAL", source };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::sled::Error::Io(source))) => Err(io(source)),
        Ok(Err(error)) => Err(io(io::Error::other(error.to_string()))),
        Err(_) => Err(io(io::Error::other("sled panicked"))),
    }
}

impl Storage for SledStorage {
    fn list(&self) -> Result<Vec<Offset>, WalError> {
        generations(&self.dir)
            .map_err(|source| WalError::Io { what: "list the WAL directory", source })
    }

    fn create(&self, first: Offset) -> Result<Arc<dyn Active>, WalError> {
        let path = self.path(first);
        let io = |source| WalError::Io { what: "make a new WAL generation", source };
        if path.is_dir() {
            // Of a process that ended before its first commit.
            fs::remove_dir_all(&path).map_err(io)?;
        } else if path.exists() {
            tracing::warn!(path = %path.display(), "a file is in the place of a WAL generation: deleting it");
            fs::remove_file(&path).map_err(io)?;
        }
        let db = guarded(|| ::sled::Config::new().path(&path).cache_capacity(CACHE_BYTES).open())?;
        let settle = || -> io::Result<File> {
            for entry in fs::read_dir(&path)? {
                File::open(entry?.path())?.sync_all()?;
            }
            sync_dir(&path)?;
            sync_dir(&self.dir)?;
            File::open(path.join("db"))
        };
        let file = settle().map_err(io)?;
        let (lifeline, dropped) = mpsc::channel();
        let watched = db.clone();
        let watch = move || wake_on_error(&watched, &dropped);
        let watch = thread::Builder::new().name("wal-watch".to_owned()).spawn(watch).map_err(io)?;
        let generation = SledGeneration { db, file, watch: Some((lifeline, watch)) };
        Ok(Arc::new(generation))
    }

    fn open(&self, first: Offset, known: Known) -> Result<Sealed, WalError> {
        let io = |source| WalError::Io { what: "open a WAL generation", source };
        let path = self.path(first).join("db");
        if known.end.is_none() && path.exists() {
            // What the last process wrote and did not sync counts as committed from now on.
            File::open(&path).and_then(|db| db.sync_data()).map_err(io)?;
        }
        scan::open(&path, first, known).map_err(io)
    }

    fn delete(&self, first: Offset) -> Result<(), WalError> {
        fs::remove_dir_all(self.path(first))
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|source| WalError::Io { what: "delete a WAL generation", source })
    }

    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError> {
        let set_aside = || -> io::Result<()> {
            let quarantine = self.quarantine_dir();
            fs::create_dir_all(&quarantine)?;
            // Never in the place of another: a log that was begun anew may have had the same offsets.
            let names = (2..).map(|n| format!("{}.{n}", report.id));
            let mut places = std::iter::once(report.id.clone()).chain(names);
            let place =
                places.find_map(|name| Some(quarantine.join(name)).filter(|place| !place.exists()));
            let place = place.ok_or_else(|| io::Error::other("no name is left"))?;
            match fs::rename(self.path(first), &place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&place)?,
                moved => moved?,
            }
            // A full disk must not keep the log from going on: the report is a convenience.
            let written = File::create(place.join(REPORT)).and_then(|mut file| {
                serde_json::to_writer_pretty(&mut file, report)?;
                file.flush()
            });
            if let Err(error) = written {
                tracing::warn!(%error, generation = report.id, "no report written into quarantine");
            }
            sync_dir(&quarantine)?;
            sync_dir(&self.dir)
        };
        set_aside().map_err(|source| WalError::Io { what: "set a WAL generation aside", source })
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        let mut all: Vec<_> =
            self.set_aside().into_iter().filter_map(|(_, report)| report).collect();
        all.sort_by(|a, b| (&a.at, &a.id).cmp(&(&b.at, &b.id)));
        all
    }

    fn quarantine_bytes(&self) -> u64 {
        self.set_aside().iter().map(|(dir, _)| bytes_in(dir)).sum()
    }

    fn evict_quarantined(&self) -> Result<bool, WalError> {
        let mut evictable: Vec<(Quarantined, PathBuf)> = self
            .set_aside()
            .into_iter()
            // Without a report nobody knows what it is.
            .filter_map(|(dir, report)| Some((report?, dir)))
            .filter(|(report, dir)| report.unknown_version.is_none() && dir.join("db").exists())
            .collect();
        evictable.sort_by(|(a, _), (b, _)| (&a.at, &a.id).cmp(&(&b.at, &b.id)));
        let Some((report, dir)) = evictable.first() else { return Ok(false) };
        tracing::warn!(
            generation = report.id,
            lost_ranges = ?report.lost_ranges,
            "no room is left: deleting the oldest damaged WAL generation from quarantine, what was intact in it is stored"
        );
        // Its report stays.
        let evict = || -> io::Result<()> {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else if entry.file_name() != REPORT {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        evict()
            .map_err(|source| WalError::Io { what: "empty a generation in quarantine", source })?;
        Ok(true)
    }

    fn disk_bytes(&self, first: Offset) -> u64 {
        bytes_in(&self.path(first))
    }

    fn free_bytes(&self) -> Result<u64, WalError> {
        let stat = rustix::fs::statvfs(&self.dir)
            .map_err(|error| WalError::Io { what: "ask for free space", source: error.into() })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn note(&self, positions: Positions) {
        let mut note = [0; 20];
        note[..8].copy_from_slice(&positions.committed.to_le_bytes());
        note[8..16].copy_from_slice(&positions.flushed.to_le_bytes());
        let checksum = crc32fast::hash(&note[..16]);
        note[16..].copy_from_slice(&checksum.to_le_bytes());
        if let Err(error) = self.positions.write_all_at(&note, 0) {
            tracing::debug!(%error, "the log's positions were not noted");
        }
    }

    fn settle_note(&self) {
        if let Err(error) = self.positions.sync_data() {
            tracing::debug!(%error, "the log's positions were not synced");
        }
    }

    fn noted(&self) -> Option<Positions> {
        read_positions(&self.positions)
    }
}

struct SledGeneration {
    db: Db,
    /// A descriptor of our own for fdatasync.
    file: File,
    /// What ends [`wake_on_error`], and the thread that it runs on.
    watch: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

/// Wakes whoever waits in sled for a write that has failed, until the generation is let go of.
///
/// When a write fails that the end of an insert or a removal began (sled 0.34.7, `pagecache/logger.rs`,
/// `exit_reservation`), sled notes the error and wakes nobody, not even a flush. A flush that begins
/// after that sees the error, wakes all, and ends at once.
fn wake_on_error(db: &Db, dropped: &mpsc::Receiver<()>) {
    while dropped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        if db.context.global_error().is_err() {
            // Whoever is woken reports the error.
            guarded(|| db.flush()).ok();
        }
    }
}

impl Drop for SledGeneration {
    /// The watch holds sled, too, and ends first: whoever lets go of a generation reads its file, and
    /// relies on sled having ended then.
    fn drop(&mut self) {
        // sled flushes at its end, when nobody watches any more; this leaves it nothing to wait for.
        guarded(|| self.db.flush()).ok();
        if let Some((lifeline, watch)) = self.watch.take() {
            drop(lifeline);
            watch.join().ok();
        }
    }
}

impl Generation for SledGeneration {
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        if let Some((_, frame)) = guarded(|| self.db.get_lt((offset + 1).to_be_bytes()))? {
            let block = intact(&frame)?;
            if block.end() > offset {
                return Ok(Some(block));
            }
        }
        let next = guarded(|| self.db.get_gt(offset.to_be_bytes()))?;
        next.map(|(_, frame)| intact(&frame)).transpose()
    }

    fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl Active for SledGeneration {
    fn insert(&self, first: Offset, frame: &[u8]) -> Result<(), WalError> {
        guarded(|| self.db.insert(first.to_be_bytes(), frame)).map(drop)
    }

    fn sync(&self) -> Result<(), WalError> {
        guarded(|| self.db.flush())?;
        self.file.sync_data().map_err(|source| WalError::Io { what: "sync the WAL", source })
    }

    fn remove_below(&self, flushed: Offset) -> Result<(), WalError> {
        while let Some((key, frame)) = guarded(|| self.db.first())? {
            if !frame::check(&frame).is_ok_and(|header| header.end() <= flushed) {
                break;
            }
            guarded(|| self.db.remove(&key))?;
        }
        Ok(())
    }

    fn as_generation(self: Arc<Self>) -> Arc<dyn Generation> {
        self
    }
}

/// The block in a frame that this process has written; anything else is as good as an I/O error.
fn intact(frame: &IVec) -> Result<Block, WalError> {
    frame::decode(frame).map_err(|error| WalError::Io {
        what: "read back from the WAL",
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}
