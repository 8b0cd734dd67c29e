//! Time in windows, the newest first.
//!
//! A table that is partitioned by time is planned and read partition by partition, all of those that the
//! condition does not rule out. "The newest hundred" rules out none. So it is asked of the last two days
//! first, then of the month before them, and only then of the rest: each statement has its bounds in it,
//! and touches the partitions within them alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::{Postgres, QueryBuilder};

use crate::base::time::Timestamp;
use crate::postgres::instant::Instant;

/// How far back they reach; the last one has no end.
const DAYS: [i64; 2] = [2, 30];
/// More days than most tables have partitions for.
const FAR: i64 = 366;
const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// A part of a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Times after this one; `None` means all.
    pub(super) after: Option<Instant>,
    /// Times up to this one, inclusive; `None` means all.
    until: Option<Instant>,
    /// Whether there is none behind it.
    pub(super) is_last: bool,
}

impl Window {
    /// Adds it as conditions.
    pub(super) fn push_to(&self, sql: &mut QueryBuilder<Postgres>) {
        if let Some(after) = self.after {
            sql.push(" and telemetry.ts > ").push_bind(after);
        }
        if let Some(until) = self.until {
            sql.push(" and telemetry.ts <= ").push_bind(until);
        }
    }
}

/// The parts of what lies not before `start` and not after `end`, counted back from the newest time in
/// it, which is `newest` unless it ends earlier. They touch, and do not overlap.
pub(super) fn windows(
    start: Option<Instant>,
    end: Option<Instant>,
    newest: Instant,
) -> Vec<Window> {
    let newest = end.map_or(newest, |end| end.min(newest));
    let mut windows = Vec::new();
    let mut until = None;
    for days in DAYS {
        let after = newest.earlier_by(days * DAY_MICROS);
        // What begins earlier, or later, is one window.
        if after == Instant::MINUS_INFINITY || start.is_some_and(|start| start >= after) {
            break;
        }
        windows.push(Window { after: Some(after), until, is_last: false });
        until = Some(after);
    }
    windows.push(Window { after: None, until, is_last: true });
    windows
}

/// Of one device that has `found` readings in the first window: has another window before those that are left,
/// which goes back as far as the `missing` ones need if it goes on like that, and a quarter as far again. Those
/// that it reaches into are one then. So they are if that is so far that most partitions are in it: each bound
/// takes as long to plan as a partition without.
pub(super) fn cut_for(
    left: &mut VecDeque<Window>,
    found: usize,
    missing: usize,
    start: Option<Instant>,
) {
    let Some(Window { until, is_last: false, .. }) = left.front().copied() else { return };
    let [days, _] = DAYS;
    let reach = missing.saturating_mul(5).div_ceil(found.max(1) * 4);
    let reach = i64::try_from(reach).unwrap_or(i64::MAX).saturating_mul(days);
    let after = until
        .filter(|_| found > 0 && reach <= FAR)
        .map(|until| until.earlier_by(reach * DAY_MICROS))
        .filter(|after| start.is_none_or(|start| start < *after));
    left.retain(|window| match (window.after, after) {
        (Some(of_window), Some(after)) => of_window < after,
        (of_window, _) => of_window.is_none(),
    });
    if let Some(next) = left.front_mut() {
        next.until = after.or(until);
    }
    if after.is_some() {
        left.push_front(Window { after, until, is_last: false });
    }
}

/// Makes one of all but the first.
pub(super) fn join_rest(windows: &mut Vec<Window>) {
    if let (Some(second), Some(last)) = (windows.get(1).copied(), windows.last().copied()) {
        windows.truncate(1);
        windows.push(Window { until: second.until, ..last });
    }
}

/// What of `windows` is not later than `until`, if there is such an end.
pub(super) fn up_to(mut windows: Vec<Window>, until: Option<Instant>) -> Vec<Window> {
    let Some(until) = until else { return windows };
    windows.retain(|window| window.after.is_none_or(|after| after < until));
    if let Some(first) = windows.first_mut() {
        first.until = Some(first.until.map_or(until, |end| end.min(until)));
    }
    windows
}

/// The newest time that was seen in the table: that of an archive lies far behind the clock. Only what
/// windows are counted back from: the first of them has no upper end. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Newest(Arc<AtomicI64>);

impl Default for Newest {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MAX)))
    }
}

impl Newest {
    /// It, or `now` by this machine's clock if that is behind it: readings may be dated ahead.
    pub(super) fn get(&self, now: Timestamp) -> Instant {
        let seen = Timestamp::from_micros(self.0.load(Ordering::Relaxed));
        Instant::from(seen.map_or(now, |seen| seen.min(now)))
    }

