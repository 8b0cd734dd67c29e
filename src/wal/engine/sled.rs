//! Generations on disk, one sled database each. The only file that knows sled.
//!
//! sled 0.34.7 is fast at appending, and that is all it is used for: a database is written by the
//! process that made it and never opened again (see `raw`, which reads it without sled). What
//! is left of the traps it is known for, and what is done about them:
//! - `flush()` is no fsync on Linux → `fdatasync` on a descriptor of our own after it.
//! - A new database is not durable by itself → its files and directories are synced on creation.
//! - Large pages go to blob files that are never synced → frames stay under 7,000 bytes.
//! - A deletion that is not durable yet may already be written over → see
//!   [`Active::remove_below`].
//! - A write that fails may leave `flush()` waiting for ever → see [`wake_on_error`].

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ::sled::{Db, IVec};

use crate::base::retry::read_again;
use crate::wal::contract::{Active, Bounds, Generation, Positions, Quarantined, Sealed, Storage};
use crate::wal::directory::{DATA_FILE, Directory, bytes_in, if_there};
use crate::wal::error::{ON_DIRECTORY, ON_GENERATION, WalError};
use crate::wal::frame::{self, Block, MAX_FRAME_BYTES};
use crate::wal::offset::Offset;
use crate::wal::raw;

/// sled's page cache. Blocks are read once and in order, so a larger one would only cost memory.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;

/// How often the watch looks for an error that sled has noted.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// sled puts a page that is longer than this into a file of its own, which it never syncs.
const LONGEST_PAGE_BYTES: usize = 131_052;

/// Entries that a page holds at most, before sled splits it.
const ENTRIES_A_PAGE: usize = 17;

/// More than what sled adds to a frame in a page: the key, and lengths.
const ENTRY_BYTES: usize = 64;

const _: () = assert!(ENTRIES_A_PAGE * (MAX_FRAME_BYTES + ENTRY_BYTES) <= LONGEST_PAGE_BYTES);

/// The generations of a WAL directory.
pub struct SledStorage {
    directory: Directory,
}

impl SledStorage {
    /// Takes the directory for this process, making it if it is not there.
    ///
    /// # Errors
    /// [`WalError::Locked`] while another process holds it, [`WalError::Io`] if it cannot be used.
    pub fn open(dir: &Path) -> Result<Self, WalError> {
        Directory::open(dir).map(|directory| Self { directory })
    }
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
        self.directory.list()
    }

    fn create(&self, first: Offset) -> Result<Arc<dyn Active>, WalError> {
        let io = |source| WalError::Io { what: "make a new WAL generation", source };
        self.directory.clear(first).map_err(io)?;
        let path = self.directory.generation(first);
        let db = guarded(|| ::sled::Config::new().path(&path).cache_capacity(CACHE_BYTES).open())?;
        self.directory.sync_generation(first).map_err(io)?;
        let file = File::open(path.join(DATA_FILE)).map_err(io)?;
        let (stop_watch, stopped) = mpsc::channel();
        let watched = db.clone();
        let watch = move || wake_on_error(&watched, &stopped);
        let watch = thread::Builder::new().name("wal-watch".to_owned()).spawn(watch).map_err(io)?;
        Ok(Arc::new(SledGeneration { db, file, watch: Some((stop_watch, watch)) }))
    }

    fn open(&self, first: Offset, bounds: Bounds) -> Result<Sealed, WalError> {
        let path = self.directory.generation(first).join(DATA_FILE);
        if bounds.end.is_none() {
            // What the last process wrote and did not sync counts as committed from now on.
            let io = |source| WalError::Io { what: "sync the newest WAL generation", source };
            let db = if_there(read_again(|| File::open(&path), thread::sleep));
            if let Some(db) = db.map_err(WalError::unread(&path, ON_GENERATION))? {
                db.sync_data().map_err(io)?;
            }
        }
        raw::open(&path, first, bounds).map_err(WalError::unread(&path, ON_GENERATION))
    }

    fn delete(&self, first: Offset) -> Result<(), WalError> {
        self.directory.delete(first)
    }

    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError> {
        self.directory.quarantine.take(&self.directory.generation(first), report)
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>, WalError> {
        self.directory.quarantine.reports()
    }

    fn quarantine_bytes(&self) -> u64 {
        self.directory.quarantine.bytes()
    }

    fn evict_quarantined(&self) -> Result<bool, WalError> {
        self.directory.quarantine.evict()
    }

    fn disk_bytes(&self, first: Offset) -> Result<u64, WalError> {
        let path = self.directory.generation(first);
        let bytes = read_again(|| bytes_in(&path), thread::sleep);
        bytes.map_err(WalError::unread(path, ON_DIRECTORY))
    }

    fn free_bytes(&self) -> Result<u64, WalError> {
        self.directory.free_bytes()
    }

    fn write_positions(&self, positions: Positions) {
        self.directory.positions.write(positions);
    }

    fn sync_positions(&self) {
        self.directory.positions.sync();
    }

    fn read_positions(&self) -> Result<Option<Positions>, WalError> {
        self.directory.positions.read()
    }

    fn mark_unreadable(&self, first: Offset) {
        self.directory.mark_unreadable(first);
    }

    fn is_marked_unreadable(&self, first: Offset) -> bool {
        self.directory.is_marked_unreadable(first)
    }

    fn unmark_unreadable(&self, first: Offset) {
        self.directory.unmark_unreadable(first);
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
fn wake_on_error(db: &Db, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
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
        if let Some((stop_watch, watch)) = self.watch.take() {
            drop(stop_watch);
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
