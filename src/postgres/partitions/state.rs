//! What is known of the partitions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::plan::{DAY, Grid, LAST};
use crate::base::time::Timestamp;

/// After it could not be done, or does not help.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What is known of the partitions. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::postgres) struct Partitions {
    grid: Grid,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Microseconds since the Unix epoch; `None` if the table is not partitioned by time.
    pub(super) covered_until: Option<i64>,
    /// By the clock's monotonic time.
    failed: Option<Duration>,
    /// What was said last.
    pub(super) said: Option<String>,
}

impl Partitions {
    pub(in crate::postgres) fn new(days: u16, days_ahead: u16) -> Self {
        let grid = Grid { width: i64::from(days) * DAY, ahead: i64::from(days_ahead) * DAY };
        Self { grid, state: Arc::default() }
    }

    pub(in crate::postgres) fn grid(&self) -> Grid {
        self.grid
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None are made on need for a while.
    pub(in crate::postgres) fn set_aside(&self, now: Duration) {
        self.lock().failed = Some(now);
    }

    /// Some were to be made on need.
    pub(super) fn note_attempt(&self, is_in_vain: bool, now: Duration) {
        self.lock().failed = is_in_vain.then_some(now);
    }

    /// Whether that is not to be tried.
    pub(super) fn is_set_aside(&self, now: Duration) -> bool {
        self.lock().failed.is_some_and(|at| now.saturating_sub(at) < RETRY_AFTER)
    }

    /// See [`crate::postgres::Database::partitions_ahead_seconds`].
    pub(super) fn ahead_seconds(&self, now: Timestamp) -> f64 {
        match self.lock().covered_until {
            Some(LAST) => f64::INFINITY,
            #[expect(clippy::cast_precision_loss, reason = "shown in seconds")]
            Some(until) => (until - now.as_micros()) as f64 / 1e6,
            None => f64::NAN,
        }
    }

    /// Says why none are made, once.
    pub(in crate::postgres) fn complain(&self, reason: &str) {
        let mut state = self.lock();
        if state.said.as_deref() != Some(reason) {
            tracing::warn!(reason, "no partitions are made for the table telemetry");
            state.said = Some(reason.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_vain_is_not_tried_again_for_ten_seconds_and_what_was_not_is() {
        let partitions = Partitions::new(1, 1);
        let at = Duration::from_millis;
        assert!(!partitions.is_set_aside(at(0)));
        partitions.note_attempt(true, at(5_000));
        assert!(partitions.is_set_aside(at(14_999)));
        assert!(!partitions.is_set_aside(at(15_000)));
        partitions.set_aside(at(15_000));
        assert!(partitions.is_set_aside(at(24_999)));
        partitions.note_attempt(false, at(24_999));
        assert!(!partitions.is_set_aside(at(24_999)));
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "of whole numbers")]
    fn how_far_they_reach_is_counted_from_the_clock() {
        let partitions = Partitions::new(1, 1);
        let now = |seconds: i64| Timestamp::from_millis(seconds * 1_000).unwrap();
        assert!(partitions.ahead_seconds(now(0)).is_nan());
        partitions.lock().covered_until = Some(DAY);
        assert_eq!(partitions.ahead_seconds(now(400)), 86_000.0);
        assert_eq!(partitions.ahead_seconds(now(86_410)), -10.0);
        partitions.lock().covered_until = Some(LAST);
        assert_eq!(partitions.ahead_seconds(now(400)), f64::INFINITY);
    }
}