    /// The newest row has this time.
    pub(super) fn note(&self, ts: Instant) {
        let micros = ts.timestamp().map_or(i64::MAX, Timestamp::as_micros);
        self.0.store(micros, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Instant {
        Timestamp::from_rfc3339(text).unwrap().into()
    }

    fn bounds(windows: &[Window]) -> Vec<(Option<Instant>, Option<Instant>)> {
        windows.iter().map(|window| (window.after, window.until)).collect()
    }

    #[test]
    fn windows_reach_back_two_days_then_thirty_then_to_the_beginning() {
        let newest = at("2026-03-31T12:00:00Z");
        let (two, thirty) = (at("2026-03-29T12:00:00Z"), at("2026-03-01T12:00:00Z"));
        let all = windows(None, None, newest);
        let expected = [(Some(two), None), (Some(thirty), Some(two)), (None, Some(thirty))];
        assert_eq!(bounds(&all), expected);
        assert_eq!(all.iter().filter(|window| window.is_last).count(), 1);
        assert!(all[2].is_last);
    }

    #[test]
    fn what_ends_earlier_is_counted_back_from_its_end() {
        let end = at("2026-01-31T00:00:00Z");
        let windows = windows(None, Some(end), at("2026-03-31T00:00:00Z"));
        assert_eq!(windows[0].after, Some(at("2026-01-29T00:00:00Z")));
        let infinite = super::windows(None, Some(Instant::MINUS_INFINITY), Instant::INFINITY);
        assert_eq!(bounds(&infinite), [(None, None)]);
    }

    #[test]
    fn what_begins_within_a_window_has_none_behind_it() {
        let newest = at("2026-03-31T00:00:00Z");
        let start = |text| bounds(&windows(Some(at(text)), None, newest));
        assert_eq!(start("2026-03-30T00:00:00Z"), [(None, None)]);
        assert_eq!(start("2026-03-29T00:00:00Z"), [(None, None)]);
        assert_eq!(start("2026-03-20T00:00:00Z").len(), 2);
        assert_eq!(start("2025-03-20T00:00:00Z").len(), 3);
        assert_eq!(start("2027-01-01T00:00:00Z"), [(None, None)], "ahead of it all");
    }

    #[test]
    fn the_rest_of_a_device_is_cut_by_what_it_had_in_two_days() {
        let newest = at("2026-03-31T12:00:00Z");
        let two = at("2026-03-29T12:00:00Z");
        let cut = |found, missing, start: Option<&str>| {
            let start = start.map(at);
            let mut left = VecDeque::from(windows(start, None, newest));
            left.pop_front();
            cut_for(&mut left, found, missing, start);
            bounds(left.make_contiguous())
        };
        // 4 readings in two days: 96 more in 48 days, and a quarter of that.
        let reach = at("2026-01-28T12:00:00Z");
        assert_eq!(cut(4, 96, None), [(Some(reach), Some(two)), (None, Some(reach))]);
        let start = Some("2026-01-28T12:00:00Z");
        assert_eq!(cut(4, 96, start), [(None, Some(two))], "nothing would be behind it");
        let (reach, thirty) = (at("2026-03-27T12:00:00Z"), at("2026-03-01T12:00:00Z"));
        let month = [(Some(reach), Some(two)), (Some(thirty), Some(reach)), (None, Some(thirty))];
        assert_eq!(cut(99, 1, None), month, "as long as the first, then what is left of the month");
        for (found, missing) in [(0, 100), (4, 586), (1, usize::MAX)] {
            assert_eq!(cut(found, missing, None), [(None, Some(two))], "{found} of {missing}");
        }
        assert_eq!(cut(4, 585, None).len(), 2);
        assert_eq!(cut(4, 96, Some("2026-03-20T00:00:00Z")), [(None, Some(two))]);
        assert_eq!(cut(4, 96, Some("2026-03-30T00:00:00Z")), []);
    }

    #[test]
    fn all_but_the_first_are_one() {
        let newest = at("2026-03-31T12:00:00Z");
        let two = at("2026-03-29T12:00:00Z");
        let joined = |start: Option<&str>| {
            let mut windows = windows(start.map(at), None, newest);
            join_rest(&mut windows);
            assert!(windows.last().unwrap().is_last);
            bounds(&windows)
        };
        assert_eq!(joined(None), [(Some(two), None), (None, Some(two))]);
        assert_eq!(joined(Some("2026-03-20T00:00:00Z")), [(Some(two), None), (None, Some(two))]);
        assert_eq!(joined(Some("2026-03-30T00:00:00Z")), [(None, None)]);
    }

    #[test]
    fn what_was_read_is_left_out_to_the_row() {
        let newest = at("2026-03-31T12:00:00Z");
        let (two, thirty) = (at("2026-03-29T12:00:00Z"), at("2026-03-01T12:00:00Z"));
        let rest = |until| bounds(&up_to(windows(None, None, newest), until));
        assert_eq!(rest(None), bounds(&windows(None, None, newest)));
        let row = at("2026-03-30T00:00:00Z");
        assert_eq!(rest(Some(row))[0], (Some(two), Some(row)));
        assert_eq!(rest(Some(two)), [(Some(thirty), Some(two)), (None, Some(thirty))]);
        let row = at("2026-01-01T00:00:00Z");
        assert_eq!(rest(Some(row)), [(None, Some(row))]);
        assert_eq!(rest(Some(Instant::MINUS_INFINITY)), [(None, Some(Instant::MINUS_INFINITY))]);
    }

    #[test]
    fn windows_are_counted_back_from_the_newest_row_or_from_the_clock_if_that_is_behind_it() {
        let newest = Newest::default();
        let now = Timestamp::from_rfc3339("2026-03-31T12:00:00Z").unwrap();
        assert_eq!(newest.get(now), now.into(), "no row was seen");
        newest.note(at("2025-06-01T00:00:00Z"));
        assert_eq!(newest.get(now), at("2025-06-01T00:00:00Z"));
        for ahead in [at("2026-03-31T12:00:00.000001Z"), Instant::INFINITY] {
            newest.note(ahead);
            assert_eq!(newest.get(now), now.into());
        }
        // Once the clock has come past that row, it counts again.
        newest.note(at("2026-04-01T00:00:00Z"));
        let later = Timestamp::from_rfc3339("2026-04-02T00:00:00Z").unwrap();
        assert_eq!(newest.get(later), at("2026-04-01T00:00:00Z"));
    }
}
