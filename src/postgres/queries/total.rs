//! How many there are of what is answered page by page.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rows up to which a total is counted.
pub const TOTAL_EXACT_UP_TO: u32 = 100_000;

/// How many match, on this page or off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// At most [`TOTAL_EXACT_UP_TO`].
    pub rows: u64,
    /// Whether there are no more than `rows`.
    pub exact: bool,
}

impl Total {
    /// Of what was counted up to one more than [`TOTAL_EXACT_UP_TO`].
    #[must_use]
    pub fn of(counted: u64) -> Self {
        let most = u64::from(TOTAL_EXACT_UP_TO);
        Self { rows: counted.min(most), exact: counted <= most }
    }
}

/// That there are more of all of them than are counted, which they do not cease to be soon. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Census(Arc<Mutex<Option<Instant>>>);

impl Census {
    const TRUSTED_FOR: Duration = Duration::from_secs(60);

    /// Whether they need not be counted.
    pub(super) fn is_past(&self) -> bool {
        let past = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        past.is_some_and(|at| at.elapsed() < Self::TRUSTED_FOR)
    }

    /// All of them were counted, or as many as are.
    pub(super) fn note(&self, is_past: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_past.then(Instant::now);
    }
}
