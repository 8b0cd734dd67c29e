//! Whether a part that could hang makes progress, for the watchdog.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whether somebody is at work, and since when. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    epoch: Instant,
    /// Milliseconds since `epoch`, plus one; 0 while idle.
    since: Arc<AtomicU64>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { epoch: Instant::now(), since: Arc::default() }
    }
}

impl Activity {
    /// Work begins, or makes progress.
    pub(crate) fn begin(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    /// Work is done.
    pub(crate) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Since when the present work has made no progress; `None` while idle.
    #[must_use]
    pub(crate) fn busy_since(&self) -> Option<Instant> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.epoch + Duration::from_millis(since))
    }
}
