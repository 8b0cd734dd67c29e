//! `RETENTION_DAYS`: readings whose time is older are removed. Unset, nothing ever is.
//!
//! By kind of table: TimescaleDB's own `drop_chunks`, whole partitions of ours, else small deletes with
//! pauses between them. "Older" is by the database's clock, so that several ingestors mean the same. What
//! looks like a mistake holds it up (`plan`). What came in within the last hour stays until the next time,
//! however old it says it is, unless TimescaleDB drops it, or the table has no `created_at`. It goes on
//! where it was broken off.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::failure::{Failure, within};
use super::session::Scope;
use super::{Database, QUERY_LIMIT, QUERY_TIMEOUT};
use crate::base::time::Timestamp;
use look::{Kind, Look, look};
use plan::{Clocks, HeldUp};
use remove::{Removed, remove};

mod look;
mod plan;
mod remove;

const EVERY: Duration = Duration::from_secs(60 * 60);
/// After it failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Until the table is prepared.
const PAUSE: Duration = Duration::from_secs(1);
/// Counting up to a third of a large table.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Retention {
    days: Option<u32>,
    started: Instant,
    /// With a number of days, since when it is tried.
    since: Option<Timestamp>,
    state: Arc<Mutex<State>>,
    asked: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    clocks: Clocks,
    /// An operator says that what will be found is meant.
    is_meant: bool,
    is_running: bool,
    held_up: Option<HeldUp>,
    failure: Option<String>,
    last_run: Option<Timestamp>,
    last_success: Option<Timestamp>,
    now: Removed,
    before: Removed,
}

/// What is to be removed, and what was.
#[derive(Clone, Debug)]
pub struct RetentionReport {
    /// As configured; nothing is ever removed without.
    pub days: Option<u32>,
    /// What a run would do now; nothing without a number of days, or without a table.
    pub due: Option<Due>,
    /// Why it is not done, a sentence.
    pub held_up: Option<String>,
    /// Whether it is being done.
    pub is_running: bool,
    /// Why it failed the last time.
    pub last_error: Option<String>,
    /// When the last run ended, whatever it came to.
    pub last_run: Option<Timestamp>,
    /// When all that was due was last removed, or left to another ingestor that was at it.
    pub last_success: Option<Timestamp>,
    /// Since the start.
    pub removed_partitions: u64,
    /// Since the start.
    pub removed_rows: u64,
}

/// What a run would do.
#[derive(Clone, Debug)]
pub struct Due {
    /// What is older goes, by the database's clock.
    pub cutoff: Timestamp,
    /// How the table is divided.
    pub kind: TableKind,
    /// Partitions or chunks that would go as a whole, by name, with their bytes where these are known.
    pub partitions: Vec<(String, Option<u64>)>,
    /// Of so many.
    pub partitions_total: u64,
    /// Rows that would be deleted one by one, counted up to a third of all.
    pub rows: u64,
    /// Whether there are more.
    pub rows_exact: bool,
}

/// How a table is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Into TimescaleDB's chunks.
    Hypertable,
    /// By `ts`.
    Partitioned,
    /// Not by time.
    Plain,
}

