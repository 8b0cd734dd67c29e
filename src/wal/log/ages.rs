//! How long records have waited, whatever happens to the time of day.
//!
//! A block says by the time of day when it was received, which is all that the next process can use, and it
//! may be wrong: a box without a battery starts in 1970, and any clock can be set while the process runs.
//! Ages are therefore differences on the monotonic clock. Of what this process has written it is known how
//! far the time of day was ahead of that clock. What an earlier process has written is compared once, with
//! the first time of day that can be right; where a comparison says nothing, the record has waited for as
//! long as this process runs, at least.
//!
//! Pure: the clocks are handed in.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::{Clock, Timestamp};
use crate::telemetry::validate::TimeOfDay;
use crate::wal::offset::Offset;

/// A clock that was set by less than this was not set, but read at two moments.
const STEP_MIN_MICROS: i64 = 1_000_000;

/// A clock that is set again and again costs no more memory than this.
const STEPS_MAX: usize = 256;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    monotonic: i64,
    wall: Timestamp,
}

impl Now {
    pub(super) fn of(clock: &dyn Clock) -> Self {
        Self::new(clock.monotonic(), clock.wall())
    }

    fn new(monotonic: Duration, wall: Timestamp) -> Self {
        Self { monotonic: i64::try_from(monotonic.as_micros()).unwrap_or(i64::MAX), wall }
    }

    /// Microseconds by which the time of day is ahead of the monotonic clock.
    fn lead(self) -> i64 {
        self.wall.as_micros().saturating_sub(self.monotonic)
    }
}

/// See the module.
pub(super) struct Ages {
    /// When the log was opened, on the monotonic clock.
    opened: i64,
    /// The first record of this process.
    own: Offset,
    /// The lead that receipts by earlier processes are compared with; `None` while the time of day cannot
    /// be right.
    earlier: Option<i64>,
    /// The leads by which blocks from these offsets on were written, in order.
    steps: VecDeque<(Offset, i64)>,
}

impl Ages {
    /// A log whose next record is `own` is opened.
    pub(super) fn new(own: Offset, now: Now) -> Self {
        let mut ages = Self {
            opened: now.monotonic,
            own,
            earlier: None,
            steps: VecDeque::from([(own, now.lead())]),
        };
        ages.compare(now);
        ages
    }

    fn compare(&mut self, now: Now) {
        if self.earlier.is_none() && TimeOfDay::at(now.wall).is_plausible() {
            self.earlier = Some(now.lead());
        }
    }

    /// A block is written that begins at `first` and was received at `received_at`, a moment ago.
    pub(super) fn written(&mut self, first: Offset, received_at: Timestamp, now: Now) {
        // It may have come in before the clock was set, and be written after that.
        let wrong_by = |lead: i64| {
            let receipt = received_at.as_micros().saturating_sub(lead);
            receipt.saturating_sub(now.monotonic).saturating_abs()
        };
        let known = self.steps.back().map_or(i64::MAX, |(_, lead)| wrong_by(*lead));
        if known > wrong_by(now.lead()).saturating_add(STEP_MIN_MICROS) {
            self.steps.push_back((first, now.lead()));
            if self.steps.len() > STEPS_MAX {
                self.steps.pop_front();
            }
        }
    }

    /// Nobody asks for records below `offset` any more.
    pub(super) fn trim(&mut self, offset: Offset) {
        while self.steps.get(1).is_some_and(|(next, _)| *next <= offset) {
            self.steps.pop_front();
        }
    }

    /// Seconds since the receipt of the record at `offset`, whose block says `received_at`.
    #[expect(clippy::cast_precision_loss, reason = "a duration for a person or a histogram")]
    pub(super) fn seconds(&mut self, offset: Offset, received_at: Timestamp, now: Now) -> f64 {
        self.compare(now);
        let receipt = |lead: i64| received_at.as_micros().saturating_sub(lead);
        let receipt = if offset < self.own {
            let is_comparable = TimeOfDay::at(received_at).is_plausible();
            let receipt = self.earlier.filter(|_| is_comparable).map(receipt);
            // One that would lie ahead of the start was written by a wrong clock.
            receipt.map_or(self.opened, |receipt| receipt.min(self.opened))
        } else {
            let behind = self.steps.partition_point(|(first, _)| *first <= offset);
            let step = self.steps.get(behind.saturating_sub(1));
            step.map_or(now.monotonic, |(_, lead)| receipt(*lead).max(self.opened))
        };
        now.monotonic.saturating_sub(receipt).max(0) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::validate::built_at;

    const DAY: i64 = 86_400;

    /// `seconds` after the start of the process, by a clock that is `ahead` of the time of the build.
    fn now(seconds: u64, ahead: i64) -> Now {
        Now::new(Duration::from_secs(seconds), wall(ahead))
    }

    fn wall(ahead: i64) -> Timestamp {
        Timestamp::from_micros(built_at().as_micros() + ahead * 1_000_000).unwrap()
    }

    /// A clock of a box without a battery.
    fn unset(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000).unwrap()
    }

