//! The handle on the log that all but its writer have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::state::{Room, Shared, lock};
use crate::wal::error::WalError;
use crate::wal::offset::Offset;

/// The reading end of the log, and everybody's view of it. Clones share it.
#[derive(Clone)]
pub struct Log {
    pub(super) shared: Arc<Shared>,
}

/// What is pending again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// Where it begins; where the log was flushed to if there is nothing.
    pub to: Offset,
    /// How many records there are.
    pub records: u64,
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
    pub(crate) fn is_poisoned(&self) -> bool {
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

    /// The database was known, so long `ago`, to have everything that was flushed until then. What nobody
    /// confirms stays, as far as there is room for it.
    pub fn confirm(&self, ago: Duration) {
        let at = self.shared.clock.monotonic().saturating_sub(ago);
        lock(&self.shared.state).retention.confirm(at);
    }

    /// The oldest offset from which on flushed records may still be in the log.
    #[must_use]
    pub fn retained(&self) -> Offset {
        lock(&self.shared.state).retention.trimmed()
    }

    /// Makes everything pending again that was flushed and is still here, until it is flushed once more or
    /// the process ends. Blocks on the disk. Called by the flusher alone, with nothing on its way.
    ///
    /// # Errors
    /// If the disk fails; then nothing has changed, and the caller stops.
    pub fn rewind(&self) -> Result<Rewound, WalError> {
        self.shared.rewind()
    }

    /// Looks at the limits, which others on the same filesystem can change; to be called now and
    /// then. Blocks on the disk.
    pub fn maintain(&self) {
        self.shared.measure_quarantine();
        self.shared.maintain();
        self.look_up_oldest();
    }
}
