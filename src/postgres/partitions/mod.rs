//! Partitions of a table that is partitioned by `ts`: made ahead, and where a row lacks one.
//!
//! There is none for "everything else" (`default`): PostgreSQL would look through it whenever another is
//! made, and reads it in every scan by time. What is late, or dated 2000, has a range of its own,
//! `telemetry_older`. A new partition is made as a table and then attached, which holds up neither reader
//! nor writer.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::AssertSqlSafe;

use super::Database;
use super::failure::{Failure, within};
use super::session::{Scope, Session};
use super::table::PARTITION_BOUND;
use crate::base::time::Timestamp;

mod plan;
mod statements;

pub(super) use plan::{DAY, FIRST, Grid, LAST, Range};
pub(super) use statements::{bound, statements};

/// Longest time for what a row lacks.
const PATIENCE: Duration = Duration::from_secs(10);
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// In one transaction.
const A_CHUNK: usize = 50;
/// After it could not be done, or did not help.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// One for all ingestors of a database: "iot-part" in ASCII.
const LOCK: i64 = 0x696f_742d_7061_7274;

/// Nobody must wait for long behind us. And bounds are read as they are printed: a zone by its abbreviation
/// is ambiguous.
pub(super) const SETTINGS: &str = "select set_config('lock_timeout', '500ms', true), \
    set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true)";

/// Nothing if it is not partitioned by `ts` alone.
const TABLE: &str = "
    select
        relnamespace::regnamespace::text,
        (extract(epoch from clock_timestamp()) * 1000000)::bigint,
        partdefid <> 0
    from pg_partitioned_table
    join pg_class on pg_class.oid = partrelid
    join pg_attribute on attrelid = partrelid and attnum = partattrs[0]
    where partrelid = to_regclass('telemetry') and partstrat = 'r' and partnatts = 1
        and attname = 'ts'";
