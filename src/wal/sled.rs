//! Generations on disk, one sled database each. The only file that knows sled.
//!
//! ```text
//! WAL_DIR/LOCK                    held for as long as a process uses the directory
//! WAL_DIR/committed               end of the committed log, with a checksum; written, not synced
//! WAL_DIR/<20 digits>/            a generation, named by the offset of its first record
//! WAL_DIR/quarantine/<20 digits>/ a damaged one, with report.json
//! WAL_DIR/dead-letters/           not of the log, see `dead_letters`
//! ```
//!
//! What sled 0.34.7 is known for, and what is done about it:
//! - `flush()` is no fsync on Linux → `fdatasync` on a descriptor of our own after it.
//! - A new database is not durable by itself → its files and directories are synced on creation.
//! - Large pages go to blob files that are never synced → frames stay under 7,000 bytes.
//! - `snap.*.generating` left by a crash fails the next open → deleted before opening.
//! - A missing `db` is silently made anew → checked before opening.
//! - Damage is forgotten or panics, never reported → what is open is compared with the frames in
//!   the raw file, and panics are caught.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::sled::{Db, IVec, Tree};

use super::WalError;
use super::block::{self, Block, Offset};
use super::salvage::{self, Salvaged};
use super::storage::{Generation, Quarantined, Salvage, Storage};

/// sled's page cache, for each open generation; at most three are open. Blocks are read once and
/// in order, so a larger one would only cost memory.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// Bounds on what is kept of damaged generations; past them the oldest go.
const QUARANTINE_MAX_GENERATIONS: usize = 4;

const FLUSHED_KEY: &[u8] = b"flushed";

/// The WAL directory.
pub struct SledStorage {
    dir: PathBuf,
    committed: File,
    _lock: File,
}

impl SledStorage {
    /// Takes the directory for this process, making it if it is not there.
    ///
    /// # Errors
    /// [`WalError::Locked`] while another process holds it, [`WalError::Io`] if it cannot be used.
    pub fn open(dir: &Path) -> Result<Self, WalError> {
        let io = |what: &'static str| move |source| WalError::Io { what, source };
        fs::create_dir_all(dir).map_err(io("make the WAL directory"))?;
        let lock = options().open(dir.join("LOCK")).map_err(io("open the WAL's lock file"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => WalError::Locked { dir: dir.to_owned() },
            fs::TryLockError::Error(source) => WalError::Io { what: "lock the WAL", source },
        })?;
        let committed = options().open(dir.join("committed")).map_err(io("open WAL/committed"))?;
        sync_dir(dir).map_err(io("sync the WAL directory"))?;
        Ok(Self { dir: dir.to_owned(), committed, _lock: lock })
    }

    fn path(&self, first: Offset) -> PathBuf {
        self.dir.join(generation_id(first))
    }

    fn quarantine_dir(&self) -> PathBuf {
        self.dir.join("quarantine")
    }

    fn trim_quarantine(&self) -> io::Result<()> {
        let mut kept: Vec<_> = fs::read_dir(self.quarantine_dir())?.collect::<Result<_, _>>()?;
        kept.sort_by_key(fs::DirEntry::file_name);
        let surplus = kept.len().saturating_sub(QUARANTINE_MAX_GENERATIONS);
        for entry in &kept[..surplus] {
            tracing::warn!(
                generation = %entry.file_name().display(),
                "quarantine holds {QUARANTINE_MAX_GENERATIONS} newer generations: deleting the oldest"
            );
            fs::remove_dir_all(entry.path())?;
        }
        Ok(())
    }
}

/// The name of a generation's directory.
#[must_use]
pub fn generation_id(first: Offset) -> String {
    format!("{first:020}")
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn sled_config(path: &Path) -> ::sled::Config {
    ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES)
}

/// Runs a call into sled, which panics on some kinds of damage.
fn guarded<T>(call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, WalError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::sled::Error::Io(source))) => Err(WalError::Io { what: "use the WAL", source }),
        Ok(Err(error)) => Err(WalError::Damaged { what: error.to_string() }),
        Err(_) => Err(WalError::Damaged { what: "sled panicked".to_owned() }),
    }
}

/// Waits until sled's own lock on a database is free: it outlives a dropped handle for as long as
/// sled's background threads take to end, and a refused lock would look like damage.
fn await_unlocked(db: &File) -> io::Result<()> {
    db.lock()?;
    db.unlock()
}

