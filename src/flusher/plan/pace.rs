//! How many rows go at once, how long they may wait to, and how long they may take.

use std::time::Duration;

/// What a statement may take, unless it is said.
const LIMIT: Duration = Duration::from_secs(30);
/// How much longer a single row may take that took too long again and again, at the most.
const MOST_PATIENCE: u32 = 16;

/// Sizes and times of batches, by what was seen.
#[derive(Debug)]
pub(super) struct Pace {
    most: u64,
    size: u64,
    /// What a statement may take.
    limit: Duration,
    batch_timeout: Duration,
    /// What a whole batch takes from its start to its end, smoothed.
    batch_time: Duration,
}

impl Pace {
    pub(super) fn new(most: u64, batch_timeout: Duration) -> Self {
        Self { most, size: most, limit: LIMIT, batch_timeout, batch_time: Duration::ZERO }
    }

    pub(super) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Rows of the next batch.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How long a batch may wait to fill: so that its rows are in the table within the batch
    /// timeout, if the database is as fast as it was, but half of that timeout at least.
    pub(super) fn linger(&self) -> Duration {
        let timeout = self.batch_timeout;
        timeout.saturating_sub(self.batch_time).max(timeout / 2)
    }

    /// What a statement may take that was too slow so often before.
    pub(super) fn limit(&self, timeouts: u32) -> Duration {
        self.limit * 2_u32.saturating_pow(timeouts).min(MOST_PATIENCE)
    }

    /// So many rows were stored at once, and it took so long. Twice as many are tried next if those
    /// would have gone in well within the time.
    pub(super) fn succeeded(&mut self, rows: u64, took: Duration) {
        self.batch_time = (self.batch_time * 7 + took) / 8;
        if rows >= self.size && took < self.limit / 3 {
            self.size = self.size.saturating_mul(2).min(self.most);
        }
    }

    /// So many rows took too long.
    pub(super) fn timed_out(&mut self, rows: u64) {
        self.size = self.size.min(rows / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_shrinks_to_a_row_and_grows_again_while_there_is_time() {
        let mut pace = Pace::new(2_000, Duration::ZERO);
        pace.timed_out(2_000);
        assert_eq!(pace.size(), 1_000);
        pace.succeeded(1_000, Duration::from_secs(20));
        assert_eq!(pace.size(), 1_000, "twice as many would take too long again");
        (0..20).for_each(|_| pace.timed_out(pace.size()));
        assert_eq!(pace.size(), 1);
        (0..20).for_each(|_| pace.succeeded(pace.size(), Duration::from_secs(1)));
        assert_eq!(pace.size(), 2_000);
    }

    #[test]
    fn a_few_rows_are_no_proof_for_many() {
        let mut pace = Pace::new(2_000, Duration::ZERO);
        pace.timed_out(2_000);
        pace.succeeded(3, Duration::ZERO);
        assert_eq!(pace.size(), 1_000);
    }

    #[test]
    fn batches_wait_shorter_the_longer_they_take() {
        let mut pace = Pace::new(1, Duration::from_millis(50));
        assert_eq!(pace.linger(), Duration::from_millis(50));
        (0..100).for_each(|_| pace.succeeded(1, Duration::from_millis(10)));
        assert!(pace.linger() < Duration::from_millis(41));
        (0..100).for_each(|_| pace.succeeded(1, Duration::from_secs(1)));
        assert_eq!(pace.linger(), Duration::from_millis(25));
    }
}
