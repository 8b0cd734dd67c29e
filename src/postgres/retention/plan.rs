//! What is old enough to be removed, and whether it may be. Pure: no clock, no database.
//!
//! What is removed is gone, so whatever looks like a mistake holds it up: clocks that disagree or have
//! jumped, and more at once than time alone makes old. An operator who says that it is meant
//! (`POST /admin/retention/run`) lifts the second, and once more the third; not the first.

use std::fmt;
use std::time::Duration;

use crate::postgres::partitions::{FIRST, Range};

/// The two clocks may differ by less than this, in microseconds.
const DISAGREEMENT: i64 = 60 * 60 * 1_000_000;
/// A clock that went on by so much more or less than time did has jumped.
const JUMP: i64 = 5 * 60 * 1_000_000;
/// So long nothing is removed after that.
const SETTLED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Why nothing is removed, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeldUp {
    /// Database and ingestor, by so many seconds.
    ClocksDisagree(i64),
    /// The database's.
    ClockJumped,
    TooManyPartitions {
        old: usize,
        all: usize,
    },
    TooManyRows {
        all: i64,
    },
}

impl HeldUp {
    /// Whether an operator may say that it is meant.
    pub(super) fn can_be_meant(&self) -> bool {
        !matches!(self, Self::ClocksDisagree(_))
    }
}

impl fmt::Display for HeldUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClocksDisagree(seconds) => write!(
                f,
                "the clocks of the database and of this machine differ by {} s: set the one that is wrong",
                seconds.abs()
            ),
            Self::ClockJumped => f.write_str(
                "the database's clock has jumped: nothing is removed for a day; if it is right now, POST /admin/retention/run",
            ),
            Self::TooManyPartitions { old, all } => write!(
                f,
                "{old} of {all} partitions would go at once, which is more than a third: see GET /admin/retention, and POST /admin/retention/run if that is meant"
            ),
            Self::TooManyRows { all } => write!(
                f,
                "more than a third of some {all} rows would go at once: see GET /admin/retention, and POST /admin/retention/run if that is meant"
            ),
        }
    }
}

/// What the clocks showed.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    last: Option<(i64, Duration)>,
    jumped: Option<Duration>,
}

impl Clocks {
    /// `database` and `here` in microseconds since the Unix epoch, `now` of a clock that never jumps.
    pub(super) fn look(&mut self, database: i64, here: i64, now: Duration) -> Option<HeldUp> {
        if let Some((before, then)) = self.last {
            let passed = i64::try_from(now.saturating_sub(then).as_micros()).unwrap_or(i64::MAX);
            let went_on = database.saturating_sub(before);
            if went_on.saturating_sub(passed).saturating_abs() >= JUMP {
                self.jumped = Some(now);
            }
        }
        self.last = Some((database, now));
        let apart = database.saturating_sub(here);
        if apart.saturating_abs() >= DISAGREEMENT {
            return Some(HeldUp::ClocksDisagree(apart / 1_000_000));
        }
        self.jumped = self.jumped.filter(|then| now.saturating_sub(*then) < SETTLED_AFTER);
        self.jumped.map(|_| HeldUp::ClockJumped)
    }

    /// An operator says that it is right.
    pub(super) fn settle(&mut self) {
        self.jumped = None;
    }
}

/// A partition by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Quoted, with its schema.
    pub(super) name: String,
    pub(super) range: Range,
    /// The ingestor has made it.
    pub(super) is_ours: bool,
    /// It holds rows, or did.
    pub(super) is_used: bool,
    pub(super) bytes: i64,
}

/// What is to be done with partitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Partitions {
    /// Dropped.
    pub(super) whole: Vec<Part>,
    /// Their older rows are deleted.
    pub(super) swept: Vec<Part>,
}

/// What is older than `cutoff`. Of ours those go that are older as a whole; rows are deleted where ranges
/// are wide, which is in the first, and where somebody else makes and drops partitions.
pub(super) fn old(parts: &[Part], cutoff: i64) -> Partitions {
    let mut old = Partitions::default();
    for part in parts {
        if part.is_ours && part.range.to <= cutoff {
            old.whole.push(part.clone());
        } else if part.range.from < cutoff && (!part.is_ours || part.range.from == FIRST) {
            old.swept.push(part.clone());
        }
    }
    old
}

/// Of how many partitions some are old: those that are kept ready for what comes say nothing of that.
pub(super) fn in_use(parts: &[Part], now: i64) -> usize {
    parts.iter().filter(|part| part.is_used && part.range.from <= now).count()
}

/// Whether so many at once are more than time alone makes old.
pub(super) fn are_too_many(old: usize, all: usize) -> Option<HeldUp> {
    (old * 3 > all).then_some(HeldUp::TooManyPartitions { old, all })
}

/// Rows that have to be deleted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    /// Those that were counted.
    pub(super) old: i64,
    /// Whether there are no more.
    pub(super) is_exact: bool,
    /// How many there are, as PostgreSQL guesses, where they are more than are counted.
    pub(super) guess: i64,
    /// All of the table; estimated, if they are many.
    pub(super) all: i64,
}

impl Rows {
    /// Whether so many at once are more than time alone makes old.
    pub(super) fn are_too_many(self) -> Option<HeldUp> {
        // Of a table that was never analyzed, PostgreSQL guesses a third, whatever is in it.
        let about_a_third = self.all / 3 - self.all / 100;
        let is_much = self.old >= more_than_a_third(self.all)
            || (self.guess > 0 && self.guess >= about_a_third);
        is_much.then_some(HeldUp::TooManyRows { all: self.all })
    }
}

