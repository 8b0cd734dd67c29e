//! Whether a part that could hang makes progress, for the watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::time::Clock;

/// Whether somebody is at work, and since when. Clones share it.
#[derive(Clone)]
pub(crate) struct Activity {
    clock: Arc<dyn Clock>,
    /// Milliseconds of its monotonic time, plus one; 0 while idle.
    since: Arc<AtomicU64>,
}

impl Activity {
    /// Nobody is at work yet.
    #[must_use]
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, since: Arc::default() }
    }

    /// Work begins, or makes progress.
    pub(crate) fn begin(&self) {
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    /// Work is done.
    pub(crate) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Since when, by the clock's monotonic time, the present work has made no progress; `None` while idle.
    #[must_use]
    pub(crate) fn busy_since(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{ManualClock, Timestamp};

    #[test]
    fn work_is_as_old_as_its_last_progress_also_where_the_clock_begins() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let activity = Activity::new(Arc::new(clock.clone()));
        assert_eq!(activity.busy_since(), None);
        activity.begin();
        assert_eq!(activity.busy_since(), Some(Duration::ZERO));
        clock.advance(Duration::from_secs(7));
        assert_eq!(activity.busy_since(), Some(Duration::ZERO));
        activity.clone().begin();
        assert_eq!(activity.busy_since(), Some(Duration::from_secs(7)));
        activity.end();
        assert_eq!(activity.busy_since(), None);
    }
}
