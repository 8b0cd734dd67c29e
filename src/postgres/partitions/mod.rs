//! Partitions of a table that is partitioned by `ts`: made ahead, and where a row lacks one.
//!
//! There is none for "everything else" (`default`): PostgreSQL would look through it whenever another is
//! made, and reads it in every scan by time. What is late, or dated 2000, has a range of its own,
//! `telemetry_older`. A new partition is made as a table and then attached, which holds up neither reader
//! nor writer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::database::Database;
use super::failure::{Failure, within};
use super::locks;
use super::session::{Scope, Session};
use super::table::PARTITION_BOUND;
use crate::base::time::{Clock as _, Timestamp};

mod plan;
mod statements;

pub(super) use plan::{DAY, FIRST, Grid, LAST, Range};
pub(super) use statements::{bound, statements};

/// Longest time for what a row lacks.
const PATIENCE: Duration = Duration::from_secs(10);
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for another ingestor, or another batch, that makes some.
const TURN_LIMIT: &str = "4s";
/// In one transaction.
const A_CHUNK: usize = 50;
/// After it could not be done, or does not help.
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
    /// By the clock's monotonic time.
    failed: Option<Duration>,
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

    /// None are made on need for a while.
    pub(super) fn set_aside(&self, now: Duration) {
        self.lock().failed = Some(now);
    }

    /// Some were to be made on need.
    fn note_attempt(&self, is_in_vain: bool, now: Duration) {
        self.lock().failed = is_in_vain.then_some(now);
    }

    /// Whether that is not to be tried.
    fn is_set_aside(&self, now: Duration) -> bool {
        self.lock().failed.is_some_and(|at| now.saturating_sub(at) < RETRY_AFTER)
    }

    /// See [`Database::partitions_ahead_seconds`].
    fn ahead_seconds(&self, now: Timestamp) -> f64 {
        match self.lock().covered_until {
            Some(LAST) => f64::INFINITY,
            #[expect(clippy::cast_precision_loss, reason = "shown in seconds")]
            Some(until) => (until - now.as_micros()) as f64 / 1e6,
            None => f64::NAN,
        }
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

/// What is there for rows that had no partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Help {
    /// Nothing that they could be tried again for.
    None,
    /// All of them have one.
    Made,
    /// The same, and somebody else has made it meanwhile.
    Found,
}

/// What an attempt has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    made: usize,
    /// Whether all that is needed is there.
    is_enough: bool,
}

impl Outcome {
    fn help(self) -> Help {
        match self {
            Self { is_enough: false, .. } => Help::None,
            Self { made: 0, .. } => Help::Found,
            Self { .. } => Help::Made,
        }
    }

    /// Whether the next attempt will come no further.
    fn is_in_vain(self) -> bool {
        self.made == 0 && !self.is_enough
    }
}

impl Database {
    /// Seconds for which there are partitions from now on; not a number if the table has none.
    #[must_use]
    pub(crate) fn partitions_ahead_seconds(&self) -> f64 {
        self.partitions.ahead_seconds(self.clock.wall())
    }

    /// Makes what is missing ahead.
    pub(super) async fn make_partitions_ahead(&self) -> Result<(), Failure> {
        self.make_partitions(Need::Ahead).await.map(drop)
    }

    /// Makes what rows of these times lack, in microseconds since the Unix epoch. Two batches may lack the same.
    pub(super) async fn make_partitions_for(&self, times: &[i64]) -> Help {
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
        let grid = self.partitions.grid;
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

/// A row was refused by the check of [`super::reshape`], which was broken off, or takes longer than it
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
    let sql = format!(
        "{}; alter table telemetry drop constraint if exists {PARTITION_BOUND}",
        locks::exclusive("telemetry")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_tried_again_if_all_have_a_place_whoever_made_it() {
        let outcome = |made, is_enough| Outcome { made, is_enough };
        assert_eq!(outcome(2, true).help(), Help::Made);
        assert_eq!(outcome(0, true).help(), Help::Found);
        assert_eq!(outcome(1_000, false).help(), Help::None);
        // A batch of too many days is halved, and each half gets what it lacks.
        assert!(!outcome(1_000, false).is_in_vain());
        assert!(!outcome(0, true).is_in_vain());
        assert!(outcome(0, false).is_in_vain());
    }

    #[test]
    fn what_was_in_vain_is_not_tried_again_for_ten_seconds_and_what_was_not_is() {
        let partitions = Partitions::new(1, 1);
        let at = Duration::from_millis;
        assert!(!partitions.is_set_aside(at(0)));
        partitions.note_attempt(true, at(5_000));
        assert!(partitions.is_set_aside(at(14_999)));
        assert!(!partitions.is_set_aside(at(15_000)));
        partitions.set_aside(at(15_000));
        assert!(partitions.is_set_aside(at(24_999)));
        partitions.note_attempt(false, at(24_999));
        assert!(!partitions.is_set_aside(at(24_999)));
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "of whole numbers")]
    fn how_far_they_reach_is_counted_from_the_clock() {
        let partitions = Partitions::new(1, 1);
        let now = |seconds: i64| Timestamp::from_millis(seconds * 1_000).unwrap();
        assert!(partitions.ahead_seconds(now(0)).is_nan());
        partitions.lock().covered_until = Some(DAY);
        assert_eq!(partitions.ahead_seconds(now(400)), 86_000.0);
        assert_eq!(partitions.ahead_seconds(now(86_410)), -10.0);
        partitions.lock().covered_until = Some(LAST);
        assert_eq!(partitions.ahead_seconds(now(400)), f64::INFINITY);
    }
}
