//! The last 15 minutes, at one point a second: what rates, forecasts and charts are made of.
//!
//! Kept here, because whoever stands in front of the box has no other place to look. Points lie on
//! the monotonic clock, and are told by their age: a box that learns the time an hour after
//! its start has no hole in its history. A few hundred kilobytes at most.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::base::metrics::{Distribution, Metrics};
use crate::base::time::Clock;
use crate::wal::Log;

mod points;
mod trend;

pub(crate) use points::Points;
pub(crate) use trend::{Space, Trend};

/// Points that are kept: 15 minutes.
pub(crate) const POINTS_MAX: usize = 900;

const STEP: Duration = Duration::from_secs(1);

/// Counters and gauges at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Since the start of the process.
    pub(crate) at: Duration,
    /// MQTT messages received.
    pub(crate) messages: u64,
    /// Readings accepted into the log.
    pub(crate) readings: u64,
    /// Readings rejected.
    pub(crate) rejected: u64,
    /// Rows that the database took, those that it had already included.
    pub(crate) rows: u64,
    /// Records that wait in the log.
    pub(crate) pending: u64,
    /// Bytes of the log on disk.
    pub(crate) disk_bytes: u64,
    /// How long commits took.
    pub(crate) commits: Distribution,
    /// How long it took from receipt to the database.
    pub(crate) ends_to_end: Distribution,
}

impl Sample {
    fn take(at: Duration, metrics: &Metrics, log: &Log) -> Self {
        let stats = log.stats();
        Self {
            at,
            messages: metrics.messages.get(),
            readings: metrics.valid_messages.get(),
            rejected: metrics.invalid_messages.get(),
            rows: metrics.db_inserts.get() + metrics.duplicates.get(),
            pending: stats.pending_records,
            disk_bytes: stats.disk_bytes,
            commits: metrics.commits(),
            ends_to_end: metrics.ends_to_end(),
        }
    }
}

/// How much came and went, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// MQTT messages received.
    pub(crate) messages: f64,
    /// Readings accepted into the log.
    pub(crate) readings: f64,
    /// Readings rejected.
    pub(crate) rejected: f64,
    /// Rows that the database took.
    pub(crate) rows: f64,
}

/// How long things took: half of them, and all but one in a hundred. `None` if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quantiles {
    /// Seconds.
    pub(crate) p50: Option<f64>,
    /// Seconds.
    pub(crate) p99: Option<f64>,
}

/// Two samples, and what happened between them.
struct Window<'s> {
    from: &'s Sample,
    to: &'s Sample,
}

impl Window<'_> {
    fn seconds(&self) -> f64 {
        self.to.at.saturating_sub(self.from.at).as_secs_f64()
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for a person")]
    fn rate(&self, count: impl Fn(&Sample) -> u64) -> f64 {
        let seconds = self.seconds();
        let more = count(self.to).saturating_sub(count(self.from));
        if seconds > 0.0 { more as f64 / seconds } else { 0.0 }
    }

    fn rates(&self) -> Rates {
        Rates {
            messages: self.rate(|s| s.messages),
            readings: self.rate(|s| s.readings),
            rejected: self.rate(|s| s.rejected),
            rows: self.rate(|s| s.rows),
        }
    }

    fn quantiles(&self, distribution: impl Fn(&Sample) -> &Distribution) -> Quantiles {
        let quantile = |q| distribution(self.to).quantile_since(distribution(self.from), q);
        Quantiles { p50: quantile(0.5), p99: quantile(0.99) }
    }
}

/// See the module.
pub(crate) struct History {
    clock: Arc<dyn Clock>,
    /// When that showed this, the process had started.
    started: Duration,
    /// Tells one process from the next.
    run: String,
    ring: Mutex<Ring>,
    free_bytes: AtomicU64,
    asking_for_free_bytes: AtomicBool,
}

/// The samples, oldest first: one more than there are points.
#[derive(Default)]
struct Ring {
    samples: VecDeque<Sample>,
    /// Samples that there were before the oldest.
    gone: u64,
    /// When a message was last seen to have come in.
    last_message: Option<Duration>,
}

impl History {
    /// Begins now, with a first sample.
    #[must_use]
    pub(crate) fn new(metrics: &Metrics, log: &Log, clock: Arc<dyn Clock>) -> Self {
        let history = Self {
            started: clock.monotonic(),
            clock,
            run: format!("{:016x}", fastrand::u64(..)),
            ring: Mutex::default(),
            free_bytes: AtomicU64::new(log.free_bytes().unwrap_or(0)),
            asking_for_free_bytes: AtomicBool::new(false),
        };
        history.lock().push(Sample::take(Duration::ZERO, metrics, log));
        history
    }

