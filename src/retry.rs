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
}
