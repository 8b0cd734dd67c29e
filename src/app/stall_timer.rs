//! How long a part has been stuck, less the time in which nobody could do anything. Pure.
//!
//! A machine that stood still, a process that was stopped, a virtual machine whose snapshot was taken: to a
//! watch that looks at the clock alone these are a disk that hangs. But then the watchdog did not run either,
//! and finds its own tick late. So much it has lost itself, and so much it gives the others.

use std::time::Duration;

/// What is known of the parts that are watched. Moments are those of a clock's monotonic time.
pub(super) struct StallTimer {
    /// How long it is from one look to the next, if nothing holds it up.
    tick: Duration,
    looked: Duration,
    parts: Vec<Part>,
}

#[derive(Clone, Default)]
struct Part {
    /// When the work that it is at began.
    since: Option<Duration>,
    /// How much of the time since then was lost to all.
    lost: Duration,
}

impl StallTimer {
    /// Watches so many parts.
    pub(super) fn new(tick: Duration, parts: usize, now: Duration) -> Self {
        Self { tick, looked: now, parts: vec![Part::default(); parts] }
    }

    /// Looks at the parts, which have been at their present work since then (`None`: idle). Returns how
    /// long each could have worked on it.
    pub(super) fn look(&mut self, busy: &[Option<Duration>], now: Duration) -> Vec<Duration> {
        let lost = now.saturating_sub(self.looked).saturating_sub(self.tick);
        self.looked = now;
        let worked = |(part, since): (&mut Part, &Option<Duration>)| {
            if part.since != *since {
                *part = Part { since: *since, lost: Duration::ZERO };
            }
            let busy = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
            part.lost += lost.min(busy);
            busy.saturating_sub(part.lost)
        };
        self.parts.iter_mut().zip(busy).map(worked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(1);
    const START: Duration = Duration::from_secs(3_600);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_part_that_hangs_while_the_watchdog_ticks_is_stuck_for_all_of_that_time() {
        let mut timer = StallTimer::new(TICK, 1, START);
        let mut stuck = Vec::new();
        for second in 1..=61 {
            stuck = timer.look(&[Some(START)], START + seconds(second));
        }
        assert_eq!(stuck, [seconds(61)]);
    }

    #[test]
    fn a_pause_of_the_machine_counts_for_nobody_however_often_it_comes() {
        let mut timer = StallTimer::new(TICK, 2, START);
        let mut now = START;
        for pauses in 1..=5 {
            now += seconds(70);
            let stuck = timer.look(&[Some(START), None], now);
            assert_eq!(stuck, [TICK * pauses, Duration::ZERO]);
        }
        // It hangs all the same.
        for _ in 0..61 {
            now += TICK;
            timer.look(&[Some(START), None], now);
        }
        assert_eq!(timer.look(&[Some(START), None], now), [seconds(66), Duration::ZERO]);
    }

    #[test]
    fn a_pause_is_given_to_the_work_that_it_held_up_and_not_to_the_next() {
        let mut timer = StallTimer::new(TICK, 1, START);
        assert_eq!(timer.look(&[Some(START)], START + seconds(70)), [TICK]);
        let next = START + seconds(71);
        for second in 71..132 {
            timer.look(&[Some(next)], START + seconds(second));
        }
        assert_eq!(timer.look(&[Some(next)], START + seconds(132)), [seconds(61)]);
    }

    #[test]
    fn work_that_began_after_the_pause_has_not_lost_more_than_it_took() {
        let mut timer = StallTimer::new(TICK, 1, START);
        let began = START + seconds(70);
        let now = began + Duration::from_millis(10);
        assert_eq!(timer.look(&[Some(began)], now), [Duration::ZERO]);
        assert_eq!(timer.look(&[Some(began)], now + TICK), [TICK]);
    }
}