    /// Takes a sample a second, for ever.
    ///
    /// # Errors
    /// None; it is a supervised task.
    pub(crate) async fn record(self: Arc<Self>, metrics: Metrics, log: Log) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(STEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first is at once, and there is a sample already.
        tick.tick().await;
        loop {
            tick.tick().await;
            self.ask_for_free_bytes(&log);
            self.add(&metrics, &log);
        }
    }

    fn add(&self, metrics: &Metrics, log: &Log) {
        let sample = Sample::take(self.uptime(), metrics, log);
        self.lock().push(sample);
    }

    /// Not awaited: a filesystem that hangs must not take the history with it.
    fn ask_for_free_bytes(self: &Arc<Self>, log: &Log) {
        if self.asking_for_free_bytes.swap(true, Ordering::AcqRel) {
            return;
        }
        let (history, log) = (Arc::clone(self), log.clone());
        tokio::task::spawn_blocking(move || {
            if let Ok(bytes) = log.free_bytes() {
                history.free_bytes.store(bytes, Ordering::Release);
            }
            history.asking_for_free_bytes.store(false, Ordering::Release);
        });
    }

    /// How long the process has run.
    #[must_use]
    pub(crate) fn uptime(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// Room that `log` has left; what is free on its filesystem, as of a second or so ago.
    #[must_use]
    pub(crate) fn space(&self, log: &Log) -> Space {
        let limits = log.limits();
        Space {
            used_bytes: log.stats().disk_bytes,
            max_bytes: limits.max_bytes,
            free_bytes: self.free_bytes.load(Ordering::Acquire),
            min_free_bytes: limits.min_free_bytes,
        }
    }

    /// What came and went in the last `span`, or since the start if that is shorter.
    #[must_use]
    pub(crate) fn rates(&self, span: Duration) -> Rates {
        self.lock().window(span).map(|window| window.rates()).unwrap_or_default()
    }

    /// How long commits took in the last `span`.
    #[must_use]
    pub(crate) fn commits(&self, span: Duration) -> Quantiles {
        self.lock().window(span).map(|w| w.quantiles(|s| &s.commits)).unwrap_or_default()
    }

    /// How long it took from receipt to the database in the last `span`.
    #[must_use]
    pub(crate) fn ends_to_end(&self, span: Duration) -> Quantiles {
        self.lock().window(span).map(|w| w.quantiles(|s| &s.ends_to_end)).unwrap_or_default()
    }

    /// How long ago a message came in, to the second; `None` if none has since the start.
    #[must_use]
    pub(crate) fn last_message(&self) -> Option<Duration> {
        let at = self.lock().last_message?;
        Some(self.uptime().saturating_sub(at))
    }

    /// Whether the log fills or drains, and how long that takes. `database_down_for`: how long
    /// nothing has been able to leave it.
    #[must_use]
    pub(crate) fn trend(&self, space: Space, database_down_for: Option<Duration>) -> Trend {
        Trend::of(&self.lock(), space, database_down_for)
    }

    /// What charts show: all points, or if a page of this same process has those up to `after`
    /// already, only the newer ones.
    #[must_use]
    pub(crate) fn points(&self, run: Option<&str>, after: Option<u64>) -> Points {
        let after = after.filter(|_| run == Some(self.run.as_str()));
        Points::of(&self.lock(), &self.run, self.uptime(), after)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, sample: Sample) {
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
    fn window(&self, span: Duration) -> Option<Window<'_>> {
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
mod tests {
    use super::*;
    use crate::base::time::{ManualClock, Timestamp};
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::{Limits, open};

    const BOUNDS: &[f64] = &[1.0, 2.0];

    pub(super) fn sample(at: u64, messages: u64, pending: u64) -> Sample {
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

    pub(super) fn ring(samples: impl IntoIterator<Item = Sample>) -> Ring {
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

    #[test]
    fn the_age_of_the_last_message_is_counted_from_the_sample_by_the_clock() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let metrics = Metrics::new().unwrap();
        let limits = Limits {
            max_bytes: u64::MAX,
            min_free_bytes: 0,
            generation_bytes: u64::MAX,
            retain: Duration::ZERO,
        };
        let storage = Box::new(MemoryStorage::default());
        let (_, log) = open(storage, Arc::new(clock.clone()), limits, &metrics).unwrap();
        clock.advance(seconds(100));
        let history = History::new(&metrics, &log, Arc::new(clock.clone()));
        assert_eq!((history.uptime(), history.last_message()), (seconds(0), None));
        clock.advance(seconds(1));
        metrics.messages.inc();
        history.add(&metrics, &log);
        clock.advance(seconds(1));
        history.add(&metrics, &log);
        clock.set_wall(Timestamp::UNIX_EPOCH);
        clock.advance(seconds(3));
        assert_eq!((history.uptime(), history.last_message()), (seconds(5), Some(seconds(4))));
        assert_eq!(history.points(None, None).age, [4.0, 3.0]);
        assert_eq!(history.rates(seconds(10)).messages, 0.5);
    }
}
