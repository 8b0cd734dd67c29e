//! Whether the log fills or drains, and how long it has.

use std::time::Duration;

use super::ring::Ring;
use super::sample::Sample;

/// Room that the log has left.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "it is their unit")]
pub(crate) struct Space {
    /// Bytes that it takes.
    pub(crate) used_bytes: u64,
    /// Bytes at which it counts as full.
    pub(crate) max_bytes: u64,
    /// Bytes that its filesystem has free.
    pub(crate) free_bytes: u64,
    /// Free bytes under which it counts as full.
    pub(crate) min_free_bytes: u64,
}

impl Space {
    /// Bytes that it may still grow by, whichever limit comes first.
    #[must_use]
    pub(crate) fn left_bytes(&self) -> u64 {
        let by_size = self.max_bytes.saturating_sub(self.used_bytes);
        by_size.min(self.free_bytes.saturating_sub(self.min_free_bytes))
    }
}

/// Where the log is going.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Trend {
    /// Records that come in more than go out, a second; negative if it drains.
    pub(crate) net_records_per_second: f64,
    /// Seconds until the log is full if it goes on like this; `None` if it does not fill.
    pub(crate) full_in: Option<f64>,
    /// Seconds until nothing waits any more; `None` if it does not drain.
    pub(crate) drained_in: Option<f64>,
}

/// What a change of the backlog is measured over.
const SHORT: Duration = Duration::from_secs(10);

/// The same while nothing leaves the log: longer, for devices that send now and then.
const LONG: Duration = Duration::from_secs(60);

/// What was committed within so many seconds is on its way, not a backlog.
const ON_ITS_WAY_SECONDS: f64 = 1.0;

/// Changes of less than this share of what comes in are noise.
const NOISE: f64 = 0.01;

impl Trend {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn of(ring: &Ring, space: Space, database_down_for: Option<Duration>) -> Self {
        // Before an outage, rows were leaving: that says nothing of now.
        let span = database_down_for.map_or(SHORT, |down| down.clamp(Duration::from_secs(2), LONG));
        let Some(window) = ring.window(span).filter(|window| window.seconds() > 0.0) else {
            return Self::default();
        };
        let pending = window.to.pending as f64;
        let net = (pending - window.from.pending as f64) / window.seconds();
        let coming_in = window.rate(|s| s.readings);
        let is_backlog = pending > 0.0
            && (database_down_for.is_some() || pending > coming_in * ON_ITS_WAY_SECONDS);
        let trend = Self { net_records_per_second: net, full_in: None, drained_in: None };
        if !is_backlog || net.abs() <= coming_in * NOISE {
            trend
        } else if net < 0.0 {
            Self { drained_in: Some(pending / -net), ..trend }
        } else {
            let full_in = space.left_bytes() as f64 / (net * bytes_per_record(ring, window.to));
            Self { full_in: Some(full_in), ..trend }
        }
    }
}

/// What a record more takes on the disk: as it was seen to since the backlog began, once that is
/// enough to tell; until then, as much as a record of the usual size takes that is alone in its block,
/// which is more than most do.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn bytes_per_record(ring: &Ring, to: &Sample) -> f64 {
    // The file grows in segments, and first into what the normal flow has left in it.
    const GROWN_BYTES: u64 = 4 * 1024 * 1024;
    const USUAL: f64 = 400.0;
    // It began where least was pending.
    let Some(from) = ring.samples.iter().rev().min_by_key(|sample| sample.pending) else {
        return USUAL;
    };
    let bytes = to.disk_bytes.saturating_sub(from.disk_bytes);
    let records = to.pending.saturating_sub(from.pending);
    if bytes >= GROWN_BYTES && records > 0 { bytes as f64 / records as f64 } else { USUAL }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "of whole numbers")]
mod tests {
    use super::super::ring::tests::{ring, sample};
    use super::*;

    const SPACE: Space = Space {
        used_bytes: 1_000_000,
        max_bytes: 9_000_000,
        free_bytes: 100_000_000,
        min_free_bytes: 1_000_000,
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_limit_that_comes_first_counts() {
        assert_eq!(SPACE.left_bytes(), 8_000_000);
        let tight = Space { free_bytes: 3_000_000, ..SPACE };
        assert_eq!(tight.left_bytes(), 2_000_000);
        let full = Space { used_bytes: 10_000_000, free_bytes: 0, ..SPACE };
        assert_eq!(full.left_bytes(), 0);
    }

    #[test]
    fn an_outage_fills_the_log_at_the_rate_since_it_began() {
        // Up for 100 s, then down for 20: 10 readings a second, of 400 bytes.
        let pending = |at: u64| at.saturating_sub(100) * 10;
        let ring = ring((0..=120).map(|at| sample(at, at * 5, pending(at))));
        let trend = Trend::of(&ring, SPACE, Some(seconds(20)));
        assert_eq!(trend.net_records_per_second, 10.0);
        assert_eq!(trend.drained_in, None);
        assert_eq!(trend.full_in, Some(8_000_000.0 / (10.0 * 400.0)));
    }

    #[test]
    fn what_a_record_takes_is_learnt_once_the_log_has_grown() {
        let bytes_per_record = |records: u64| {
            let smaller = |at: u64| {
                let pending = at * records;
                let usual = sample(at, pending, pending);
                Sample { disk_bytes: 500_000 + pending * 100, ..usual }
            };
            let ring = ring((0..=60).map(smaller));
            super::bytes_per_record(&ring, ring.samples.back().unwrap())
        };
        assert_eq!((bytes_per_record(10), bytes_per_record(1_000)), (400.0, 100.0));
    }

    #[test]
    fn a_backlog_that_shrinks_has_an_end_and_no_full_disk() {
        let ring = ring((0..=60).map(|at| sample(at, at * 5, 100_000 - at * 1_000)));
        let trend = Trend::of(&ring, SPACE, None);
        assert_eq!((trend.full_in, trend.drained_in), (None, Some(40.0)));
    }

    #[test]
    fn what_is_on_its_way_is_no_backlog() {
        // A batch more or less, at 2,000 readings a second.
        let ring = ring((0..=60).map(|at| sample(at, at * 1_000, if at < 55 { 100 } else { 900 })));
        let trend = Trend::of(&ring, SPACE, None);
        assert_eq!((trend.full_in, trend.drained_in), (None, None));
    }

    #[test]
    fn a_database_that_is_too_slow_fills_the_log_too() {
        let ring = ring((0..=60).map(|at| sample(at, at * 1_000, at * 500)));
        let trend = Trend::of(&ring, SPACE, None);
        assert_eq!(trend.full_in, Some(8_000_000.0 / (500.0 * 400.0)));
    }

    #[test]
    fn with_nothing_coming_in_an_outage_fills_nothing() {
        let ring = ring((0..=60).map(|at| sample(at, 500, 700)));
        let trend = Trend::of(&ring, SPACE, Some(seconds(60)));
        assert_eq!((trend.full_in, trend.drained_in), (None, None));
        assert_eq!(Trend::of(&Ring::default(), SPACE, None), Trend::default());
    }
}
