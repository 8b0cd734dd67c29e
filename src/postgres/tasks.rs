//! What the other parts of this room tell the one that works in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Work that waits. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_prepared: AtomicBool,
    is_behind: AtomicBool,
    lacks_names: AtomicBool,
    wake: Notify,
}

impl Tasks {
    /// The table can be used; whether every migration is applied, or one waits.
    pub(super) fn set_prepared(&self, is_complete: bool) {
        self.0.is_behind.store(!is_complete, Ordering::Relaxed);
        self.0.is_prepared.store(true, Ordering::Relaxed);
        self.0.wake.notify_one();
    }

    /// Whether the table can be used.
    pub(super) fn is_prepared(&self) -> bool {
        self.0.is_prepared.load(Ordering::Relaxed)
    }

    /// Whether a migration waits for a better moment.
    pub(super) fn is_behind(&self) -> bool {
        self.0.is_behind.load(Ordering::Relaxed)
    }

    /// Rows went in whose devices could not be noted.
    pub(super) fn set_lacks_names(&self) {
        self.0.lacks_names.store(true, Ordering::Relaxed);
    }

    /// Whether that happened since this was asked last.
    pub(super) fn take_lacks_names(&self) -> bool {
        self.0.lacks_names.swap(false, Ordering::Relaxed)
    }

    /// Returns when there may be something to do.
    pub(super) async fn woken(&self) {
        self.0.wake.notified().await;
    }
}
