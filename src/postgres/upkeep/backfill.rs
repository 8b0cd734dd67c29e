//! Names of devices whose rows were there before the list of names was.
//!
//! In steps of some index entries each, in the order of names: a device with many rows is one step, and
//! the next begins behind it, so the whole costs no more than the index is long. How far it has come is in
//! the database; going over the same names again does no harm, so that several ingestors may do it at once.

use std::time::Duration;

use sqlx::Row as _;

use crate::base::time::Clock as _;
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::registry;
use crate::postgres::session::{QUERY_SETTINGS, Scope, Session};

const STEP_LIMIT: Duration = Duration::from_secs(30);
/// After something failed.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Without an index that begins with the device, each step would sort the whole table.
const STATE: &str = "
    select position, is_done, exists (
        select from pg_index
        join pg_attribute on attrelid = indrelid and attnum = indkey[0]
        where indrelid = to_regclass('telemetry') and indisvalid and attname = 'device_id'
    )
    from _iot_ingestor_progress
    where task = 'devices'";
const FIRST: &str = "
    select device_id::text from telemetry where $1::text is null order by telemetry.device_id limit 2000";
const NEXT: &str = "
    select device_id::text from telemetry where telemetry.device_id > $1
    order by telemetry.device_id limit 2000";
const NOTE: &str =
    "update _iot_ingestor_progress set position = $1, is_done = $2 where task = 'devices'";

/// What is known of it here.
#[derive(Debug, Default)]
pub(super) struct Backfill {
    is_done: bool,
    /// From the first name on again: some could not be put into the list when their rows came.
    is_anew: bool,
    /// By the clock's monotonic time.
    failed: Option<Duration>,
}

impl Backfill {
    /// Does what is left of it.
    pub(super) async fn run(&mut self, database: &Database) {
        if database.tasks.take_lacks_names() {
            (self.is_done, self.is_anew) = (false, true);
        }
        let now = database.clock.monotonic();
        if !self.is_due(now) || database.registry.is_set_aside(now) {
            return;
        }
        let outcome = self.fill(database).await;
        self.failed = outcome.is_err().then(|| database.clock.monotonic());
        if let Err(failure) = outcome {
            tracing::debug!(%failure, "gathering the names of devices was broken off");
        }
    }

    fn is_due(&self, now: Duration) -> bool {
        let is_waiting = self.failed.is_some_and(|at| now.saturating_sub(at) < RETRY_AFTER);
        !self.is_done && !is_waiting
    }

    async fn fill(&mut self, database: &Database) -> Result<(), Failure> {
        let (mut session, _) = database.writes.server().connect(QUERY_SETTINGS).await?;
        let session = &mut session;
        if std::mem::take(&mut self.is_anew)
            && let Err(failure) = note(session, None, false).await
        {
            self.is_anew = true;
            return Err(failure);
        }
        let Some(mut position) = start(session).await? else {
            self.is_done = true;
            return Ok(());
        };
        tracing::info!(
            "gathering the names of devices from rows that were there before: until that is done, /api/v1/devices lacks some"
        );
        let now = || database.clock.monotonic();
        let started = now();
        let (mut noted, mut found) = (started, 0);
        loop {
            let step = now();
            let mut names = step_from(session, position.as_deref()).await?;
            names.dedup();
            let Some(last) = names.last() else { break };
            found += names.len();
            insert(session, &names).await?;
            if now().saturating_sub(noted) >= NOTE_EVERY {
                note(session, Some(last), false).await?;
                noted = now();
            }
            position = Some(last.clone());
            // Half of one connection's time is for it.
            tokio::time::sleep(now().saturating_sub(step)).await;
        }
        note(session, position.as_deref(), true).await?;
        self.is_done = true;
        tracing::info!(
            devices = found,
            seconds = now().saturating_sub(started).as_secs(),
            "the names of all devices are gathered"
        );
        Ok(())
    }
}

/// Where to go on, if there is something left.
async fn start(session: &mut Session) -> Result<Option<Option<String>>, Failure> {
    let allowance = session.allowance(STEP_LIMIT);
    within(allowance, async {
        session.begin(STEP_LIMIT).await?;
        let row = sqlx::query(STATE)
            .persistent(false)
            .fetch_one(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        session.end().await?;
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let (position, is_done, has_index): (Option<String>, bool, bool) =
            read().map_err(Failure::of_statement)?;
        if !is_done && !has_index {
            return Err(Failure::unavailable("no index of telemetry begins with device_id"));
        }
        Ok((!is_done).then_some(position))
    })
    .await
}

/// Names of the next entries, in order, as often as there are rows.
async fn step_from(session: &mut Session, position: Option<&str>) -> Result<Vec<String>, Failure> {
    let allowance = session.allowance(STEP_LIMIT);
    within(allowance, async {
        session.begin(STEP_LIMIT).await?;
        let names = sqlx::query_scalar(if position.is_some() { NEXT } else { FIRST })
            .bind(position)
            .persistent(session.keeps_statements())
            .fetch_all(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        session.end().await?;
        Ok(names)
    })
    .await
}

async fn insert(session: &mut Session, names: &[String]) -> Result<(), Failure> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let allowance = session.allowance(STEP_LIMIT);
    session.set_scope(Scope::Transaction);
    within(allowance, async {
        session.begin(STEP_LIMIT).await?;
        registry::insert_and_commit(session, &names).await
    })
    .await?;
    session.set_scope(Scope::Statement);
    Ok(())
}

async fn note(session: &mut Session, position: Option<&str>, is_done: bool) -> Result<(), Failure> {
    let allowance = session.allowance(STEP_LIMIT);
    within(allowance, async {
        session.begin(STEP_LIMIT).await?;
        sqlx::query(NOTE)
            .bind(position)
            .bind(is_done)
            .persistent(false)
            .execute(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        session.end().await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_after_a_minute_and_what_is_done_is_not() {
        let at = Duration::from_secs;
        let mut backfill = Backfill::default();
        assert!(backfill.is_due(at(0)));
        backfill.failed = Some(at(10));
        assert!(!backfill.is_due(at(69)));
        assert!(backfill.is_due(at(70)));
        backfill.is_done = true;
        assert!(!backfill.is_due(at(70)));
    }
}
