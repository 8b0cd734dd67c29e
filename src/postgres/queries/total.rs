//! How many there are of what is answered page by page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rows up to which a total is counted.
pub(crate) const TOTAL_EXACT_UP_TO: u32 = 100_000;

/// How many match, on this page or off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Total {
    /// At most [`TOTAL_EXACT_UP_TO`].
    pub(crate) rows: u64,
    /// Whether there are no more than `rows`.
    pub(crate) exact: bool,
}

impl Total {
    /// Of what was counted up to one more than [`TOTAL_EXACT_UP_TO`].
    #[must_use]
    pub(crate) fn of(counted: u64) -> Self {
        let most = u64::from(TOTAL_EXACT_UP_TO);
        Self { rows: counted.min(most), exact: counted <= most }
    }
}

/// What was counted of all of them: that they are more than are counted, which they do not cease to be soon, or
/// how many they are, as long as that may be trusted. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Census(Arc<Mutex<Noted>>);

/// When it was counted is by the clock's monotonic time.
#[derive(Debug, Default)]
struct Noted {
    past: Option<Duration>,
    exact: Option<(u64, Changes, Duration)>,
}

/// How often this service has changed what is counted; what others change is not in it.
pub(super) type Changes = u64;

impl Census {
    const TRUSTED_FOR: Duration = Duration::from_secs(60);
    /// What others change is not known.
    const EXACT_FOR: Duration = Duration::from_secs(5);
    /// Fewer are counted again each time.
    const MANY: u64 = 10_000;

    /// Whether they need not be counted.
    pub(super) fn is_past(&self, now: Duration) -> bool {
        self.lock().past.is_some_and(|at| now.saturating_sub(at) < Self::TRUSTED_FOR)
    }

    /// All of them were counted, or as many as are.
    pub(super) fn note(&self, is_past: bool, now: Duration) {
        *self.lock() = Noted { past: is_past.then_some(now), exact: None };
    }

    /// How many there are, if they were counted just now and nothing was changed since.
    pub(super) fn exact(&self, changes: Changes, now: Duration) -> Option<u64> {
        let (rows, known, at) = self.lock().exact?;
        (known == changes && now.saturating_sub(at) < Self::EXACT_FOR).then_some(rows)
    }

    /// So many were counted, and not before `changes`.
    pub(super) fn note_exact(&self, rows: u64, changes: Changes, now: Duration) {
        let exact = (rows >= Self::MANY).then_some((rows, changes, now));
        *self.lock() = Noted { past: None, exact };
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(12 * 60 * 60);
    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_counted_is_trusted_if_it_is_much_and_until_something_changes() {
        let census = Census::default();
        census.note_exact(Census::MANY - 1, 7, NOON);
        assert_eq!(census.exact(7, NOON), None);
        census.note_exact(Census::MANY, 7, NOON);
        assert_eq!((census.exact(7, NOON), census.exact(8, NOON)), (Some(Census::MANY), None));
        assert!(!census.is_past(NOON));
        census.note(true, NOON);
        assert_eq!((census.is_past(NOON), census.exact(7, NOON)), (true, None));
        census.note_exact(Census::MANY, 7, NOON);
        assert!(!census.is_past(NOON));
    }

    #[test]
    fn an_exact_number_is_trusted_for_five_seconds_from_when_it_was_counted() {
        let census = Census::default();
        census.note_exact(Census::MANY, 7, NOON);
        let over = NOON + Duration::from_secs(5);
        assert_eq!(census.exact(7, over.saturating_sub(MOMENT)), Some(Census::MANY));
        assert_eq!(census.exact(7, over), None);
        census.note_exact(Census::MANY + 1, 7, over);
        assert_eq!(census.exact(7, over + MOMENT), Some(Census::MANY + 1));
    }

    #[test]
    fn that_they_are_more_than_are_counted_is_trusted_for_a_minute() {
        let census = Census::default();
        census.note(true, NOON);
        let over = NOON + Duration::from_secs(60);
        assert!(census.is_past(over.saturating_sub(MOMENT)));
        assert!(!census.is_past(over));
        census.note(true, over);
        assert!(census.is_past(over + MOMENT));
        census.note(false, over);
        assert!(!census.is_past(over));
    }
}
