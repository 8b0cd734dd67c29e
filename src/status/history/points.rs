//! What charts are drawn from.

use std::time::Duration;

use super::ring::Ring;
use super::sample::Window;

/// Points of the history, oldest first: a column each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Points {
    /// Names the process that they are of.
    pub(crate) run: String,
    /// The number of the last one: what to ask for more with.
    pub(crate) last: u64,
    /// Seconds ago.
    pub(crate) age: Vec<f64>,
    /// MQTT messages received, a second.
    pub(crate) messages: Vec<f64>,
    /// Rows that the database took, a second.
    pub(crate) rows: Vec<f64>,
    /// Records waiting in the log.
    pub(crate) pending: Vec<u64>,
    /// Seconds that all but one commit in a hundred took at most; `None` without one.
    pub(crate) commit: Vec<Option<f64>>,
    /// The same from receipt to the database.
    pub(crate) end_to_end: Vec<Option<f64>>,
}

impl Points {
    pub(super) fn of(ring: &Ring, run: &str, now: Duration, after: Option<u64>) -> Self {
        let pairs = ring.samples.len().saturating_sub(1);
        let known = after.map_or(0, |after| after.saturating_sub(ring.gone));
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(pairs);
        let mut points = Self {
            run: run.to_owned(),
            last: ring.gone + pairs as u64,
            age: Vec::with_capacity(pairs - known),
            messages: Vec::with_capacity(pairs - known),
            rows: Vec::with_capacity(pairs - known),
            pending: Vec::with_capacity(pairs - known),
            commit: Vec::with_capacity(pairs - known),
            end_to_end: Vec::with_capacity(pairs - known),
        };
        let later = ring.samples.iter().skip(1);
        for (from, to) in ring.samples.iter().zip(later).skip(known) {
            let window = Window { from, to };
            points.age.push(rounded(now.saturating_sub(to.at).as_secs_f64(), 1e3));
            points.messages.push(rounded(window.rate(|s| s.messages), 1e1));
            points.rows.push(rounded(window.rate(|s| s.rows), 1e1));
            points.pending.push(to.pending);
            let micros = |seconds| rounded(seconds, 1e6);
            points.commit.push(window.quantiles(|s| &s.commits).p99.map(micros));
            points.end_to_end.push(window.quantiles(|s| &s.ends_to_end).p99.map(micros));
        }
        points
    }
}

/// Fifteen digits of a pixel are fifteen times the bytes on a phone's line.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::super::ring::tests::{ring, sample};
    use super::*;

    fn points(ring: &Ring, after: Option<u64>) -> Points {
        Points::of(ring, "run", Duration::from_secs(10), after)
    }

    #[test]
    fn a_point_is_what_happened_between_two_samples() {
        let ring = ring([sample(0, 0, 0), sample(1, 10, 7), sample(3, 50, 3)]);
        let points = points(&ring, None);
        assert_eq!(points.age, [9.0, 7.0]);
        assert_eq!(points.messages, [10.0, 20.0]);
        assert_eq!(points.pending, [7, 3]);
        assert_eq!(points.end_to_end, [None, None]);
        assert!(points.commit.iter().all(Option::is_some));
        assert_eq!(points.last, 2);
    }

    #[test]
    fn who_has_some_is_given_the_rest() {
        let mut ring = ring((0..3_000).map(|at| sample(at, 0, at)));
        let all = points(&ring, None);
        assert_eq!((all.age.len(), all.last), (900, 2_999));
        assert!(points(&ring, Some(all.last)).age.is_empty());
        ring.push(sample(3_000, 0, 3_000));
        let more = points(&ring, Some(all.last));
        assert_eq!((more.pending, more.last), (vec![3_000], 3_000));
        // Away for longer than is kept: all that there is.
        assert_eq!(points(&ring, Some(5)).age.len(), 900);
        assert!(points(&ring, Some(u64::MAX)).age.is_empty());
        assert!(points(&Ring::default(), None).age.is_empty());
    }
}
