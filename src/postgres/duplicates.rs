//! Whether rows that are sent may be in a table already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// So many batches without a duplicate have to be written before the next is taken for new.
const EXPECTED: u32 = 100;

/// Whether batches are expected to hold rows that are in the table already: at the start, since a
/// process that was killed may have written them; after a failure, whose outcome may not be known;
/// and after a duplicate. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Duplicates {
    expected_in: Arc<AtomicU32>,
}

impl Default for Duplicates {
    fn default() -> Self {
        let expected_in = Arc::new(AtomicU32::new(EXPECTED));
        Self { expected_in }
    }
}

impl Duplicates {
    pub(super) fn are_expected(&self) -> bool {
        self.expected_in.load(Ordering::Relaxed) > 0
    }

    pub(super) fn expect(&self) {
        self.expected_in.store(EXPECTED, Ordering::Relaxed);
    }

    /// A batch was written with so many of them.
    pub(super) fn note(&self, duplicates: u64) {
        if duplicates > 0 {
            self.expect();
        } else {
            let one_less = |batches: u32| batches.checked_sub(1);
            // None are expected any more if that fails.
            self.expected_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_for_new_only_after_many_batches_without_a_duplicate() {
        let duplicates = Duplicates::default();
        for found in [0, 3] {
            duplicates.note(found);
            for _ in 0..EXPECTED - u32::from(found == 0) {
                assert!(duplicates.are_expected());
                duplicates.note(0);
            }
            assert!(!duplicates.are_expected());
        }
        duplicates.note(0);
        assert!(!duplicates.are_expected());
        duplicates.expect();
        assert!(duplicates.are_expected());
    }
}
