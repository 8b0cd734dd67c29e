//! The flusher: moves the log into PostgreSQL, batch by batch, and never gives up.
//!
//! Batches are ranges of offsets. A few are in flight at once and may end in any order; the log is
//! trimmed up to where they have ended without a gap. A batch that the database cannot take now is
//! kept and sent again after a pause, without end; the first success after a failure is sent
//! alone, as a probe. A batch with a value that PostgreSQL refuses is halved down to that row,
//! which goes to the dead-letter store while its neighbours are stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::base::activity::Activity;
use crate::base::metrics::Metrics;
use crate::base::retry::Backoff;
use crate::dead_letters::DeadLetters;
use crate::postgres::{Database, Failure};
use crate::status::health::Health;
use crate::wal::{Log, Offset};

mod batch;
pub mod plan;
mod settings;
pub mod sink;

pub use settings::Settings;

use batch::{Ended, Outcome, Work};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long the database may be silent, with nothing to write, before it is asked.
const PING_AFTER: Duration = Duration::from_secs(2);

/// What the flusher is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing waits.
    Idle,
    /// Batches are on their way.
    Flushing,
    /// The database failed; the next attempt comes after a pause.
    BackingOff,
    /// An operator has stopped it.
    Paused,
}

/// What the flusher is doing, in full.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Status {
    /// In a word.
    pub state: State,
    /// Failures since the last success.
    pub consecutive_failures: u64,
    /// What the last of them was.
    pub last_error: Option<String>,
    /// Whether that was the database turning us away, rather than not answering.
    pub is_refused: bool,
    /// Seconds until the next attempt, while backing off.
    pub retry_in_seconds: Option<f64>,
}

/// Others' handle on the flusher.
pub struct Control {
    paused: watch::Sender<bool>,
    shown: Mutex<Shown>,
}

struct Shown {
    state: State,
    consecutive_failures: u64,
    last_error: Option<String>,
    is_refused: bool,
    retry_at: Option<Instant>,
}

impl Default for Control {
    fn default() -> Self {
        let shown = Shown {
            state: State::Idle,
            consecutive_failures: 0,
            last_error: None,
            is_refused: false,
            retry_at: None,
        };
        Self { paused: watch::Sender::new(false), shown: Mutex::new(shown) }
    }
}

impl Control {
    /// Starts no further batch until [`Self::resume`]; those in flight end. Returns whether that
    /// is news.
    pub fn pause(&self) -> bool {
        !self.paused.send_replace(true)
    }

    /// Takes [`Self::pause`] back. Returns whether that is news.
    pub fn resume(&self) -> bool {
        self.paused.send_replace(false)
    }

    /// What the flusher is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        let shown = self.lock();
        let until = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs_f64();
        Status {
            state: if *self.paused.borrow() { State::Paused } else { shown.state },
            consecutive_failures: shown.consecutive_failures,
            last_error: shown.last_error.clone(),
            is_refused: shown.is_refused,
            retry_in_seconds: shown.retry_at.map(until),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the flusher works with.
#[derive(Clone)]
pub struct Parts {
    /// Where records come from.
    pub log: Log,
    /// Where they go.
    pub database: Database,
    /// Where rows go that PostgreSQL refuses.
    pub dead_letters: Arc<DeadLetters>,
    /// Where the database's state is kept.
    pub health: Arc<Health>,
    /// Counters.
    pub metrics: Metrics,
    /// Others' handle on this flusher.
    pub control: Arc<Control>,
}

/// See the module.
pub struct Flusher {
    parts: Parts,
    config: Settings,
    activity: Activity,
    /// Where the next batch begins.
    position: Offset,
    /// When the record at `position` was first seen waiting.
    waiting_since: Option<Instant>,
    in_flight: JoinSet<Ended>,
    /// First offset → a batch that failed and is to be sent again.
    failed: BTreeMap<Offset, Work>,
    /// First offset → end of a batch that ended while an earlier one has not.
    ended: BTreeMap<Offset, Offset>,
    flushed: Offset,
    backoff: Backoff,
    schema_ready: bool,
    retry_at: Option<Instant>,
    /// After a failure one batch goes alone.
    probing: bool,
    last_answer: Option<Instant>,
    /// What a batch takes from its start to its end, smoothed.
    batch_time: Duration,
}

impl Flusher {
    /// A flusher that begins where the log was flushed to.
    #[must_use]
    pub fn new(parts: Parts, config: Settings, activity: Activity) -> Self {
        let flushed = parts.log.flushed();
        Self {
            parts,
            config,
            activity,
            position: flushed,
            waiting_since: None,
            in_flight: JoinSet::new(),
            failed: BTreeMap::new(),
            ended: BTreeMap::new(),
            flushed,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, fastrand::Rng::new()),
            schema_ready: false,
            retry_at: None,
            probing: true,
            last_answer: None,
            batch_time: Duration::ZERO,
        }
    }

    /// Works until asked to stop, then waits for the batches in flight; the caller bounds that.
    ///
    /// # Errors
    /// If a batch's task panicked.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut committed = self.parts.log.committed();
        let mut paused = self.parts.control.paused.subscribe();
        while !stop.is_cancelled() {
            self.activity.begin();
            let is_paused = *paused.borrow_and_update();
            self.start(*committed.borrow_and_update(), is_paused);
            self.show();
            let wake = self.wake_at(is_paused);
            self.activity.end();
            tokio::select! {
                Some(ended) = self.in_flight.join_next() => {
                    self.activity.begin();
                    self.finish(ended?).await;
                }
                () = tokio::time::sleep_until(wake) => {}
                changed = committed.changed() => changed?,
                changed = paused.changed() => changed?,
                () = stop.cancelled() => {}
            }
        }
        while let Some(ended) = self.in_flight.join_next().await {
            self.finish(ended?).await;
        }
        Ok(())
    }

