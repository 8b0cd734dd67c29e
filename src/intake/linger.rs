//! How long a group lingers for more messages.
//!
//! A commit costs a fifth of a millisecond of processor time, and tens of kilobytes written to the
//! disk, however small its group is. With a disk that syncs quickly, a dense stream would be
//! committed five messages at a time, and most of the work would be commits. So while messages
//! come densely, the group waits for more of them, no longer than anybody would notice.
//!
//! A linger that brings nothing is tried less and less often: a broker with a narrow window sends nothing
//! more before it has acks.

use std::time::Duration;

use crate::base::retry::CountedBackoff;

/// Between two looks; longer than the pauses of the source, in which nothing comes.
const STEP: Duration = Duration::from_micros(600);

/// Messages that have to come in a step, or it is not worth another: 16,000 a second.
const DENSE: usize = 10;

/// What lingering adds at most to the wait of the first message for its ack, and a step.
const LONGEST: Duration = Duration::from_millis(2);

/// Decides how long a group waits.
#[derive(Default)]
pub(super) struct Linger {
    backoff: CountedBackoff,
    /// How many messages were there at the last look for this group; `None` before the first.
    before: Option<usize>,
}

impl Linger {
    /// How long to wait until the next look, while messages come densely; `None`: the group goes on with what is
    /// there, and the next look is for the group after it.
    ///
    /// `there`: messages that wait. `most`: how many of them the group has room for. `elapsed`: since the first
    /// look for this group.
    pub(super) fn pause(
        &mut self,
        there: usize,
        most: usize,
        elapsed: Duration,
    ) -> Option<Duration> {
        let is_dense = match self.before.take() {
            None if !self.backoff.allows() => return None,
            None => true,
            Some(before) => there.saturating_sub(before) >= DENSE,
        };
        if is_dense && there < most && elapsed < LONGEST {
            self.before = Some(there);
            return Some(STEP);
        }
        if is_dense {
            self.backoff.succeeded();
        } else {
            self.backoff.failed();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many looks a group takes that finds these numbers of messages, each a step after the one before.
    fn looks(linger: &mut Linger, most: usize, found: &[usize]) -> usize {
        let mut elapsed = Duration::ZERO;
        for (at, there) in found.iter().enumerate() {
            match linger.pause(*there, most, elapsed) {
                Some(pause) => elapsed += pause,
                None => return at + 1,
            }
        }
        panic!("a group lingers after {found:?}");
    }

    #[test]
    fn a_group_lingers_while_messages_come_densely_there_is_room_and_nobody_notices() {
        for (case, most, found, expected) in [
            ("too few came", 100, &[0, DENSE - 1][..], 2),
            ("just enough came, once", 100, &[0, DENSE, DENSE], 3),
            ("what was there before the first look does not count", 100, &[50, 50], 2),
            ("the group is full at once", 100, &[100], 1),
            ("more is there than the group has room for", 100, &[1_000], 1),
            ("the group has no room", 0, &[0], 1),
            ("the group becomes full", 100, &[0, 60, 110], 3),
            ("2 ms are over after four steps of 0.6 ms", 1_000, &[0, 10, 20, 30, 40], 5),
            ("fewer than before", 100, &[20, 10], 2),
        ] {
            assert_eq!(looks(&mut Linger::default(), most, found), expected, "{case}");
        }
    }

    #[test]
    fn a_step_that_takes_longer_than_it_should_is_the_last() {
        let mut linger = Linger::default();
        assert_eq!(linger.pause(0, 100, Duration::ZERO), Some(STEP));
        assert_eq!(linger.pause(50, 100, LONGEST), None);
    }

    #[test]
    fn groups_that_lingered_in_vain_are_followed_by_more_and_more_that_do_not() {
        let mut linger = Linger::default();
        let in_vain: Vec<_> = (0..20).map(|_| looks(&mut linger, 100, &[0, 0])).collect();
        let expected = [2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2];
        assert_eq!(in_vain, expected);
    }

    #[test]
    fn a_dense_group_begins_the_backoff_anew() {
        let mut linger = Linger::default();
        for _ in 0..20 {
            looks(&mut linger, 100, &[0, 0]);
        }
        while looks(&mut linger, 100, &[0, 60, 110]) == 1 {}
        let again: Vec<_> = (0..4).map(|_| looks(&mut linger, 100, &[0, 0])).collect();
        assert_eq!(again, [2, 1, 2, 1]);
    }
}
