//! The write-ahead log: the seam between MQTT and PostgreSQL.
//!
//! One word per meaning: *commit* makes records durable, *flush* moves them to PostgreSQL, *trim*
//! deletes flushed records. At all times
//!
//! ```text
//! next ≥ committed ≥ flushed ≥ trimmed
//! ```
//!
//! Layers, from the bytes up: [`block`] (what is stored), [`storage`] (the trait pair), `sled` and
//! [`memory`] (its two implementations), `sealed` (reading what an earlier process or generation left
//! behind), [`log`] (offsets, rotation, order). Beside them, [`inspect`] looks into a log that no process
//! uses.
//!
//! What `commit` returning `Ok` means: every record appended before it survives a power cut. What
//! an error means: nothing may be acknowledged, and the log takes nothing more in this process,
//! because after a failed fsync no one knows what is on the disk but a fresh open.

use std::io;
use std::path::PathBuf;

pub mod block;
pub mod inspect;
pub mod log;
pub mod memory;
#[cfg(test)]
mod model_tests;
mod sealed;
pub mod sled;
pub mod storage;
mod tail;

pub use block::{Block, Offset};
pub use log::{Batch, Limits, Log, Room, Writer};
pub use sled::SledStorage;
pub use storage::{OffsetRange, Quarantined};

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
