//! How many there are of what is answered page by page.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

#[derive(Debug, Default)]
struct Noted {
    past: Option<Instant>,
    exact: Option<(u64, Changes, Instant)>,
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
    pub(super) fn is_past(&self) -> bool {
        self.lock().past.is_some_and(|at| at.elapsed() < Self::TRUSTED_FOR)
    }

    /// All of them were counted, or as many as are.
    pub(super) fn note(&self, is_past: bool) {
        *self.lock() = Noted { past: is_past.then(Instant::now), exact: None };
    }

    /// How many there are, if they were counted just now and nothing was changed since.
    pub(super) fn exact(&self, changes: Changes) -> Option<u64> {
        let (rows, _, _) = self
            .lock()
            .exact
            .filter(|(_, known, at)| *known == changes && at.elapsed() < Self::EXACT_FOR)?;
        Some(rows)
    }

    /// So many were counted, and not before `changes`.
    pub(super) fn note_exact(&self, rows: u64, changes: Changes) {
        let exact = (rows >= Self::MANY).then(|| (rows, changes, Instant::now()));
        *self.lock() = Noted { past: None, exact };
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_trusted_if_it_is_much_and_until_something_changes() {
        let census = Census::default();
        census.note_exact(Census::MANY - 1, 7);
        assert_eq!(census.exact(7), None);
        census.note_exact(Census::MANY, 7);
        assert_eq!((census.exact(7), census.exact(8)), (Some(Census::MANY), None));
        assert!(!census.is_past());
        census.note(true);
        assert_eq!((census.is_past(), census.exact(7)), (true, None));
        census.note_exact(Census::MANY, 7);
        assert!(!census.is_past());
    }
}
