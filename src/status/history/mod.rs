//! The last 15 minutes, at one point a second: what rates, forecasts and charts are made of.
//!
//! Kept here, because whoever stands in front of the box has no other place to look. Points lie on
//! the monotonic clock, and are told by their age: a box that learns the time an hour after
//! its start has no hole in its history. A few hundred kilobytes at most.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::base::metrics::Metrics;
use crate::base::time::Clock;
use crate::wal::Log;

mod points;
mod ring;
mod sample;
mod trend;

pub(crate) use points::Points;
pub(crate) use sample::{Quantiles, Rates};
pub(crate) use trend::{Space, Trend};

use ring::{Ring, STEP};
use sample::Sample;

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

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "of whole numbers")]
mod tests {
    use super::*;
    use crate::base::time::{ManualClock, Timestamp};
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::{Limits, open};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
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
