//! When to let messages gather in the socket.
//!
//! A broker writes message by message. A client that reads whenever something has come is woken for
//! each of them, which costs both sides more than the message itself: half of the processor time of
//! a dense stream went into that, measured with Mosquitto 2.0.11. So when all that has come is read,
//! and it came densely, the connection is left alone for a moment; TCP keeps what comes meanwhile.

use std::time::{Duration, Instant};

use crate::base::retry::CountedBackoff;

/// What this adds at most to the wait of a message to be read, and once more to that of its ack.
pub(crate) const PAUSE: Duration = Duration::from_micros(500);

/// Messages within a [`PAUSE`] that make one worth while: 16,000 a second.
const DENSE: u32 = 8;

/// Decides when to leave the socket alone, as interrupts are coalesced.
#[derive(Default)]
pub(super) struct Coalescing {
    /// When the first of `messages` came.
    since: Option<Instant>,
    /// So many have come within a [`PAUSE`], and since the last.
    messages: u32,
    /// Nothing has been read since the last pause.
    has_paused: bool,
    backoff: CountedBackoff,
}

impl Coalescing {
    /// A message was read.
    pub(super) fn received(&mut self, now: Instant) {
        if std::mem::take(&mut self.has_paused) {
            self.backoff.succeeded();
        }
        if self.since.is_none_or(|since| now.duration_since(since) > PAUSE) {
            (self.since, self.messages) = (Some(now), 0);
        }
        self.messages += 1;
    }

    /// Whether the last thing done was a pause. What it has brought is to be read first: if there is
    /// nothing, it was in vain.
    pub(super) fn has_paused(&self) -> bool {
        self.has_paused
    }

    /// Whether [`Self::drained`] is to be called when nothing is left to be read.
    pub(super) fn is_due(&self) -> bool {
        self.has_paused || self.messages >= DENSE
    }

    /// Nothing is left to be read: how long to leave it at that.
    pub(super) fn drained(&mut self) -> Option<Duration> {
        self.messages = 0;
        if std::mem::take(&mut self.has_paused) {
            self.backoff.failed();
            return None;
        }
        self.has_paused = self.backoff.allows();
        self.has_paused.then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test: it takes any moment for now")]

    use super::*;

    fn receive(coalescing: &mut Coalescing, at: Instant, messages: u32) {
        for _ in 0..messages {
            coalescing.received(at);
        }
    }

    #[test]
    fn a_dense_stream_is_paused_for_and_a_sparse_one_is_not() {
        let mut coalescing = Coalescing::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            receive(&mut coalescing, now, 1);
            now += Duration::from_millis(1);
            assert!(!coalescing.is_due());
        }
        for _ in 0..100 {
            receive(&mut coalescing, now, DENSE);
            assert!(coalescing.is_due());
            assert_eq!(coalescing.drained(), Some(PAUSE));
            now += PAUSE;
        }
    }

    #[test]
    fn a_broker_that_waits_for_acks_is_paused_for_less_and_less_often() {
        let mut coalescing = Coalescing::default();
        let mut now = Instant::now();
        let mut pauses = 0;
        for _ in 0..1_000 {
            receive(&mut coalescing, now, 20);
            if coalescing.drained().is_some() {
                pauses += 1;
                assert!(coalescing.is_due());
                assert_eq!(coalescing.drained(), None);
            }
            now += Duration::from_millis(1);
        }
        assert!((8..30).contains(&pauses), "{pauses}");
        // Until it sends more than that.
        receive(&mut coalescing, now, 20);
        while coalescing.drained().is_none() {
            receive(&mut coalescing, now, 20);
        }
        for _ in 0..10 {
            receive(&mut coalescing, now, 20);
            assert_eq!(coalescing.drained(), Some(PAUSE));
        }
    }
}
