//! The samples of the last 15 minutes.

use std::collections::VecDeque;
use std::time::Duration;

use super::sample::{Sample, Window};

/// Points that are kept: 15 minutes.
const POINTS_MAX: usize = 900;

/// Between two samples.
pub(super) const STEP: Duration = Duration::from_secs(1);

/// The samples, oldest first: one more than there are points.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) samples: VecDeque<Sample>,
    /// Samples that there were before the oldest.
    pub(super) gone: u64,
    /// When a message was last seen to have come in.
    pub(super) last_message: Option<Duration>,
}

impl Ring {
    pub(super) fn push(&mut self, sample: Sample) {
        let before = self.samples.back().map_or(0, |before| before.messages);
        if sample.messages > before {
            self.last_message = Some(sample.at);
        }
        if self.samples.len() > POINTS_MAX {
            self.samples.pop_front();
            self.gone += 1;
        }
        self.samples.push_back(sample);
    }

    /// From the newest sample that is `span` old, or the oldest if none is, to the newest.
    pub(super) fn window(&self, span: Duration) -> Option<Window<'_>> {
        let to = self.samples.back()?;
        let begin = to.at.saturating_sub(span);
        // A tick may come a little late, and the one before a little early.
        let slack = STEP / 4;
        let at = self.samples.partition_point(|sample| sample.at <= begin + slack);
        let from = self.samples.get(at.saturating_sub(1))?;
        Some(Window { from, to })
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "of whole numbers")]
pub(super) mod tests {
    use super::super::sample::Rates;
    use super::*;
    use crate::base::metrics::Distribution;

    const BOUNDS: &[f64] = &[1.0, 2.0];

    pub(in crate::status::history) fn sample(at: u64, messages: u64, pending: u64) -> Sample {
        let distribution = |count| Distribution::of_counts(BOUNDS, &[count, count, count]);
        Sample {
            at: Duration::from_secs(at),
            messages,
            readings: messages * 2,
            rejected: messages / 10,
            rows: messages * 2 - pending.min(messages * 2),
            pending,
            disk_bytes: 1_000_000 + pending * 400,
            commits: distribution(messages),
            ends_to_end: distribution(0),
        }
    }

    pub(in crate::status::history) fn ring(samples: impl IntoIterator<Item = Sample>) -> Ring {
        let mut ring = Ring::default();
        samples.into_iter().for_each(|sample| ring.push(sample));
        ring
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_is_that_of_its_span() {
        // 100 messages a second for a minute, then 10.
        let count = |at: u64| if at <= 60 { at * 100 } else { 6_000 + (at - 60) * 10 };
        let ring = ring((0..=75).map(|at| sample(at, count(at), 0)));
        let rate = |span| ring.window(seconds(span)).unwrap().rates().messages;
        assert_eq!(rate(10), 10.0);
        assert_eq!(rate(25), 46.0);
    }

    #[test]
    fn before_its_span_is_over_a_rate_is_that_since_the_start() {
        let one = ring([sample(0, 0, 0)]);
        assert_eq!(one.window(seconds(10)).unwrap().rates(), Rates::default());
        let few = ring([sample(0, 0, 0), sample(1, 30, 0), sample(2, 60, 0)]);
        let rates = few.window(seconds(300)).unwrap().rates();
        assert_eq!((rates.messages, rates.readings, rates.rejected), (30.0, 60.0, 3.0));
    }

    #[test]
    fn a_tick_that_comes_late_makes_no_rate_higher() {
        let ring = ring([sample(0, 0, 0), sample(1, 100, 0), sample(4, 400, 0)]);
        assert_eq!(ring.window(seconds(1)).unwrap().rates().messages, 100.0);
    }

    #[test]
    fn fifteen_minutes_are_kept_and_no_more() {
        let ring = ring((0..5_000).map(|at| sample(at, at, 0)));
        assert_eq!(ring.samples.len(), POINTS_MAX + 1);
        assert_eq!(ring.gone + ring.samples.len() as u64, 5_000);
        assert_eq!(ring.window(seconds(10_000)).unwrap().seconds(), 900.0);
    }

    #[test]
    fn the_last_message_is_dated_by_the_sample_that_saw_it() {
        let mut ring = ring([sample(0, 0, 0), sample(1, 0, 0)]);
        assert_eq!(ring.last_message, None);
        ring.push(sample(2, 1, 0));
        ring.push(sample(3, 1, 0));
        assert_eq!(ring.last_message, Some(seconds(2)));
    }
}
