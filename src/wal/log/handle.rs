//! The handle on the log that all but its writer have.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::state::{Room, Shared, lock};
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

    /// Records that everything below `flushed` is in PostgreSQL or in the dead-letter store, and
    /// frees what it took. Blocks on the disk. Called by the flusher alone.
    pub fn trim(&self, flushed: Offset) {
        self.shared.trim(flushed);
    }

    /// Looks at the limits, which others on the same filesystem can change; to be called now and
    /// then. Blocks on the disk.
    pub fn maintain(&self) {
        self.shared.measure_quarantine();
        self.shared.maintain();
        self.look_up_oldest();
    }
}
