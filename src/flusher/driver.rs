//! The shell around the plan: tells it what happened, and does what it says.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::control::{Control, Requests, State};
use super::plan::{BatchId, Command, Event, Plan, Report};
use super::settings::Settings;
use super::sink::{FlushError, LOOKED_WITHIN, Sink};
use super::work::{self, Done, Rows};
use crate::base::activity::Activity;
use crate::base::metrics::Metrics;
use crate::dead_letters::DeadLetters;
use crate::wal::{Batch, Log};

/// What the flusher works with.
#[derive(Clone)]
pub(crate) struct Parts<S> {
    /// Where records come from.
    pub(crate) log: Log,
    /// Where they go.
    pub(crate) sink: S,
    /// Where rows go that PostgreSQL refuses.
    pub(crate) dead_letters: Arc<DeadLetters>,
    /// Hears whether the database takes rows.
    pub(crate) on_database: Arc<dyn Fn(bool) + Send + Sync>,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Others' handle on this flusher.
    pub(crate) control: Arc<Control>,
}

/// See the module.
pub(crate) struct Flusher<S> {
    parts: Parts<S>,
    plan: Plan,
    activity: Activity,
    /// What the plan's time counts from.
    started: Instant,
    work: JoinSet<Done>,
    /// Rows that were read and may be needed again.
    rows: HashMap<BatchId, Arc<Batch>>,
    requests: Requests,
    outcome: Option<Result<(), FlushError>>,
}

