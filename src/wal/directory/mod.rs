//! The log's directory: everything on disk that is not inside a generation's database.
//!
//! ```text
//! WAL_DIR/LOCK                    held for as long as a process uses the directory
//! WAL_DIR/positions               how far the log is committed and flushed, see `positions`
//! WAL_DIR/<20 digits>/            a generation, named by the offset of its first record
//! WAL_DIR/quarantine/<20 digits>/ a damaged one, with report.json, see `quarantine`
//! WAL_DIR/dead-letters/           not of the log, see `dead_letters`
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use super::contract::generation_id;
use super::error::{ON_DIRECTORY, WalError};
use super::offset::Offset;
use crate::base::retry::read_again;

/// The file that is locked for as long as a process uses the directory.
pub(crate) const LOCK: &str = "LOCK";

/// Says that the disk did not read a generation, see [`Directory::mark_unreadable`].
const UNREADABLE_MARK: &str = "read-error";

mod files;
pub(super) mod positions;
pub(super) mod quarantine;

pub(super) use files::{DATA_FILE, bytes_in, first_offset, generations, if_there};

use files::{make_dir, options, sync_dir};
use positions::PositionsFile;
use quarantine::Quarantine;

/// A WAL directory that this process holds.
pub(super) struct Directory {
    path: PathBuf,
    pub(super) positions: PositionsFile,
    pub(super) quarantine: Quarantine,
    _lock: File,
}

impl Directory {
    /// Takes the directory for this process, making it if it is not there.
    ///
    /// # Errors
    /// [`WalError::Locked`] while another process holds it, [`WalError::Io`] if it cannot be used.
    pub(super) fn open(path: &Path) -> Result<Self, WalError> {
        let io = |what: &'static str| move |source| WalError::Io { what, source };
        make_dir(path).map_err(io("make the WAL directory"))?;
        let lock = options().open(path.join(LOCK)).map_err(io("open the WAL's lock file"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => WalError::Locked { dir: path.to_owned() },
            fs::TryLockError::Error(source) => WalError::Io { what: "lock the WAL", source },
        })?;
        let quarantine = Quarantine::open(path).map_err(io("make WAL/quarantine"))?;
        let positions = PositionsFile::open(path).map_err(io("open WAL/positions"))?;
        sync_dir(path).map_err(io("sync the WAL directory"))?;
        Ok(Self { path: path.to_owned(), positions, quarantine, _lock: lock })
    }

    /// Where the generation `first` is.
    pub(super) fn generation(&self, first: Offset) -> PathBuf {
        self.path.join(generation_id(first))
    }

    /// Makes the place free where the generation `first` is to be.
    pub(super) fn clear(&self, first: Offset) -> io::Result<()> {
        let path = self.generation(first);
        match if_there(fs::symlink_metadata(&path))? {
            None => Ok(()),
            // Of a process that ended before its first commit.
            Some(found) if found.is_dir() => fs::remove_dir_all(&path),
            Some(_) => {
                tracing::warn!(path = %path.display(), "a file is in the place of a WAL generation: deleting it");
                fs::remove_file(&path)
            }
        }
    }

    /// Makes the name of the generation `first` and the names and contents of its files durable.
    pub(super) fn sync_generation(&self, first: Offset) -> io::Result<()> {
        let path = self.generation(first);
        for entry in fs::read_dir(&path)? {
            File::open(entry?.path())?.sync_all()?;
        }
        sync_dir(&path)?;
        sync_dir(&self.path)
    }

    pub(super) fn list(&self) -> Result<Vec<Offset>, WalError> {
        let listed = read_again(|| generations(&self.path), thread::sleep);
        listed.map_err(WalError::unread(&self.path, ON_DIRECTORY))
    }

    pub(super) fn delete(&self, first: Offset) -> Result<(), WalError> {
        fs::remove_dir_all(self.generation(first))
            .and_then(|()| sync_dir(&self.path))
            .map_err(|source| WalError::Io { what: "delete a WAL generation", source })
    }

    /// Says to the next process that the disk did not read the generation `first`. If even that cannot be
    /// written, the next process tries to read it as this one did.
    pub(super) fn mark_unreadable(&self, first: Offset) {
        let path = self.generation(first);
        let marked = File::create(path.join(UNREADABLE_MARK)).and_then(|_| sync_dir(&path));
        if let Err(error) = marked {
            tracing::warn!(%error, "a WAL generation could not be marked as unreadable: the next start fails at it as well");
        }
    }

    /// Takes that back. The mark is gone for good once the directory is synced, which nobody waits for: a power cut
    /// may bring it back.
    pub(super) fn unmark_unreadable(&self, first: Offset) {
        let unmarked = fs::remove_file(self.generation(first).join(UNREADABLE_MARK));
        if let Err(error) = if_there(unmarked) {
            tracing::warn!(%error, "a WAL generation that was read again is still marked as unreadable: what the disk does not read of it at a later start is taken for lost at once");
        }
    }

    pub(super) fn is_marked_unreadable(&self, first: Offset) -> bool {
        self.generation(first).join(UNREADABLE_MARK).exists()
    }

    pub(super) fn free_bytes(&self) -> Result<u64, WalError> {
        let stat = rustix::fs::statvfs(&self.path)
            .map_err(|error| WalError::Io { what: "ask for free space", source: error.into() })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
