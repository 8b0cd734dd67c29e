//! What can go wrong with the log.

use std::io;
use std::path::PathBuf;

use super::offset::OffsetRange;

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The filesystem refused. On a commit: stop in order, the supervisor restarts the process.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The filesystem has no space left. The group is not durable and must not be acknowledged;
    /// the log goes on draining, and takes records again once there is room.
    #[error("the filesystem has no space left")]
    DiskFull,
    /// A block that was intact a moment ago cannot be read any more. The log reports its offsets
    /// as lost and goes on.
    #[error("offsets {} to {} cannot be read", range.from, range.to)]
    Unreadable {
        /// The block's offsets.
        range: OffsetRange,
    },
    /// Another process holds the directory: the caller stops.
    #[error("{} is in use by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// An earlier commit failed: the caller stops.
    #[error("the log failed earlier and takes nothing more until a restart")]
    Poisoned,
}

impl WalError {
    /// Whether there was no space left, which passes, unlike other errors of a disk.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        match self {
            Self::DiskFull => true,
            Self::Io { source, .. } => full.contains(&source.kind()),
            _ => false,
        }
    }
}