impl<S: Sink + Clone + 'static> Flusher<S> {
    /// A flusher that begins where the log was flushed to.
    #[must_use]
    pub(crate) fn new(parts: Parts<S>, settings: &Settings, activity: Activity) -> Self {
        let plan = Plan::new(settings, parts.log.flushed(), fastrand::Rng::new());
        let plan = plan.with_limit(parts.sink.patience());
        Self {
            parts,
            plan,
            activity,
            started: Instant::now(),
            work: JoinSet::new(),
            rows: HashMap::new(),
            requests: Requests::default(),
            outcome: None,
        }
    }

    /// Works until asked to stop, then waits for what is in flight; the caller bounds that.
    ///
    /// # Errors
    /// If this machine fails: the log cannot be read, or a letter may not be durable.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), FlushError> {
        let mut committed = self.parts.log.committed();
        let mut requests = self.parts.control.requests();
        let mut event = Event::Grown(*committed.borrow_and_update());
        loop {
            self.activity.begin();
            self.handle(event).await;
            let wanted = *requests.borrow_and_update();
            self.hear(wanted).await;
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            self.show();
            let wake = self.started + self.plan.wake_at(self.now());
            self.activity.end();
            event = tokio::select! {
                Some(done) = self.work.join_next() => self.done(done.unwrap_or_else(|e| work::panicked(e))),
                () = tokio::time::sleep_until(wake) => Event::Tick,
                Ok(()) = committed.changed() => Event::Grown(*committed.borrow_and_update()),
                Ok(()) = requests.changed() => Event::Tick,
                () = stop.cancelled(), if !self.plan.is_stopping() => Event::Stop,
            };
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn done(&mut self, done: Done) -> Event {
        if let Some((batch, rows)) = done.read {
            self.rows.insert(batch, rows);
        }
        if matches!(done.event, Event::Inserted { outcome: Ok(_), .. } | Event::Ponged(Ok(()))) {
            self.parts.log.confirm(LOOKED_WITHIN);
        }
        done.event
    }

    async fn hear(&mut self, requests: Requests) {
        let before = std::mem::replace(&mut self.requests, requests);
        if requests.is_paused != before.is_paused {
            self.handle(if requests.is_paused { Event::Pause } else { Event::Resume }).await;
        }
        if requests.rejects != before.rejects {
            self.handle(Event::Reject).await;
        }
    }

    async fn handle(&mut self, event: Event) {
        for command in self.plan.handle(event, self.now()) {
            self.execute(command).await;
        }
    }

    async fn execute(&mut self, command: Command) {
        let Parts { log, sink, dead_letters, metrics, .. } = &self.parts;
        let at_hand = |batch| self.rows.get(&batch).map(Arc::clone);
        match command {
            Command::Insert { batch, all, rows: part, limit } => {
                let parts = (log.clone(), sink.clone(), metrics.clone());
                let rows = Rows { batch, all, at_hand: at_hand(batch) };
                self.work.spawn(work::insert(parts, rows, part, limit));
            }
            Command::Letter { batch, all, rows: refused } => {
                let parts = (log.clone(), Arc::clone(dead_letters), metrics.clone());
                let rows = Rows { batch, all, at_hand: at_hand(batch) };
                self.work.spawn(work::letter(parts, rows, refused));
            }
            Command::Release { batch, is_done } => {
                if let Some(rows) = self.rows.remove(&batch).filter(|_| is_done) {
                    work::observe_latency(log, metrics, &rows);
                }
            }
            Command::Prepare => {
                let sink = sink.clone();
                self.work.spawn(async move { Event::Prepared(sink.prepare().await).into() });
            }
            Command::Ping => {
                let sink = sink.clone();
                self.work.spawn(async move { Event::Ponged(sink.ping().await).into() });
            }
            Command::Flushed(flushed) => {
                let log = log.clone();
                work::blocking(move || log.flush_to(flushed)).await;
            }
            Command::Rewind => {
                let (log, sink) = (log.clone(), sink.clone());
                self.work.spawn(work::rewind(log, sink));
            }
            Command::Remember => {
                let sink = sink.clone();
                work::blocking(move || sink.remember()).await;
            }
            Command::Report(report) => self.report(report),
            Command::Finish(outcome) => self.outcome = Some(outcome),
        }
    }

    fn report(&self, report: Report) {
        let Parts { log, on_database, metrics, .. } = &self.parts;
        let waits = "the database does not take rows";
        match report {
            Report::Up { failures } => {
                on_database(true);
                let pending = log.stats().pending_records;
                tracing::info!(
                    failures,
                    pending,
                    "the database takes rows: flushing what waits in the log"
                );
            }
            Report::Down { error, pause, is_new } => {
                on_database(false);
                metrics.db_failures.inc();
                let (error, retry_in_ms) = (error.to_string(), pause.as_millis());
                if is_new {
                    tracing::warn!(
                        error,
                        retry_in_ms,
                        "{waits}: they stay in the log; trying again, without end"
                    );
                } else {
                    tracing::debug!(error, retry_in_ms, "the database still does not take rows");
                }
            }
            Report::Refusing { refusal, pause, is_new } => {
                on_database(false);
                metrics.db_failures.inc();
                let (error, retry_in_ms) = (refusal.to_string(), pause.as_millis());
                if is_new {
                    tracing::warn!(
                        error,
                        sqlstate = refusal.sqlstate,
                        refused_by = refusal.object,
                        advice = refusal.advice,
                        retry_in_ms,
                        "{waits}: it refuses them because of the table, not because of their values; they stay in the log and are stored once the table is fixed, or become dead letters with POST /admin/flusher/reject"
                    );
                } else {
                    tracing::debug!(error, retry_in_ms, "the database still refuses rows");
                }
            }
            Report::Swallowed { rows } => metrics.swallowed_rows.inc_by(rows),
            Report::WentBack { reason, records } => {
                metrics.resent_records.inc_by(records);
                if records > 0 {
                    tracing::warn!(
                        reason,
                        records,
                        "the database may have lost the rows that it confirmed last: those still in the log are sent again, along with newer readings"
                    );
                } else {
                    tracing::debug!(reason, "nothing that was flushed is left to be sent again");
                }
            }
            Report::NoRoomForLetters { reason, is_new } => {
                if is_new {
                    tracing::warn!(
                        reason,
                        "no room for dead letters of rows that the database refuses: these rows stay in the log until letters are removed"
                    );
                }
            }
        }
    }

    fn show(&self) {
        let now = self.now();
        let retry_at = self.plan.retry_at().filter(|at| *at > now);
        self.parts.control.show(retry_at.map(|at| at.saturating_sub(now)), |shown| {
            shown.state = if retry_at.is_some() {
                State::BackingOff
            } else if self.plan.is_flushing() {
                State::Flushing
            } else {
                State::Idle
            };
            shown.consecutive_failures = self.plan.consecutive_failures();
            shown.is_refused = self.plan.is_turned_away();
            shown.resending = self.plan.resending();
            if shown.last_error.as_deref() != self.plan.last_error() {
                shown.last_error = self.plan.last_error().map(str::to_owned);
            }
        });
    }
}