/// No more old rows are counted.
const MOST_COUNTED: i64 = 1_000_000;

/// How many old rows are counted of so many rows.
pub(super) fn counted_of(all: i64) -> i64 {
    more_than_a_third(all).min(MOST_COUNTED)
}

/// How many rows have to be found to know that they are more than a third.
fn more_than_a_third(all: i64) -> i64 {
    all / 3 + 1
}

/// The rows that the first line of a plan tells, as `explain` prints it.
pub(super) fn rows_of_plan(line: &str) -> Option<i64> {
    let (_, rows) = line.split_once(" rows=")?;
    rows.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::partitions::DAY;

    const NOON: i64 = 20_000 * DAY + DAY / 2;
    const HOUR: Duration = Duration::from_secs(3_600);

    fn micros(of: Duration) -> i64 {
        i64::try_from(of.as_micros()).unwrap()
    }

    fn part(from: i64, to: i64, is_ours: bool) -> Part {
        let range = Range { from, to };
        Part { name: format!("p{from}"), range, is_ours, is_used: true, bytes: 0 }
    }

    #[test]
    fn clocks_that_differ_by_an_hour_hold_it_up_and_nobody_can_mean_that() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.look(NOON, NOON + micros(HOUR) - 1, HOUR), None);
        let held = clocks.look(NOON, NOON + micros(HOUR), HOUR).unwrap();
        assert_eq!(held, HeldUp::ClocksDisagree(-3_600));
        assert!(!held.can_be_meant());
    }

    #[test]
    fn a_clock_that_jumps_either_way_holds_it_up_for_a_day_or_until_somebody_says_that_it_is_right()
    {
        for jump in [-DAY, DAY * 400] {
            let mut clocks = Clocks::default();
            let at = |hours: u32, jump: i64| (NOON + jump + micros(HOUR * hours), HOUR * hours);
            let look = |clocks: &mut Clocks, (wall, now)| clocks.look(wall, wall, now);
            assert_eq!(look(&mut clocks, at(0, 0)), None);
            assert_eq!(look(&mut clocks, at(1, 0)), None);
            for hours in 2..26 {
                assert_eq!(
                    look(&mut clocks, at(hours, jump)),
                    Some(HeldUp::ClockJumped),
                    "{hours}"
                );
            }
            assert_eq!(look(&mut clocks, at(26, jump)), None);
            assert_eq!(look(&mut clocks, at(27, 0)), Some(HeldUp::ClockJumped));
            clocks.settle();
            assert_eq!(look(&mut clocks, at(28, 0)), None);
        }
    }

    #[test]
    fn ours_go_as_a_whole_and_wide_ones_and_those_of_others_by_rows() {
        let parts = [
            part(FIRST, 10, true),
            part(10, 20, true),
            part(20, 30, true),
            part(30, 40, true),
            part(0, 5, false),
        ];
        let names = |parts: &[Part]| parts.iter().map(|part| part.range.from).collect::<Vec<_>>();
        let at = |cutoff| {
            let old = old(&parts, cutoff);
            (names(&old.whole), names(&old.swept))
        };
        assert_eq!(at(5), (vec![], vec![FIRST, 0]));
        assert_eq!(at(29), (vec![FIRST, 10], vec![0]));
        assert_eq!(at(30), (vec![FIRST, 10, 20], vec![0]));
    }

    #[test]
    fn of_a_large_table_a_guess_tells_what_is_too_much_where_counting_ends() {
        assert_eq!([2, 3_000, 3_000_000_000].map(counted_of), [1, 1_001, MOST_COUNTED]);
        let rows = |guess| Rows { old: MOST_COUNTED, is_exact: false, guess, all: 3_000_000_000 };
        assert_eq!(rows(0).are_too_many(), None);
        assert_eq!(rows(969_000_000).are_too_many(), None);
        // The guess of one that was never analyzed.
        let held = rows(1_000_000_000).are_too_many().unwrap();
        assert!(held.to_string().contains("a third of some 3000000000 rows"), "{held}");
        let few = |old, all| Rows { old, is_exact: false, guess: 0, all }.are_too_many();
        assert_eq!(few(333, 1_000), None);
        assert!(few(334, 1_000).is_some());
        let plan = "Index Only Scan using a on b rows_c  (cost=0.42..63.07 rows=1200 width=0)";
        assert_eq!(rows_of_plan(plan), Some(1_200));
        assert_eq!(rows_of_plan("Result"), None);
    }

    #[test]
    fn more_than_a_third_at_once_is_a_mistake_until_somebody_means_it() {
        assert_eq!(are_too_many(3, 9), None);
        assert!(are_too_many(1, 2).is_some());
        let ahead = [part(10, 20, true), part(20, 30, true), part(30, 40, true)];
        let unused = Part { is_used: false, ..part(0, 10, true) };
        assert_eq!(in_use(&[&ahead[..], &[unused]].concat(), 25), 2);
        let held = are_too_many(4, 9).unwrap();
        assert!(held.can_be_meant() && held.to_string().starts_with("4 of 9 partitions"));
        assert_eq!([0, 2, 3, 9, 10].map(more_than_a_third), [1, 1, 2, 4, 4]);
    }
}
