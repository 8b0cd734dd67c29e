//! Removes what is old, every hour and when an operator says so, and tells what there is to remove.

use std::collections::BTreeSet;
use std::time::Duration;

use super::look::{Counting, Look, look};
use super::plan::HeldUp;
use super::remove::remove;
use super::report::RetentionReport;
use super::state::{Now, Retention, TableHeldUp};
use crate::base::time::{Clock as _, Timestamp};
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::limits::{QUERY_LIMIT, QUERY_TIMEOUT};
use crate::postgres::session::Scope;
use crate::telemetry::mapping::BUILT_IN_TABLE;

const EVERY: Duration = Duration::from_secs(60 * 60);
/// After it failed.
const AGAIN: Duration = Duration::from_secs(60);
/// Until the table is prepared.
const PAUSE: Duration = Duration::from_secs(1);
/// Counting rows of a large table.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

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
