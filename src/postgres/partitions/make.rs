//! Makes partitions: those ahead, and those that rows lack.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::bounds::{BOUNDS, FROM_MICROS, SETTINGS, TO_MICROS};
use super::outcome::{Help, Outcome};
use super::plan::{self, FIRST, LAST, Range};
use super::statements::statements;
use crate::base::time::Clock as _;
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::locks;
use crate::postgres::session::{Scope, Session};
use crate::postgres::table::PARTITION_BOUND;

/// Longest time for what a row lacks.
const PATIENCE: Duration = Duration::from_secs(10);
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// Where a lock is waited for first.
const LOCKED_LIMIT: &str = "7s";
/// Longest wait for another ingestor, or another batch, that makes some.
const TURN_LIMIT: &str = "4s";
/// In one transaction.
const A_CHUNK: usize = 50;

/// One for all ingestors of a database: "iot-part" in ASCII.
const LOCK: i64 = 0x696f_742d_7061_7274;

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
/// Whether it is a plain table, and has the check.
const HAS_BOUND: &str = "
    select relkind = 'r', exists (
        select from pg_constraint where conrelid = pg_class.oid and conname = $1
    )
    from pg_class where oid = to_regclass('telemetry')";
const NAMES: &str = "
    select relname::text from pg_class
    where relnamespace = (select relnamespace from pg_class where oid = to_regclass('telemetry'))
        and relname like 'telemetry%'";

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
    pub(crate) fn partitions_ahead_seconds(&self) -> f64 {
        self.partitions.ahead_seconds(self.clock.wall())
    }

    /// Makes what is missing ahead.
    pub(in crate::postgres) async fn make_partitions_ahead(&self) -> Result<(), Failure> {
        self.make_partitions(Need::Ahead).await.map(drop)
    }

    /// Makes what rows of these times lack, in microseconds since the Unix epoch. Two batches may lack the same.
    pub(in crate::postgres) async fn make_partitions_for(&self, times: &[i64]) -> Help {
        // Rows of other tables, whose partitions are their maker's, have none of these.
        if times.is_empty() || self.partitions.is_set_aside(self.clock.monotonic()) {
            return Help::None;
        }
        let outcome = within(PATIENCE, self.make_partitions(Need::Rows(times))).await;
        let is_in_vain = match &outcome {
            Ok(outcome) => outcome.is_in_vain(),
            // Somebody holds a lock for the moment.
            Err(failure) => failure.sqlstate() != Some("55P03"),
        };
        self.partitions.note_attempt(is_in_vain, self.clock.monotonic());
        match outcome {
            Ok(outcome) => outcome.help(),
            Err(failure) => {
                self.partitions.complain(&failure.to_string());
                Help::None
            }
        }
    }

    async fn make_partitions(&self, need: Need<'_>) -> Result<Outcome, Failure> {
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        let session = &mut session;
        session.set_scope(Scope::Transaction);
        let mut all = Outcome::default();
        loop {
            let allowance = session.allowance(STATEMENT_LIMIT * 2);
            let chunk = within(allowance, self.make_chunk(session, need)).await?;
            all = Outcome { made: all.made + chunk.made, ..chunk };
            if chunk.is_enough || chunk.made == 0 || all.made >= plan::MOST_AT_ONCE {
                break;
            }
        }
        if all.made > 0 {
            tracing::info!(partitions = all.made, "partitions made for the table telemetry");
        }
        Ok(all)
    }

    async fn make_chunk(&self, session: &mut Session, need: Need<'_>) -> Result<Outcome, Failure> {
        session.begin(STATEMENT_LIMIT).await?;
        // Nobody waits behind whoever waits for their turn.
        let turn = format!(
            "set local lock_timeout = '{TURN_LIMIT}'; select pg_advisory_xact_lock({LOCK})"
        );
        session.run(format!("{turn}; {SETTINGS}")).await?;
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
            return Ok(Outcome { made: 0, is_enough: true });
        };
        let there = there(session).await?;
        if has_default {
            self.partitions.lock().covered_until = Some(LAST);
            self.partitions.complain(
                "it has a default partition, in which PostgreSQL would have to look for their rows: move its rows elsewhere, and drop it",
            );
            session.abandon().await?;
            return Ok(Outcome { made: 0, is_enough: true });
        }
        // Also where none can be made.
        self.partitions.lock().covered_until = Some(plan::covered_until(&there, now));
        let grid = self.partitions.grid();
        let missing_in = |there: &[Range]| match need {
            Need::Rows(times) if !there.is_empty() => grid.missing_for(there, times),
            Need::Ahead | Need::Rows(_) => grid.missing_ahead(there, now),
        };
        let mut missing = missing_in(&there);
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
        Ok(Outcome { made: missing.len(), is_enough: missing_in(&all).is_empty() })
    }
}

/// A row was refused by the check of [`crate::postgres::reshape`], which was broken off, or takes longer than it
/// thought: rows come first. Counts as one that was made. Without it there is a place for every row of a plain
/// table, and a table that is partitioned otherwise is its maker's.
async fn drop_bound(session: &mut Session) -> Result<Outcome, Failure> {
    let found: Option<(bool, bool)> = sqlx::query_as(HAS_BOUND)
        .bind(PARTITION_BOUND)
        .persistent(false)
        .fetch_optional(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let (is_plain, is_there) = found.unwrap_or_default();
    if !is_there {
        session.abandon().await?;
        return Ok(Outcome { made: 0, is_enough: is_plain });
    }
    // Or what waits for the lock is ended before it has waited for as long as that tells what is wrong.
    let sql = format!(
        "set local statement_timeout = '{LOCKED_LIMIT}'; {}; alter table telemetry drop constraint if exists {PARTITION_BOUND}",
        locks::exclusive(&["telemetry"])
    );
    session.run(sql).await?;
    session.end().await?;
    tracing::warn!(
        "a check constraint that `ingestor schema partition` left on the table telemetry refused rows: it has been dropped; run the command again"
    );
    Ok(Outcome { made: 1, is_enough: true })
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