impl Storage for SledStorage {
    fn list(&self) -> Result<Vec<Offset>, WalError> {
        let list = || -> io::Result<Vec<Offset>> {
            let mut all = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|name| name.len() == 20) else { continue };
                if entry.file_type()?.is_dir()
                    && let Ok(first) = name.parse()
                {
                    all.push(first);
                }
            }
            all.sort_unstable();
            Ok(all)
        };
        list().map_err(|source| WalError::Io { what: "list the WAL directory", source })
    }

    fn create(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError> {
        let path = self.path(first);
        let db = guarded(|| sled_config(&path).open())?;
        let meta = guarded(|| db.open_tree("meta"))?;
        guarded(|| meta.insert(FLUSHED_KEY, &first.to_be_bytes()).and_then(|_| db.flush()))?;
        let settle = || -> io::Result<File> {
            for entry in fs::read_dir(&path)? {
                File::open(entry?.path())?.sync_all()?;
            }
            sync_dir(&path)?;
            sync_dir(&self.dir)?;
            options().open(path.join("db"))
        };
        let io = |source| WalError::Io { what: "make a new WAL generation", source };
        let file = settle().map_err(io)?;
        Ok(Arc::new(SledGeneration { db, meta, file, trimmed: first.into() }))
    }

    fn open(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError> {
        let path = self.path(first);
        let damaged = |what: String| WalError::Damaged { what };
        let io = |source| WalError::Io { what: "open a WAL generation", source };
        if !path.join("db").is_file() {
            return Err(damaged("its db file is missing".to_owned()));
        }
        for entry in fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().ends_with(".generating") {
                fs::remove_file(entry.path()).map_err(io)?;
            }
        }
        let file = options().open(path.join("db")).map_err(io)?;
        await_unlocked(&file).map_err(io)?;
        // Before sled may write over what it has forgotten.
        let mut raw_end = 0;
        salvage::scan(&file, |found| raw_end = raw_end.max(found.header.end())).map_err(io)?;

        let db = guarded(|| sled_config(&path).open())?;
        let meta = guarded(|| db.open_tree("meta"))?;
        let trimmed = guarded(|| meta.get(FLUSHED_KEY))?;
        let trimmed = match trimmed.map(|value| <[u8; 8]>::try_from(value.as_ref())) {
            Some(Ok(bytes)) => Offset::from_be_bytes(bytes),
            _ => return Err(damaged("its flushed offset is missing".to_owned())),
        };
        let generation = SledGeneration { db, meta, file, trimmed: trimmed.into() };
        let end = generation.end()?.max(trimmed);
        if end < raw_end {
            return Err(damaged(format!(
                "sled has records up to offset {end}, its file holds some up to {raw_end}"
            )));
        }
        Ok(Arc::new(generation))
    }

    fn salvage(
        &self,
        first: Offset,
        floor: Offset,
        expected_end: Offset,
    ) -> Result<Salvage, WalError> {
        Salvaged::read(&self.path(first).join("db"), first, floor, expected_end)
            .map_err(|source| WalError::Io { what: "read a damaged WAL generation", source })
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
            let place = quarantine.join(&report.id);
            if place.exists() {
                fs::remove_dir_all(&place)?;
            }
            fs::rename(self.path(first), &place)?;
            // A full disk must not keep the log from going on: the report is a convenience.
            let written = File::create(place.join("report.json")).and_then(|mut file| {
                serde_json::to_writer_pretty(&mut file, report)?;
                file.flush()
            });
            if let Err(error) = written {
                tracing::warn!(%error, generation = report.id, "no report written into quarantine");
            }
            sync_dir(&quarantine)?;
            sync_dir(&self.dir)?;
            self.trim_quarantine()
        };
        set_aside().map_err(|source| WalError::Io { what: "set a WAL generation aside", source })
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        let Ok(entries) = fs::read_dir(self.quarantine_dir()) else { return Vec::new() };
        let mut all: Vec<Quarantined> = entries
            .filter_map(|entry| fs::read(entry.ok()?.path().join("report.json")).ok())
            .filter_map(|report| serde_json::from_slice(&report).ok())
            .collect();
        all.sort_by(|a, b| (&a.at, &a.id).cmp(&(&b.at, &b.id)));
        all
    }

    fn disk_bytes(&self, first: Offset) -> u64 {
        let Ok(entries) = fs::read_dir(self.path(first)) else { return 0 };
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    }

    fn free_bytes(&self) -> Result<u64, WalError> {
        let stat = rustix::fs::statvfs(&self.dir)
            .map_err(|error| WalError::Io { what: "ask for free space", source: error.into() })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn note_committed(&self, next: Offset) {
        let mut note = [0; 12];
        note[..8].copy_from_slice(&next.to_le_bytes());
        note[8..].copy_from_slice(&crc32fast::hash(&next.to_le_bytes()).to_le_bytes());
        if let Err(error) = self.committed.write_all_at(&note, 0) {
            tracing::debug!(%error, "the end of the committed log was not noted");
        }
    }

    fn last_committed(&self) -> Option<Offset> {
        let mut note = [0; 12];
        self.committed.read_exact_at(&mut note, 0).ok()?;
        let (next, sum) = note.split_at(8);
        let intact = crc32fast::hash(next).to_le_bytes() == sum;
        intact.then(|| Offset::from_le_bytes(next.try_into().unwrap_or_default()))
    }
}

struct SledGeneration {
    db: Db,
    meta: Tree,
    /// A descriptor of our own for fdatasync.
    file: File,
    trimmed: AtomicU64,
}

impl Generation for SledGeneration {
    fn insert(&self, first: Offset, frame: &[u8]) -> Result<(), WalError> {
        guarded(|| self.db.insert(first.to_be_bytes(), frame)).map(drop)
    }

    fn sync(&self) -> Result<(), WalError> {
        guarded(|| self.db.flush())?;
        self.file.sync_data().map_err(|source| WalError::Io { what: "sync the WAL", source })
    }

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

    fn end(&self) -> Result<Offset, WalError> {
        let last = guarded(|| self.db.last())?;
        last.map_or(Ok(0), |(_, frame)| Ok(intact(&frame)?.end()))
    }

    fn trim(&self, flushed: Offset) -> Result<(), WalError> {
        guarded(|| self.meta.insert(FLUSHED_KEY, &flushed.to_be_bytes()))?;
        self.trimmed.store(flushed, Ordering::Relaxed);
        while let Some((key, frame)) = guarded(|| self.db.first())? {
            let damaged = |error: block::FrameError| WalError::Damaged { what: error.to_string() };
            if block::check(&frame).map_err(damaged)?.end() > flushed {
                break;
            }
            guarded(|| self.db.remove(&key))?;
        }
        Ok(())
    }

    fn trimmed(&self) -> Offset {
        self.trimmed.load(Ordering::Relaxed)
    }

    fn disk_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

fn intact(frame: &IVec) -> Result<Block, WalError> {
    block::decode(frame).map_err(|error| WalError::Damaged { what: error.to_string() })
}
