//! `RETENTION_DAYS`: readings whose time is older are removed, from `telemetry` and from the tables that the
//! mappings of the configuration fill. Unset, nothing ever is.
//!
//! By kind of table: TimescaleDB's own `drop_chunks`, whole partitions of ours, else small deletes with
//! pauses between them. "Older" is by the database's clock, so that several ingestors mean the same. What
//! looks like a mistake holds it up (`plan`). What came in within the last hour stays until the next time,
//! however old it says it is, unless TimescaleDB drops it, or the table has no `created_at`. It goes on
//! where it was broken off.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::database::Database;
use super::failure::{Failure, within};
use super::limits::{QUERY_LIMIT, QUERY_TIMEOUT};
use super::session::Scope;
use crate::base::time::{Clock as _, Timestamp};
use crate::telemetry::mapping::BUILT_IN_TABLE;
use look::{Counting, Look, look};
use plan::{Clocks, HeldUp};
use remove::{Removed, remove};

mod look;
mod plan;
mod remove;
mod report;

pub(crate) use report::{Due, RetentionReport, TableKind};

const EVERY: Duration = Duration::from_secs(60 * 60);
/// After it failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Until the table is prepared.
const PAUSE: Duration = Duration::from_secs(1);
/// Counting rows of a large table.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Retention {
    days: Option<u32>,
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
    held_up: Option<TableHeldUp>,
    failure: Option<String>,
    last_run: Option<Timestamp>,
    last_success: Option<Timestamp>,
    now: Removed,
    before: Removed,
}

/// What the clocks of this machine show.
#[derive(Clone, Copy)]
struct Now {
    wall: Timestamp,
    monotonic: Duration,
}

/// That it is held up, and with which table.
#[derive(Clone, Debug)]
struct TableHeldUp {
    table: String,
    why: HeldUp,
}

