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
    /// A file of the log cannot be read, also when it is tried again: the caller stops. The disk, its cable or
    /// its controller may be at fault, so nothing is given up for lost.
    #[error("cannot read {}, though it was tried several times: {source}; {advice}", path.display())]
    Unread {
        /// The file or directory.
        path: PathBuf,
        /// How the last attempt failed.
        source: io::Error,
        /// What to do about it.
        advice: &'static str,
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

/// What to do about a generation that cannot be read.
pub(super) const ON_GENERATION: &str = "look after the disk (the kernel's log says more), or copy WAL_DIR to another one, before the next start: what cannot be read then is taken for lost";

/// What to do about a directory that cannot be read.
pub(super) const ON_DIRECTORY: &str =
    "look after the disk (the kernel's log says more), or copy WAL_DIR to another one";

/// What to do about the positions if they cannot be read.
pub(super) const ON_POSITIONS: &str = "look after the disk (the kernel's log says more); without this file, which may be deleted, readings are sent to the database again";

/// What to do about a report in quarantine that cannot be read.
pub(super) const ON_REPORT: &str = "look after the disk (the kernel's log says more), or move the directory of this report out of WAL_DIR";

impl WalError {
    /// That `path` cannot be read, and what to do about it.
    pub(super) fn unread(
        path: impl Into<PathBuf>,
        advice: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Unread { path, source, advice }
    }

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
