//! Pauses between attempts. The only file that knows the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// Half of a pause up or down.
const JITTER: f64 = 0.5;

/// Growing, jittered pauses without end.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// The first pause takes at most `first`, the longest at most `cap`, jitter included.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        let mut backoff = ExponentialBackoff {
            initial_interval: first.div_f64(1.0 + JITTER),
            max_interval: cap.div_f64(1.0 + JITTER),
            randomization_factor: JITTER,
            multiplier: 2.0,
            // The default gives up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        backoff.reset();
        Self(backoff)
    }

    /// How long to pause now.
    pub fn next_pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// Starts over, after something worked.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

/// Whether to try again what may well be in vain: after each time that it was, twice as many chances
/// are passed over as before, up to [`Reluctance::MOST`].
#[derive(Debug, Default)]
pub(crate) struct Reluctance {
    to_pass_over: u32,
    /// Times in vain, one after the other, up to the exponent of [`Self::MOST`].
    in_vain: u32,
}

impl Reluctance {
    const MOST: u32 = 1 << 6;

    /// Whether to take this chance.
    pub(crate) fn tries(&mut self) -> bool {
        match self.to_pass_over.checked_sub(1) {
            Some(left) => {
                self.to_pass_over = left;
                false
            }
            None => true,
        }
    }

    /// It was in vain.
    pub(crate) fn in_vain(&mut self) {
        self.to_pass_over = 1 << self.in_vain;
        self.in_vain = (self.in_vain + 1).min(Self::MOST.trailing_zeros());
    }

    /// It was not.
    pub(crate) fn worth_it(&mut self) {
        self.in_vain = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_start_short_grow_to_the_cap_and_never_end() {
        let (first, cap) = (Duration::from_millis(250), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, cap);
        assert!(backoff.next_pause() <= first);
        let pauses: Vec<_> = (0..1_000).map(|_| backoff.next_pause()).collect();
        assert!(pauses.iter().all(|pause| *pause <= cap));
        assert!(pauses[900..].iter().all(|pause| *pause >= cap / 3));
        backoff.reset();
        assert!(backoff.next_pause() <= first);
    }

    #[test]
    fn what_is_in_vain_is_tried_less_and_less_often() {
        let mut reluctance = Reluctance::default();
        let mut tries = 0;
        for _ in 0..1_000 {
            if reluctance.tries() {
                tries += 1;
                reluctance.in_vain();
            }
        }
        // After 1, 2, 4, … 64, then after every 64.
        assert_eq!(tries, 7 + (1_000 - 127 - 7_u32).div_ceil(65));
        while !reluctance.tries() {}
        reluctance.worth_it();
        assert!((0..10).all(|_| reluctance.tries()));
    }
}