    /// Starts what can be started now.
    fn start(&mut self, committed: Offset, is_paused: bool) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        while !self.is_busy() {
            let work = if is_paused { self.ping(now) } else { self.next_work(committed, now) };
            let Some(work) = work else { return };
            let parts = self.parts.clone();
            self.in_flight.spawn(batch::send(parts, work));
        }
    }

    /// What to send next, if it is time: first what failed, then a batch that is full or has
    /// waited long enough, then a question whether the database is there at all.
    fn next_work(&mut self, committed: Offset, now: Instant) -> Option<Work> {
        if !self.schema_ready {
            return self.in_flight.is_empty().then_some(Work::Schema);
        }
        if let Some((_, work)) = self.failed.pop_first() {
            return Some(work);
        }
        let pending = committed - self.position;
        if pending > 0 {
            let size = self.config.batch_size as u64;
            let since = *self.waiting_since.get_or_insert(now);
            if pending < size && now < since + self.linger() {
                return None;
            }
            let from = self.position;
            self.position += pending.min(size);
            self.waiting_since = (self.position < committed).then_some(now);
            return Some(Work::batch(from, self.position));
        }
        self.ping(now)
    }

    /// The question whether the database is there, if it is time to ask.
    fn ping(&self, now: Instant) -> Option<Work> {
        let silent = self.last_answer.is_none_or(|at| now >= at + PING_AFTER);
        (silent && self.in_flight.is_empty()).then_some(Work::Ping)
    }

    /// When there may be something to start, if nothing else happens before.
    fn wake_at(&self, paused: bool) -> Instant {
        let later = Instant::now() + PING_AFTER;
        if paused || (!self.in_flight.is_empty() && self.is_busy()) {
            return later;
        }
        let linger = self.waiting_since.map(|since| since + self.linger());
        self.retry_at.or(linger).unwrap_or(later)
    }

    /// How long a batch may wait to fill: so that its rows are in the table within the batch
    /// timeout, if the database is as fast as it was, but half of that timeout at least.
    fn linger(&self) -> Duration {
        let timeout = self.config.batch_timeout;
        timeout.saturating_sub(self.batch_time).max(timeout / 2)
    }

    /// Whether as much is in flight as may be.
    fn is_busy(&self) -> bool {
        self.in_flight.len() >= if self.probing { 1 } else { self.config.connections }
    }

    async fn finish(&mut self, ended: Ended) {
        let Ended { work, outcome, took } = ended;
        self.last_answer = Some(Instant::now());
        match outcome {
            Outcome::Done => {
                self.succeeded();
                match work {
                    Work::Schema => self.schema_ready = true,
                    Work::Ping => {}
                    Work::Batch(batch) => {
                        self.batch_time = (self.batch_time * 7 + took) / 8;
                        self.ended(batch.from, batch.to).await;
                    }
                }
            }
            Outcome::Failed(failure) => {
                self.failed(&failure);
                if let Work::Batch(batch) = work {
                    self.failed.insert(batch.from, Work::Batch(batch));
                }
            }
        }
    }

    fn succeeded(&mut self) {
        if self.retry_at.is_some() {
            // It was on its way before another failed, and says nothing of now.
            return;
        }
        self.backoff.reset();
        self.probing = false;
        let failures = {
            let mut shown = self.parts.control.lock();
            shown.retry_at = None;
            std::mem::take(&mut shown.consecutive_failures)
        };
        if self.parts.health.set_database_up(true) {
            let pending = self.parts.log.stats().pending_records;
            tracing::info!(
                failures,
                pending,
                "the database takes rows: flushing what waits in the log"
            );
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.parts.metrics.db_failures.inc();
        if failure.is_missing_table() {
            self.schema_ready = false;
        }
        let pause = self.backoff.next_pause();
        let retry_at = Instant::now() + pause;
        self.retry_at = Some(retry_at);
        self.probing = true;
        let error = failure.to_string();
        let is_new_error = {
            let mut shown = self.parts.control.lock();
            shown.consecutive_failures += 1;
            shown.retry_at = Some(retry_at);
            shown.is_refused = failure.is_refusal();
            shown.last_error.replace(error.clone()).as_ref() != Some(&error)
        };
        let went_down = self.parts.health.set_database_up(false);
        let retry_in_ms = pause.as_millis();
        if went_down || is_new_error {
            tracing::warn!(
                error,
                retry_in_ms,
                "the database does not take rows: they stay in the log; trying again, without end"
            );
        } else {
            tracing::debug!(error, retry_in_ms, "the database still does not take rows");
        }
    }

    /// Trims the log up to where batches have ended without a gap.
    async fn ended(&mut self, from: Offset, to: Offset) {
        self.ended.insert(from, to);
        let before = self.flushed;
        while let Some(to) = self.ended.remove(&self.flushed) {
            self.flushed = to;
        }
        if self.flushed == before {
            return;
        }
        let (log, flushed) = (self.parts.log.clone(), self.flushed);
        if let Err(error) = tokio::task::spawn_blocking(move || log.trim(flushed)).await {
            tracing::error!(%error, "trimming the log failed: after a restart some rows are sent again, which does no harm");
        }
    }

    fn show(&self) {
        self.parts.control.lock().state = if self.retry_at.is_some() {
            State::BackingOff
        } else if self.flushed < self.position {
            State::Flushing
        } else {
            State::Idle
        };
    }
}
