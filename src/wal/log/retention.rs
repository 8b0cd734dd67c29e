//! How long flushed records stay in the log: flushed is not yet trimmed.
//!
//! A database can go back in time: a replica that lagged is promoted, a backup is restored. Then what it
//! had confirmed is gone, and can only be sent again if it is still here. How far it goes back counts from
//! the last moment at which it was known to have all of it, not from now: what was flushed last stays for as
//! long as the database is away.

use std::collections::VecDeque;
use std::time::Duration;

use crate::wal::offset::Offset;

/// So many marks at most are spread over the time that records are retained.
const MARKS: u32 = 64;

/// Which flushed records are still here. Decides, and knows no clock.
pub(super) struct Retention {
    retain: Duration,
    /// Everything below is given up; it may be gone.
    trimmed: Offset,
    /// Everything from here on is here. What lies between that and `trimmed` was left behind by an earlier
    /// process, and has to be looked for.
    certain: Offset,
    /// From here on something is needed for another reason than its time, see `receipts`.
    needed: Offset,
    /// Of everything below the time is over.
    over: Offset,
    marks: VecDeque<Mark>,
    /// When the database was last known to have everything that was flushed.
    confirmed: Duration,
}

/// Up to where the log was flushed, and when.
struct Mark {
    opened: Duration,
    latest: Duration,
    flushed: Offset,
}

impl Retention {
    /// Of a log that was found with its records from `oldest` on, and flushed up to `flushed`: that was
    /// just now, as nobody knows when it was.
    pub(super) fn new(retain: Duration, oldest: Offset, flushed: Offset, now: Duration) -> Self {
        let mark = Mark { opened: now, latest: now, flushed };
        Self {
            retain,
            trimmed: oldest.min(flushed),
            certain: flushed,
            needed: Offset::MAX,
            over: oldest.min(flushed),
            marks: VecDeque::from([mark]),
            confirmed: now,
        }
    }

    pub(super) fn trimmed(&self) -> Offset {
        self.trimmed
    }

    pub(super) fn certain(&self) -> Offset {
        self.certain.max(self.trimmed)
    }

    /// The log is flushed up to `flushed`.
    pub(super) fn flushed(&mut self, flushed: Offset, now: Duration) {
        match self.marks.back_mut() {
            // Later than it was, so that nothing goes too early.
            Some(mark) if now.saturating_sub(mark.opened) < self.retain / MARKS => {
                mark.latest = now;
                mark.flushed = flushed;
            }
            _ => self.marks.push_back(Mark { opened: now, latest: now, flushed }),
        }
    }

    /// The database was known then to have everything that was flushed.
    pub(super) fn confirm(&mut self, at: Duration) {
        self.confirmed = self.confirmed.max(at);
    }

    /// What lies from `from` on is needed, whatever its time is.
    pub(super) fn keep_from(&mut self, from: Offset) {
        self.needed = from;
    }

    /// Up to where the time is over, and nothing is needed.
    pub(super) fn due(&mut self) -> Offset {
        while let Some(mark) = self.marks.front() {
            let is_over =
                self.confirmed.checked_sub(mark.latest).is_some_and(|age| age >= self.retain);
            if !is_over && !self.retain.is_zero() {
                break;
            }
            self.over = self.over.max(mark.flushed);
            self.marks.pop_front();
        }
        self.trimmed = self.trimmed.max(self.over.min(self.needed));
        self.trimmed
    }

    /// Gives up what lies below `to`, before its time.
    pub(super) fn give_up(&mut self, to: Offset) {
        self.trimmed = self.trimmed.max(to);
    }

    /// What was flushed from `to` on is pending again, all of which is here.
    pub(super) fn rewind(&mut self, to: Offset) {
        self.certain = self.certain.min(to);
        self.over = self.over.min(to);
        self.marks.retain(|mark| mark.flushed <= to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETAIN: Duration = Duration::from_secs(64);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn due(retention: &mut Retention, now: Duration) -> Offset {
        retention.confirm(now);
        retention.due()
    }

    #[test]
    fn what_was_flushed_stays_for_its_time_and_goes_soon_after() {
        let mut retention = Retention::new(RETAIN, 0, 0, at(0));
        for second in 0..200 {
            retention.flushed(second * 10, at(second));
            let due = due(&mut retention, at(second));
            let wanted = second.saturating_sub(64) * 10;
            assert!(due <= wanted && due + 20 >= wanted, "{due} at {second}");
            assert!(retention.marks.len() <= MARKS as usize + 2);
        }
    }

    #[test]
    fn nothing_goes_while_nobody_knows_whether_the_database_still_has_it() {
        let mut retention = Retention::new(RETAIN, 0, 0, at(0));
        retention.flushed(10, at(1));
        retention.flushed(20, at(60));
        assert_eq!(retention.due(), 0);
        assert_eq!(due(&mut retention, at(64)), 0);
        assert_eq!(due(&mut retention, at(65)), 10);
    }

    #[test]
    fn without_a_time_it_goes_at_once() {
        let mut retention = Retention::new(Duration::ZERO, 0, 0, at(0));
        retention.flushed(7, at(5));
        assert_eq!(retention.due(), 7);
    }

    #[test]
    fn what_is_pending_again_is_not_due_before_it_is_flushed_again() {
        let mut retention = Retention::new(RETAIN, 0, 0, at(0));
        retention.flushed(100, at(1));
        retention.rewind(40);
        assert!(due(&mut retention, at(1_000)) <= 40);
        retention.flushed(100, at(1_001));
        assert!(due(&mut retention, at(1_064)) <= 40);
        assert_eq!(due(&mut retention, at(1_065)), 100);
    }

    #[test]
    fn what_is_needed_stays_beyond_its_time_until_its_room_is_needed() {
        let mut retention = Retention::new(RETAIN, 0, 0, at(0));
        retention.keep_from(30);
        retention.flushed(100, at(1));
        assert_eq!(due(&mut retention, at(100)), 30);
        retention.keep_from(60);
        assert_eq!(retention.due(), 60);
        // Sent again, it has its time once more.
        retention.rewind(70);
        retention.keep_from(Offset::MAX);
        assert_eq!(due(&mut retention, at(200)), 70);
        retention.flushed(100, at(200));
        retention.keep_from(60);
        retention.give_up(80);
        assert_eq!(due(&mut retention, at(300)), 80);
    }
}
