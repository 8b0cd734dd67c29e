//! Pauses between attempts, and reads that a disk refuses. The only file that knows the `backoff` crate.

use std::io;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// Half of a pause up or down.
const JITTER: f64 = 0.5;

/// Growing, jittered pauses without end.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// Without the crate's own jitter, whose randomness cannot be seeded.
    intervals: ExponentialBackoff,
    random: fastrand::Rng,
}

impl Backoff {
    /// The first pause takes at most `first`, the longest at most `cap`, jitter included, which
    /// comes from `random`: the same seed gives the same pauses.
    #[must_use]
    pub(crate) fn new(first: Duration, cap: Duration, random: fastrand::Rng) -> Self {
        let mut intervals = ExponentialBackoff {
            initial_interval: first.div_f64(1.0 + JITTER),
            max_interval: cap.div_f64(1.0 + JITTER),
            randomization_factor: 0.0,
            multiplier: 2.0,
            // The default gives up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        intervals.reset();
        Self { intervals, random }
    }

    /// How long to pause now.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let interval = self.intervals.next_backoff().unwrap_or(self.intervals.max_interval);
        interval.mul_f64(1.0 + JITTER * (2.0 * self.random.f64() - 1.0))
    }

    /// Starts over, after something worked.
    pub(crate) fn reset(&mut self) {
        self.intervals.reset();
    }
}

/// An exponential backoff that counts chances instead of time: after each failure it lets twice as many
/// chances pass as before, up to [`CountedBackoff::MOST_SKIPPED`], before it allows another.
#[derive(Debug, Default)]
pub(crate) struct CountedBackoff {
    to_skip: u32,
    /// Failures one after the other, up to the exponent of [`Self::MOST_SKIPPED`].
    failures: u32,
}

impl CountedBackoff {
    const MOST_SKIPPED: u32 = 1 << 6;

    /// Whether to take this chance.
    pub(crate) fn allows(&mut self) -> bool {
        match self.to_skip.checked_sub(1) {
            Some(left) => {
                self.to_skip = left;
                false
            }
            None => true,
        }
    }

    /// The chance that was taken brought nothing.
    pub(crate) fn failed(&mut self) {
        self.to_skip = 1 << self.failures;
        self.failures = (self.failures + 1).min(Self::MOST_SKIPPED.trailing_zeros());
    }

    /// The chance that was taken was worth it.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// A read that a disk refuses is tried again after each of these pauses: a cable or a controller may recover.
const READ_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(200)];

/// Reads, and again a few times if the disk refuses; waits in between by `wait`.
///
/// # Errors
/// The last one if the disk refuses ([`is_refusal`]), any other at once.
pub(crate) fn read_again<T>(
    mut read: impl FnMut() -> io::Result<T>,
    mut wait: impl FnMut(Duration),
) -> io::Result<T> {
    let mut outcome = read();
    for pause in READ_AGAIN_AFTER {
        match &outcome {
            Err(error) if is_refusal(error) => {}
            _ => break,
        }
        wait(pause);
        outcome = read();
    }
    outcome
}

/// Whether it says nothing of what is there: a disk that fails, and not something that is missing, ends before,
/// is of another kind, or is not for this user.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    let answers = [
        io::ErrorKind::NotFound,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::IsADirectory,
    ];
    !answers.contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_start_short_grow_to_the_cap_and_never_end() {
        let (first, cap) = (Duration::from_millis(250), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, cap, fastrand::Rng::with_seed(1));
        assert!(backoff.next_pause() <= first);
        let pauses: Vec<_> = (0..1_000).map(|_| backoff.next_pause()).collect();
        assert!(pauses.iter().all(|pause| *pause <= cap));
        assert!(pauses[900..].iter().all(|pause| *pause >= cap / 3));
        backoff.reset();
        assert!(backoff.next_pause() <= first);
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let pauses = |seed| {
            let (first, cap) = (Duration::from_millis(250), Duration::from_secs(30));
            let mut backoff = Backoff::new(first, cap, fastrand::Rng::with_seed(seed));
            std::array::from_fn::<_, 20, _>(|_| backoff.next_pause())
        };
        assert_eq!(pauses(7), pauses(7));
        assert_ne!(pauses(7), pauses(8));
    }

    #[test]
    fn what_a_disk_refuses_is_asked_for_again_and_what_is_not_there_is_not() {
        let attempts = |kind: io::ErrorKind, refusals: usize| {
            let (mut reads, mut waited) = (0, 0);
            let outcome = read_again(
                || {
                    reads += 1;
                    if reads > refusals { Ok(()) } else { Err(kind.into()) }
                },
                |_| waited += 1,
            );
            assert_eq!(waited + 1, reads);
            (outcome.is_ok(), reads)
        };
        let of_the_disk = io::Error::from_raw_os_error(5).kind();
        assert_eq!(attempts(of_the_disk, 3), (true, 4));
        assert_eq!(attempts(of_the_disk, 9), (false, 4));
        assert_eq!(attempts(io::ErrorKind::NotFound, 1), (false, 1));
        assert_eq!(attempts(io::ErrorKind::UnexpectedEof, 1), (false, 1));
    }

    #[test]
    fn after_each_failure_more_chances_are_skipped_up_to_a_limit() {
        let mut backoff = CountedBackoff::default();
        let mut taken = 0;
        for _ in 0..1_000 {
            if backoff.allows() {
                taken += 1;
                backoff.failed();
            }
        }
        // After 1, 2, 4, … 64, then after every 64.
        assert_eq!(taken, 7 + (1_000 - 127 - 7_u32).div_ceil(65));
        while !backoff.allows() {}
        backoff.succeeded();
        assert!((0..10).all(|_| backoff.allows()));
    }
}
