//! Which partitions are missing. Pure: no clock, no database.
//!
//! Partitions are cells of a grid that is the same everywhere, since it begins at the Unix epoch in UTC:
//! two ingestors never want cells that overlap. Where others have made partitions of another width, what
//! is left of a cell is made.

/// Microseconds since the Unix epoch, the first inclusive, the last not. [`FIRST`] and [`LAST`] have no
/// bound there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::postgres) struct Range {
    pub(in crate::postgres) from: i64,
    pub(in crate::postgres) to: i64,
}

pub(in crate::postgres) const FIRST: i64 = i64::MIN;
pub(in crate::postgres) const LAST: i64 = i64::MAX;
pub(in crate::postgres) const DAY: i64 = 24 * 60 * 60 * 1_000_000;
/// 9999-01-01T00:00:00Z. What is dated later comes of wrong clocks and units, and shares one range without an
/// end.
const FAR: i64 = 253_370_764_800_000_000;

/// No more are made at once.
pub(in crate::postgres) const MOST_AT_ONCE: usize = 1_000;
/// A gap before now that is longer is filled where rows need it, and not as a whole.
const LONGEST_GAP: i64 = 31 * DAY;

/// What cells are, and how far ahead they are kept ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) struct Grid {
    /// Microseconds.
    pub(in crate::postgres) width: i64,
    /// Microseconds.
    pub(in crate::postgres) ahead: i64,
}

impl Grid {
    /// The beginning of the cell that `time` is in.
    pub(in crate::postgres) fn floor(self, time: i64) -> i64 {
        time.div_euclid(self.width) * self.width
    }

    fn cell(self, time: i64) -> Range {
        if time >= FAR {
            return Range { from: FAR, to: LAST };
        }
        let from = self.floor(time);
        Range { from, to: FAR.min(from + self.width) }
    }

    /// What is missing from `now` on, and behind all that is there.
    pub(super) fn missing_ahead(self, there: &[Range], now: i64) -> Vec<Range> {
        // Yesterday's are late, and not so late.
        let start = match there.iter().map(|range| range.to).max() {
            Some(end) if (now - LONGEST_GAP..now).contains(&end) => end,
            Some(_) => now,
            None => now - self.width,
        };
        let mut cells = Vec::new();
        let mut from = self.floor(start);
        while from <= now + self.ahead && cells.len() < MOST_AT_ONCE {
            cells.push(self.cell(from));
            from += self.width;
        }
        cells.dedup();
        with_older(older(there, self.floor(start)), there, &cells)
    }

    /// What `times` lack.
    pub(super) fn missing_for(self, there: &[Range], times: &[i64]) -> Vec<Range> {
        let Some(first) = there.iter().map(|range| range.from).min() else {
            return Vec::new();
        };
        let is_early = times.iter().any(|time| *time < first);
        let before = if is_early { older(there, first) } else { None };
        let mut cells: Vec<Range> =
            times.iter().filter(|time| **time >= first).map(|time| self.cell(*time)).collect();
        cells.sort_unstable();
        cells.dedup();
        with_older(before, there, &cells)
    }
}

/// `older`, and what is missing of `cells` then: they may begin before all that is there.
fn with_older(older: Option<Range>, there: &[Range], cells: &[Range]) -> Vec<Range> {
    let there: Vec<Range> = there.iter().copied().chain(older).collect();
    older.into_iter().chain(missing(&there, cells)).take(MOST_AT_ONCE).collect()
}

/// All that lies before what is there, or before `otherwise` if there is nothing.
fn older(there: &[Range], otherwise: i64) -> Option<Range> {
    let first = there.iter().map(|range| range.from).min().unwrap_or(otherwise);
    (first != FIRST).then_some(Range { from: FIRST, to: first })
}

/// What of `cells` is not in `there`.
fn missing(there: &[Range], cells: &[Range]) -> Vec<Range> {
    let mut there = there.to_vec();
    there.sort_unstable();
    let mut missing = Vec::new();
    for cell in cells {
        let mut from = cell.from;
        for range in there.iter().filter(|range| range.to > cell.from && range.from < cell.to) {
            if range.from > from {
                missing.push(Range { from, to: range.from });
            }
            from = from.max(range.to);
        }
        if from < cell.to {
            missing.push(Range { from, to: cell.to });
        }
    }
    missing
}