/// The bounds of `part`, a row of `pg_class`, as [`FROM_MICROS`] and [`TO_MICROS`] take them.
pub(super) const BOUNDS: &str = "regexp_match(pg_get_expr(part.relpartbound, part.oid), 'FROM \\((.*)\\) TO \\((.*)\\)') as bounds";
/// Null where there is no bound.
pub(super) const FROM_MICROS: &str =
    "case when bounds[1] in ('MINVALUE', '''-infinity''') then null
    else (extract(epoch from trim('''' from bounds[1])::timestamptz) * 1000000)::bigint end";
/// The same of the other.
pub(super) const TO_MICROS: &str = "case when bounds[2] in ('MAXVALUE', '''infinity''') then null
    else (extract(epoch from trim('''' from bounds[2])::timestamptz) * 1000000)::bigint end";
const HAS_BOUND: &str = "
    select exists (
        select from pg_constraint where conrelid = to_regclass('telemetry') and conname = $1
    )";
const NAMES: &str = "
    select relname::text from pg_class
    where relnamespace = (select relnamespace from pg_class where oid = to_regclass('telemetry'))
        and relname like 'telemetry%'";

/// What is known of them. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Partitions {
    grid: Grid,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Microseconds since the Unix epoch; `None` if the table is not partitioned by time.
    covered_until: Option<i64>,
    failed: Option<Instant>,
    /// What was said last.
    said: Option<String>,
}

impl Partitions {
    pub(super) fn new(days: u16, days_ahead: u16) -> Self {
        let grid = Grid { width: i64::from(days) * DAY, ahead: i64::from(days_ahead) * DAY };
        Self { grid, state: Arc::default() }
    }

    pub(super) fn grid(&self) -> Grid {
        self.grid
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why none are made, once.
    pub(super) fn complain(&self, reason: &str) {
        let mut state = self.lock();
        if state.said.as_deref() != Some(reason) {
            tracing::warn!(reason, "no partitions are made for the table telemetry");
            state.said = Some(reason.to_owned());
        }
    }
}

/// What partitions are needed for.
#[derive(Clone, Copy)]
enum Need<'t> {
    /// What comes.
    Ahead,
    /// Rows of these times.
    Rows(&'t [i64]),
}

impl Database {
    /// Seconds for which there are partitions from now on; not a number if the table has none.
    #[must_use]
    pub fn partitions_ahead_seconds(&self) -> f64 {
        match self.partitions.lock().covered_until {
            Some(LAST) => f64::INFINITY,
            #[expect(clippy::cast_precision_loss, reason = "shown in seconds")]
            Some(until) => (until - Timestamp::now().as_micros()) as f64 / 1e6,
            None => f64::NAN,
        }
    }

    /// Makes what is missing ahead.
    pub(super) async fn make_partitions_ahead(&self) -> Result<(), Failure> {
        self.make_partitions(Need::Ahead).await.map(drop)
    }

    /// Makes what rows of these times lack, in microseconds since the Unix epoch; whether it is worth
    /// trying them again.
    pub(super) async fn make_partitions_for(&self, times: &[i64]) -> bool {
        if self.partitions.lock().failed.is_some_and(|at| at.elapsed() < RETRY_AFTER) {
            return false;
        }
        let made = within(PATIENCE, self.make_partitions(Need::Rows(times))).await;
        let helps = matches!(made, Ok(1..));
        self.partitions.lock().failed = (!helps).then(Instant::now);
        if let Err(failure) = made {
            self.partitions.complain(&failure.to_string());
        }
        helps
    }

    /// How many were made.
    async fn make_partitions(&self, need: Need<'_>) -> Result<usize, Failure> {
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        let session = &mut session;
        session.set_scope(Scope::Transaction);
        let mut made = 0;
        loop {
            let allowance = session.allowance(STATEMENT_LIMIT * 2);
            let chunk = within(allowance, self.make_chunk(session, need)).await?;
            made += chunk;
            if chunk < A_CHUNK || made >= plan::MOST_AT_ONCE {
                break;
            }
        }
        if made > 0 {
            tracing::info!(partitions = made, "partitions made for the table telemetry");
        }
        Ok(made)
    }

    async fn make_chunk(&self, session: &mut Session, need: Need<'_>) -> Result<usize, Failure> {
        session.begin(STATEMENT_LIMIT).await?;
        session.run(format!("{SETTINGS}; select pg_advisory_xact_lock({LOCK})")).await?;
        let table: Option<(String, i64, bool)> = sqlx::query_as(TABLE)
            .persistent(false)
            .fetch_optional(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        let Some((schema, now, has_default)) = table else {
            self.partitions.lock().covered_until = None;
            if let Need::Rows(_) = need {
                return drop_bound(session).await;
            }
            session.abandon().await?;
            return Ok(0);
        };
        let there = there(session).await?;
        if has_default {
            self.partitions.lock().covered_until = Some(LAST);
            self.partitions.complain(
                "it has a default partition, in which PostgreSQL would have to look for their rows: move its rows elsewhere, and drop it",
            );
            session.abandon().await?;
            return Ok(0);
        }
        let grid = self.partitions.grid;
        let mut missing = match need {
            Need::Rows(times) if !there.is_empty() => grid.missing_for(&there, times),
            Need::Ahead | Need::Rows(_) => grid.missing_ahead(&there, now),
        };
        missing.truncate(A_CHUNK);
        if !missing.is_empty() {
            let taken: Vec<String> = sqlx::query_scalar(NAMES)
                .persistent(false)
                .fetch_all(session.connection())
                .await
                .map_err(Failure::of_statement)?;
            session.run(statements(&schema, &missing, taken)).await?;
        }
        session.end().await?;
        let all = [there, missing.clone()].concat();
        let mut state = self.partitions.lock();
        state.covered_until = Some(plan::covered_until(&all, now));
        state.said = None;
        Ok(missing.len())
    }
}

/// A row was refused by the check of [`super::reshape`], which was broken off, or takes longer than it
/// thought: rows come first. Counts as one that was made.
async fn drop_bound(session: &mut Session) -> Result<usize, Failure> {
    let is_there: bool = sqlx::query_scalar(HAS_BOUND)
        .bind(PARTITION_BOUND)
        .persistent(false)
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    if !is_there {
        session.abandon().await?;
        return Ok(0);
    }
    let sql = format!("alter table telemetry drop constraint if exists {PARTITION_BOUND}");
    session.run(sql).await?;
    session.end().await?;
    tracing::warn!(
        "the table telemetry has a check that `ingestor schema partition` left, and that rows did not pass any more: it is dropped, run that again"
    );
    Ok(1)
}

async fn there(session: &mut Session) -> Result<Vec<Range>, Failure> {
    let sql = format!(
        "select {FROM_MICROS}, {TO_MICROS}
        from pg_inherits join pg_class as part on part.oid = inhrelid cross join {BOUNDS}
        where inhparent = to_regclass('telemetry') and part.relispartition and bounds is not null"
    );
    let rows: Vec<(Option<i64>, Option<i64>)> = sqlx::query_as(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let range = |(from, to): (Option<i64>, Option<i64>)| Range {
        from: from.unwrap_or(FIRST),
        to: to.unwrap_or(LAST),
    };
    Ok(rows.into_iter().map(range).collect())
}
