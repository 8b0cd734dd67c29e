//! The handle on the log that all but its writer have.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::state::{Room, Shared, lock};
use crate::wal::error::WalError;
use crate::wal::offset::Offset;

/// The reading end of the log, and everybody's view of it. Clones share it.
#[derive(Clone)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
}

impl Log {
    /// Follows the end of the committed log: one past the last record that can be read.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Offset> {
        self.shared.committed.subscribe()
    }

    /// Follows whether the log takes records.
    #[must_use]
    pub fn room(&self) -> watch::Receiver<Room> {
        self.shared.room.subscribe()
    }

    /// Whether a commit has failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }

    /// Where the flusher starts: every record below is flushed.
    #[must_use]
    pub fn flushed(&self) -> Offset {
        lock(&self.shared.state).flushed
    }

    /// Records that everything below `flushed` is in PostgreSQL or in the dead-letter store. It is not
    /// pending any more, and trimmed when its time is over or its room is needed. Blocks on the disk.
    /// Called by the flusher alone.
    pub fn flush_to(&self, flushed: Offset) {
        self.shared.flush_to(flushed);
    }

    /// The oldest offset from which on flushed records may still be in the log.
    #[must_use]
    pub fn retained(&self) -> Offset {
        lock(&self.shared.state).retention.trimmed()
    }

    /// Makes what was flushed from `to` on pending again, as far as it is still here; returns from where
    /// on that is, [`Self::flushed`] if nothing is. When this returns, a crash or a power cut does not take
    /// it back. Blocks on the disk. Called by the flusher alone, with nothing on its way: what it flushes
    /// after this counts from here.
    ///
    /// # Errors
    /// If the disk fails; then nothing has changed, and the caller stops.
    pub fn rewind(&self, to: Offset) -> Result<Offset, WalError> {
        self.shared.rewind(to)
    }

    /// Looks at the limits, which others on the same filesystem can change; to be called now and
    /// then. Blocks on the disk.
    pub fn maintain(&self) {
        self.shared.measure_quarantine();
        self.shared.maintain();
        self.look_up_oldest();
    }
}