    fn assert_age(ages: &mut Ages, (offset, received_at): (Offset, Timestamp), now: Now, is: f64) {
        let seconds = ages.seconds(offset, received_at, now);
        assert!((seconds - is).abs() < 1e-6, "{seconds} and not {is}");
    }

    #[test]
    fn a_clock_that_is_set_after_a_start_in_1970_changes_no_age() {
        let mut ages = Ages::new(0, Now::new(Duration::ZERO, unset(5)));
        ages.written(0, unset(15), Now::new(Duration::from_secs(10), unset(15)));
        let set = now(60, 3_000);
        assert_age(&mut ages, (0, unset(15)), set, 50.0);
        // Received before it was set, and written after that.
        ages.written(1, unset(64), now(61, 3_001));
        assert_age(&mut ages, (1, unset(64)), now(62, 3_002), 3.0);
        ages.written(2, wall(3_010), now(70, 3_010));
        assert_age(&mut ages, (2, wall(3_010)), now(80, 3_020), 10.0);
        assert_age(&mut ages, (0, unset(15)), now(80, 3_020), 70.0);
    }

    #[test]
    fn a_clock_that_jumps_by_a_day_to_either_side_changes_no_age() {
        for jump in [DAY, -DAY] {
            let mut ages = Ages::new(10, now(0, 2 * DAY));
            let of_earlier = (3, wall(2 * DAY - 100));
            ages.written(10, wall(2 * DAY + 5), now(5, 2 * DAY + 5));
            let later = now(20, 2 * DAY + 20 + jump);
            assert_age(&mut ages, (10, wall(2 * DAY + 5)), later, 15.0);
            assert_age(&mut ages, of_earlier, later, 120.0);
            ages.written(11, wall(2 * DAY + 20 + jump), later);
            // And back.
            ages.written(12, wall(2 * DAY + 30), now(30, 2 * DAY + 30));
            let end = now(40, 2 * DAY + 40);
            assert_age(&mut ages, (10, wall(2 * DAY + 5)), end, 35.0);
            assert_age(&mut ages, (11, wall(2 * DAY + 20 + jump)), end, 20.0);
            assert_age(&mut ages, (12, wall(2 * DAY + 30)), end, 10.0);
        }
    }

    #[test]
    fn what_an_earlier_process_wrote_by_a_wrong_clock_has_waited_since_this_one_began() {
        let mut ages = Ages::new(10, now(0, DAY));
        assert_age(&mut ages, (3, unset(100)), now(7, DAY + 7), 7.0);
        // A clock that was ahead.
        assert_age(&mut ages, (4, wall(2 * DAY)), now(7, DAY + 7), 7.0);
        assert_age(&mut ages, (5, wall(DAY - 3)), now(7, DAY + 7), 10.0);
    }

    #[test]
    fn what_an_earlier_process_wrote_is_compared_once_the_clock_is_set() {
        let mut ages = Ages::new(10, Now::new(Duration::ZERO, unset(5)));
        let waits = (3, wall(DAY - 50));
        assert_age(&mut ages, waits, Now::new(Duration::from_secs(10), unset(15)), 10.0);
        assert_age(&mut ages, waits, now(20, DAY), 50.0);
        assert_age(&mut ages, waits, now(30, 9 * DAY), 60.0);
    }

    #[test]
    fn no_age_is_negative_or_longer_than_the_process_has_run_for_its_own_records() {
        let mut ages = Ages::new(0, now(0, DAY));
        ages.written(0, wall(DAY), now(0, DAY));
        assert_age(&mut ages, (0, wall(DAY + 50)), now(3, DAY + 3), 0.0);
        assert_age(&mut ages, (0, unset(0)), now(3, DAY + 3), 3.0);
    }

    #[test]
    fn a_clock_that_is_set_all_the_time_costs_no_memory_to_speak_of() {
        let mut ages = Ages::new(0, now(0, DAY));
        for at in 0..10_000_u32 {
            let ahead = DAY + i64::from(at % 2) * 100 + i64::from(at);
            ages.written(u64::from(at), wall(ahead), now(u64::from(at), ahead));
        }
        assert_eq!(ages.steps.len(), STEPS_MAX);
        ages.trim(20_000);
        assert_eq!(ages.steps.len(), 1);
    }
}