impl Retention {
    pub(super) fn new(days: Option<u32>) -> Self {
        Self {
            days,
            started: Instant::now(),
            since: days.map(|_| Timestamp::now()),
            state: Arc::default(),
            asked: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database {
    /// Removes what is old, without end.
    pub async fn retain(self) {
        let Some(days) = self.retention.days else { return std::future::pending().await };
        let mut next = Instant::now();
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            tokio::select! {
                () = self.retention.asked.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if !self.tasks.is_prepared() {
                // Nobody has seen what that would be.
                self.retention.lock().is_meant = false;
                next = Instant::now() + PAUSE;
                continue;
            }
            self.retention.lock().is_running = true;
            let outcome = self.remove_old(days).await;
            self.retention.end(&outcome);
            next = Instant::now() + if outcome.is_ok() { EVERY } else { AGAIN };
        }
    }

    /// What there is to remove, and what was. Looks, and removes nothing.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub async fn retention(&self) -> Result<RetentionReport, Failure> {
        // Before the look, so that what is due is never older than the run that is shown.
        let mut report = self.retention.report();
        let Some(days) = self.retention.days else { return Ok(report) };
        let look = within(QUERY_TIMEOUT, self.look_at_old(days, QUERY_LIMIT)).await?;
        if let Some(look) = look {
            let held_up = self.retention.doubt(&mut self.retention.lock(), &look);
            report.held_up = held_up.map(|why| why.to_string());
            report.due = Some(look.due());
        }
        Ok(report)
    }

    /// An operator says that what is due is meant: it is removed now. Whether there is anything that would.
    #[must_use]
    pub fn remove_old_now(&self) -> bool {
        if self.retention.days.is_none() {
            return false;
        }
        self.retention.lock().is_meant = true;
        self.retention.asked.notify_one();
        true
    }

    /// For the metrics: partitions and rows removed since the start, whether it is held up, and when all
    /// that was due was last removed, or since when it is tried in vain; none if nothing ever is removed.
    #[must_use]
    pub fn retention_counts(&self) -> (u64, u64, bool, Option<Timestamp>) {
        let state = self.retention.lock();
        let all = state.before.with(state.now);
        (
            all.partitions,
            all.rows,
            state.held_up.is_some(),
            state.last_success.or(self.retention.since),
        )
    }

    async fn look_at_old(&self, days: u32, limit: Duration) -> Result<Option<Look>, Failure> {
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        session.set_scope(Scope::Transaction);
        session.begin(limit).await?;
        let found = look(&mut session, days).await?;
        session.end().await?;
        Ok(found)
    }

    async fn remove_old(&self, days: u32) -> Result<Option<HeldUp>, Failure> {
        // For this run alone, also if it fails: by the next, something else may be due.
        let is_meant = std::mem::take(&mut self.retention.lock().is_meant);
        let Some(look) = within(LOOK_LIMIT * 2, self.look_at_old(days, LOOK_LIMIT)).await? else {
            return Ok(None);
        };
        if let Some(doubt) = self.retention.may_remove(&look, is_meant) {
            return Ok(Some(doubt));
        }
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        let mut progress = |removed| self.retention.lock().now = removed;
        let started = Instant::now();
        let removed = remove(&mut session, &look, &mut progress).await?;
        if removed.partitions + removed.rows > 0 {
            tracing::info!(
                partitions = removed.partitions,
                rows = removed.rows,
                seconds = started.elapsed().as_secs(),
                "readings older than RETENTION_DAYS are removed"
            );
        }
        Ok(None)
    }
}

impl Retention {
    /// Without what only a look can tell.
    fn report(&self) -> RetentionReport {
        let state = self.lock();
        let all = state.before.with(state.now);
        RetentionReport {
            days: self.days,
            due: None,
            held_up: None,
            is_running: state.is_running,
            last_error: state.failure.clone(),
            last_run: state.last_run,
            last_success: state.last_success,
            removed_partitions: all.partitions,
            removed_rows: all.rows,
        }
    }

    /// Why what `look` found should not be removed.
    fn doubt(&self, state: &mut State, look: &Look) -> Option<HeldUp> {
        let here = Timestamp::now().as_micros();
        let doubt = state.clocks.look(look.now, here, self.started.elapsed());
        doubt.or_else(|| look.is_too_much())
    }

    /// Why what `look` found is not removed, though an operator may have said that it `is_meant`: that
    /// the clock is right, or else that it is much.
    fn may_remove(&self, look: &Look, is_meant: bool) -> Option<HeldUp> {
        let mut state = self.lock();
        match self.doubt(&mut state, look)? {
            HeldUp::ClockJumped if is_meant => {
                state.clocks.settle();
                look.is_too_much()
            }
            doubt => (!(is_meant && doubt.can_be_meant())).then_some(doubt),
        }
    }

    fn end(&self, outcome: &Result<Option<HeldUp>, Failure>) {
        let mut state = self.lock();
        state.is_running = false;
        state.last_run = Some(Timestamp::now());
        state.before = state.before.with(std::mem::take(&mut state.now));
        let failure = outcome.as_ref().err().map(ToString::to_string);
        if let Some(reason) =
            failure.as_ref().filter(|reason| state.failure.as_ref() != Some(reason))
        {
            tracing::warn!(
                reason,
                "readings older than RETENTION_DAYS could not be removed: it is tried again every minute"
            );
        }
        state.failure = failure;
        let Ok(held_up) = outcome else { return };
        let kind = |held_up: &Option<HeldUp>| held_up.as_ref().map(std::mem::discriminant);
        if kind(&state.held_up) != kind(held_up) {
            if let Some(reason) = held_up {
                tracing::warn!(
                    %reason,
                    "readings older than RETENTION_DAYS are not removed: it is looked at again every hour"
                );
            } else {
                tracing::info!("readings older than RETENTION_DAYS are removed again");
            }
        }
        if held_up.is_none() {
            state.last_success = Some(Timestamp::now());
        }
        state.held_up.clone_from(held_up);
    }
}

impl Look {
    fn due(self) -> Due {
        let unsigned = |of: i64| u64::try_from(of).unwrap_or_default();
        let (kind, partitions, all, rows) = match self.kind {
            Kind::Hypertable { old, all } => (
                TableKind::Hypertable,
                old.into_iter().map(|name| (name, None)).collect(),
                all,
                None,
            ),
            Kind::Partitioned { old, all, rows } => {
                let whole = old.whole.into_iter();
                let whole = whole.map(|part| (part.name, Some(unsigned(part.bytes)))).collect();
                (TableKind::Partitioned, whole, all, Some(rows))
            }
            Kind::Plain { rows } => (TableKind::Plain, Vec::new(), 0, Some(rows)),
        };
        let rows_exact = rows.is_none_or(|rows| rows.old < plan::more_than_a_third(rows.all));
        Due {
            cutoff: Timestamp::from_micros(self.cutoff).unwrap_or(Timestamp::UNIX_EPOCH),
            kind,
            partitions,
            partitions_total: all as u64,
            rows: rows.map_or(0, |rows| unsigned(rows.old)),
            rows_exact,
        }
    }
}

impl Removed {
    fn with(self, other: Self) -> Self {
        Self { partitions: self.partitions + other.partitions, rows: self.rows + other.rows }
    }
}