impl Retention {
    pub(super) fn new(days: Option<u32>, now: Timestamp) -> Self {
        let since = days.map(|_| now);
        Self { days, since, state: Arc::default(), asked: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database {
    /// Removes what is old, without end.
    pub(crate) async fn retain(self) {
        let Some(days) = self.retention.days else { return std::future::pending().await };
        let mut next = self.clock.monotonic();
        loop {
            let wait = next.saturating_sub(self.clock.monotonic());
            tokio::select! {
                () = self.retention.asked.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if !self.tasks.is_prepared() {
                // Nobody has seen what that would be.
                self.retention.lock().is_meant = false;
                next = self.clock.monotonic() + PAUSE;
                continue;
            }
            self.retention.lock().is_running = true;
            let outcome = self.remove_old(days).await;
            self.retention.end(&outcome, self.clock.wall());
            let pause = if outcome.is_ok() { EVERY } else { AGAIN };
            next = self.clock.monotonic() + pause;
        }
    }

    /// What there is to remove, and what was. Looks, and removes nothing.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn retention(&self) -> Result<RetentionReport, Failure> {
        // Before the look, so that what is due is never older than the run that is shown.
        let mut report = self.retention.report();
        let Some(days) = self.retention.days else { return Ok(report) };
        for table in self.tables_of_readings() {
            let look = self.look_at_old(&table, days, QUERY_LIMIT, Counting::ToJudge);
            if let Some(look) = within(QUERY_TIMEOUT, look).await? {
                let now = self.now();
                let held_up = Retention::doubt(&mut self.retention.lock(), &look, now);
                report.due.push(look.due(&table, held_up.as_ref()));
            }
        }
        Ok(report)
    }

    /// An operator says that what is due is meant: it is removed now. Whether there is anything that would.
    #[must_use]
    pub(crate) fn remove_old_now(&self) -> bool {
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
    pub(crate) fn retention_counts(&self) -> (u64, u64, bool, Option<Timestamp>) {
        let state = self.retention.lock();
        let all = state.before.with(state.now);
        (
            all.partitions,
            all.rows,
            state.held_up.is_some(),
            state.last_success.or(self.retention.since),
        )
    }

    /// Those that are filled with readings by what is configured.
    fn tables_of_readings(&self) -> BTreeSet<String> {
        let mapped = self.mapped.names().cloned();
        mapped.chain([BUILT_IN_TABLE.to_owned()]).collect()
    }

    async fn look_at_old(
        &self,
        table: &str,
        days: u32,
        limit: Duration,
        counting: Counting,
    ) -> Result<Option<Look>, Failure> {
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        session.set_scope(Scope::Transaction);
        session.begin(limit).await?;
        let found = look(&mut session, table, days, counting).await?;
        session.end().await?;
        Ok(found)
    }

    /// What holds one table up, or fails with it, keeps nothing from another.
    async fn remove_old(&self, days: u32) -> Result<Option<TableHeldUp>, Failure> {
        // For this run alone, also if it fails: by the next, something else may be due.
        let mut is_meant = std::mem::take(&mut self.retention.lock().is_meant);
        let mut outcome = Ok(None);
        for table in self.tables_of_readings() {
            let one = self.remove_old_of(&table, days, &mut is_meant).await;
            match one {
                // The database does not answer.
                Err(failure) if failure.sqlstate().is_none() => return Err(failure),
                Err(failure) if outcome.is_ok() => outcome = Err(failure),
                Ok(Some(why)) if matches!(outcome, Ok(None)) => {
                    outcome = Ok(Some(TableHeldUp { table, why }));
                }
                Ok(_) | Err(_) => {}
            }
        }
        outcome
    }

    async fn remove_old_of(
        &self,
        table: &str,
        days: u32,
        is_meant: &mut bool,
    ) -> Result<Option<HeldUp>, Failure> {
        let look = loop {
            // What is meant need not be counted, which may take too long.
            let was_meant = *is_meant;
            let counting = if was_meant { Counting::IfAny } else { Counting::ToJudge };
            let look = self.look_at_old(table, days, LOOK_LIMIT, counting);
            let Some(look) = within(LOOK_LIMIT * 2, look).await? else { return Ok(None) };
            match self.retention.may_remove(&look, is_meant, self.now()) {
                // It was the clock that was meant.
                _ if was_meant && !*is_meant => {}
                Some(doubt) => return Ok(Some(doubt)),
                None => break look,
            }
        };
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        let before = self.retention.lock().now;
        let mut progress = |removed| self.retention.lock().now = before.with(removed);
        let started = self.clock.monotonic();
        let removed = remove(&mut session, &look, &mut progress).await?;
        if removed.partitions + removed.rows > 0 {
            tracing::info!(
                table,
                partitions = removed.partitions,
                rows = removed.rows,
                seconds = self.clock.monotonic().saturating_sub(started).as_secs(),
                "readings older than RETENTION_DAYS are removed"
            );
        }
        Ok(None)
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.wall(), monotonic: self.clock.monotonic() }
    }
}

impl Retention {
    /// Without what only a look can tell.
    fn report(&self) -> RetentionReport {
        let state = self.lock();
        let all = state.before.with(state.now);
        RetentionReport {
            days: self.days,
            due: Vec::new(),
            is_running: state.is_running,
            last_error: state.failure.clone(),
            last_run: state.last_run,
            last_success: state.last_success,
            removed_partitions: all.partitions,
            removed_rows: all.rows,
        }
    }

    /// Why what `look` found should not be removed.
    fn doubt(state: &mut State, look: &Look, now: Now) -> Option<HeldUp> {
        let doubt = state.clocks.look(look.now, now.wall.as_micros(), now.monotonic);
        doubt.or_else(|| look.is_too_much())
    }

    /// Why what `look` found is not removed, though an operator may have said that it `is_meant`: that
    /// the clock is right, and then no more than that, or else that it is much.
    fn may_remove(&self, look: &Look, is_meant: &mut bool, now: Now) -> Option<HeldUp> {
        let mut state = self.lock();
        match Self::doubt(&mut state, look, now)? {
            HeldUp::ClockJumped if *is_meant => {
                state.clocks.settle();
                *is_meant = false;
                look.is_too_much()
            }
            doubt => (!(*is_meant && doubt.can_be_meant())).then_some(doubt),
        }
    }

    fn end(&self, outcome: &Result<Option<TableHeldUp>, Failure>, now: Timestamp) {
        let mut state = self.lock();
        state.is_running = false;
        state.last_run = Some(now);
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
        let kind = |held_up: &Option<TableHeldUp>| {
            held_up.as_ref().map(|held| (held.table.clone(), std::mem::discriminant(&held.why)))
        };
        if kind(&state.held_up) != kind(held_up) {
            if let Some(TableHeldUp { table, why }) = held_up {
                tracing::warn!(
                    table,
                    reason = %why,
                    "readings older than RETENTION_DAYS are not removed: it is looked at again every hour"
                );
            } else {
                tracing::info!("readings older than RETENTION_DAYS are removed again");
            }
        }
        if held_up.is_none() {
            state.last_success = Some(now);
        }
        state.held_up.clone_from(held_up);
    }
}

impl Removed {
    fn with(self, other: Self) -> Self {
        Self { partitions: self.partitions + other.partitions, rows: self.rows + other.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::look::{Kind, OldRows};
    use super::plan::Rows;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const NOON: Timestamp = Timestamp::UNIX_EPOCH;

    /// So long after noon.
    fn now(after: Duration) -> Now {
        let wall = Timestamp::from_micros(i64::try_from(after.as_micros()).unwrap()).unwrap();
        Now { wall, monotonic: after }
    }

    /// Of 900 rows so many are old, and the database's clock shows what ours does.
    fn look(old: i64, now: Now) -> Look {
        let rows = Rows { old, is_exact: true, guess: 0, all: 900 };
        let source = OldRows { table: "telemetry".to_owned(), which: "true".to_owned() };
        Look {
            name: "telemetry".to_owned(),
            now: now.wall.as_micros(),
            cutoff: 0,
            has_arrival: true,
            kind: Kind::Plain { rows, source },
        }
    }

    #[test]
    fn whoever_means_a_clock_that_jumped_has_not_meant_that_much_goes_at_once() {
        let retention = Retention::new(Some(30), NOON);
        let removes =
            |look: &Look, is_meant: &mut bool, now| retention.may_remove(look, is_meant, now);
        let before = now(Duration::from_secs(60));
        assert_eq!(removes(&look(1, before), &mut false, before), None);
        // Both clocks are set, and no time has passed.
        let jumped = Now { wall: now(DAY * 400).wall, ..before };
        let held = removes(&look(1, jumped), &mut false, jumped);
        assert_eq!(held, Some(HeldUp::ClockJumped));
        let mut is_meant = true;
        let held = removes(&look(400, jumped), &mut is_meant, jumped);
        assert_eq!((held, is_meant), (Some(HeldUp::TooManyRows { all: 900 }), false));
        assert_eq!(removes(&look(400, jumped), &mut true, jumped), None);
    }

    #[test]
    fn a_run_that_is_held_up_is_the_last_run_and_not_the_last_success() {
        let retention = Retention::new(Some(30), NOON);
        let times = || {
            let report = retention.report();
            (report.last_run, report.last_success)
        };
        assert_eq!(times(), (None, None));
        let [first, second, third] = [1, 2, 3].map(|days| now(DAY * days).wall);
        retention.end(&Ok(None), first);
        assert_eq!(times(), (Some(first), Some(first)));
        let held_up = TableHeldUp { table: "telemetry".to_owned(), why: HeldUp::ClockJumped };
        retention.end(&Ok(Some(held_up)), second);
        assert_eq!(times(), (Some(second), Some(first)));
        retention.end(&Err(Failure::unavailable("no answer")), third);
        assert_eq!(times(), (Some(third), Some(first)));
    }
}