/// Until when there is a partition for every time from `now` on.
pub(super) fn covered_until(there: &[Range], now: i64) -> i64 {
    let mut there = there.to_vec();
    there.sort_unstable();
    let grown =
        |until, range: &Range| if range.from <= until { range.to.max(until) } else { until };
    there.iter().fold(now, grown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::properties::seeded;

    const GRID: Grid = Grid { width: DAY, ahead: 3 * DAY };
    const NOON: i64 = 20_000 * DAY + DAY / 2;

    fn days(days: std::ops::Range<i64>) -> Range {
        Range { from: days.start * DAY, to: days.end * DAY }
    }

    fn each(days: std::ops::Range<i64>) -> Vec<Range> {
        days.map(|day| self::days(day..day + 1)).collect()
    }

    #[test]
    fn an_empty_table_gets_yesterday_today_what_is_ahead_and_all_that_is_older() {
        let made = GRID.missing_ahead(&[], NOON);
        assert_eq!(made[0], Range { from: FIRST, to: 19_999 * DAY });
        assert_eq!(made[1..], each(19_999..20_004));
        assert_eq!(covered_until(&made, NOON), 20_004 * DAY);
        assert_eq!(GRID.missing_ahead(&made, NOON), []);
        assert_eq!(GRID.missing_ahead(&made, NOON + DAY), each(20_004..20_005));
    }

    #[test]
    fn a_service_that_was_away_fills_the_days_between_unless_they_are_many() {
        let older = |to: i64| Range { from: FIRST, to: to * DAY };
        assert_eq!(GRID.missing_ahead(&[older(19_990)], NOON), each(19_990..20_004));
        assert_eq!(GRID.missing_ahead(&[older(19_000)], NOON), each(20_000..20_004));
    }

    #[test]
    fn partitions_of_another_width_are_respected() {
        let week = days(19_998..20_002);
        let half = Range { from: 20_003 * DAY, to: 20_003 * DAY + DAY / 2 };
        let made = GRID.missing_ahead(&[Range { from: FIRST, to: week.from }, week, half], NOON);
        let rest = Range { from: half.to, to: 20_004 * DAY };
        assert_eq!(made, [days(20_002..20_003), rest]);
        let endless = Range { from: FIRST, to: LAST };
        assert_eq!(GRID.missing_ahead(&[endless], NOON), []);
    }

    #[test]
    fn what_rows_need_is_made_and_nothing_else() {
        let there = [days(19_000..20_000)];
        let made = GRID.missing_for(&there, &[NOON, NOON + 1, NOON + 400 * DAY, 19_500 * DAY]);
        assert_eq!(made, [days(20_000..20_001), days(20_400..20_401)]);
        let early = GRID.missing_for(&there, &[10_957 * DAY]);
        assert_eq!(early, [Range { from: FIRST, to: 19_000 * DAY }]);
        let everywhere: Vec<i64> = (0..5_000).map(|day| (30_000 + day) * DAY).collect();
        assert_eq!(GRID.missing_for(&there, &everywhere).len(), MOST_AT_ONCE);
    }

    #[test]
    fn all_that_is_dated_beyond_the_year_9999_has_one_range_without_an_end() {
        let there = [days(19_000..20_000)];
        let year_55800 = 1_698_796_800_000_000_000;
        let far = Range { from: FAR, to: LAST };
        assert_eq!(GRID.missing_for(&there, &[FAR, FAR + 400 * DAY, year_55800]), [far]);
        // A week that would reach into it.
        let weeks = Grid { width: 7 * DAY, ..GRID };
        let made = weeks.missing_for(&there, &[FAR - 1, year_55800]);
        assert_eq!(made, [Range { from: weeks.floor(FAR), to: FAR }, far]);
        // Ahead of now there is as much as before.
        let made = GRID.missing_ahead(&[there[0], far], NOON);
        assert_eq!(made[1..], each(20_000..20_004));
        assert_eq!(covered_until(&[&made[..], &[far]].concat(), NOON), 20_004 * DAY);
        // A service that is set up then makes nothing twice.
        assert_eq!(GRID.missing_ahead(&[], FAR - DAY / 2).last(), Some(&far));
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn what_is_made_never_overlaps_and_covers_what_is_wanted(
            bounds in proptest::collection::btree_set(0_i64..200, 0..12),
            width in 1_i64..5,
            ahead in 1_i64..9,
            now in 0_i64..200,
            times in proptest::collection::vec(0_i64..200, 0..9),
        ) {
            let bounds: Vec<i64> = bounds.into_iter().collect();
            let mut there: Vec<Range> =
                bounds.chunks_exact(2).map(|pair| Range { from: pair[0], to: pair[1] }).collect();
            let grid = Grid { width, ahead };
            there.extend(grid.missing_ahead(&there, now));
            prop_assert!(covered_until(&there, now) > now + ahead);
            there.extend(grid.missing_for(&there, &times));
            for time in times {
                prop_assert!(there.iter().any(|range| range.from <= time && time < range.to));
            }
            there.sort_unstable();
            for pair in there.windows(2) {
                prop_assert!(pair[0].to <= pair[1].from, "{pair:?}");
            }
        }
    }
}
