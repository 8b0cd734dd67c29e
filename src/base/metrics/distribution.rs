//! What a histogram has observed, to be compared with what it had observed before.

use prometheus::Histogram;
use prometheus::core::Metric as _;
use prometheus::proto::Bucket;

/// A histogram at one moment: how many observations there were up to each bound, and in all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Distribution {
    /// Upper ones, in seconds.
    bounds: &'static [f64],
    /// One more than there are bounds.
    cumulative: Vec<u64>,
}

impl Distribution {
    pub(super) fn of(histogram: &Histogram, bounds: &'static [f64]) -> Self {
        let metric = histogram.metric();
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket().iter().map(Bucket::cumulative_count);
        let cumulative = buckets.chain([histogram.get_sample_count()]).collect();
        Self { bounds, cumulative }
    }

    /// The value below which the share `q` of what was observed after `earlier` lies, as Prometheus'
    /// `histogram_quantile` has it; `None` if nothing was.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts, for a value that is an estimate")]
    pub(crate) fn quantile_since(&self, earlier: &Self, q: f64) -> Option<f64> {
        let counts: Vec<f64> = self
            .cumulative
            .iter()
            .zip(&earlier.cumulative)
            .map(|(now, then)| now.saturating_sub(*then) as f64)
            .collect();
        let all = *counts.last()?;
        if all == 0.0 {
            return None;
        }
        let wanted = q * all;
        let mut below = (0.0, 0.0);
        for (bound, count) in self.bounds.iter().zip(&counts) {
            if *count >= wanted && *count > below.1 {
                let share = (wanted - below.1) / (count - below.1);
                return Some(below.0 + (bound - below.0) * share);
            }
            below = (*bound, *count);
        }
        self.bounds.last().copied()
    }
}

#[cfg(test)]
impl Distribution {
    pub(crate) fn of_counts(bounds: &'static [f64], cumulative: &[u64]) -> Self {
        Self { bounds, cumulative: cumulative.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[1.0, 2.0, 4.0];

    fn quantile(counts: &[u64], q: f64) -> Option<f64> {
        let nothing = Distribution::of_counts(BOUNDS, &[0; 4]);
        Distribution::of_counts(BOUNDS, counts).quantile_since(&nothing, q)
    }

    #[test]
    fn a_quantile_lies_within_its_bucket_in_proportion() {
        assert_eq!(quantile(&[0, 0, 0, 0], 0.5), None);
        assert_eq!(quantile(&[4, 4, 4, 4], 0.5), Some(0.5));
        assert_eq!(quantile(&[0, 4, 4, 4], 0.5), Some(1.5));
        assert_eq!(quantile(&[2, 2, 4, 4], 0.75), Some(3.0));
        assert_eq!(quantile(&[2, 2, 4, 4], 0.5), Some(1.0));
        // Above the last bound nothing more is known.
        assert_eq!(quantile(&[0, 0, 0, 4], 0.5), Some(4.0));
    }

    #[test]
    fn only_what_was_observed_since_counts() {
        let earlier = Distribution::of_counts(BOUNDS, &[10, 10, 10, 10]);
        let now = Distribution::of_counts(BOUNDS, &[10, 10, 14, 14]);
        assert_eq!(now.quantile_since(&earlier, 0.5), Some(3.0));
        assert_eq!(now.quantile_since(&now, 0.5), None);
    }
}
