//! Removing what is old: partitions as a whole, rows a few at a time.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::look::{Kind, Look, OldRows, literal, time};
use super::plan::Part;
use crate::postgres::failure::{Failure, within};
use crate::postgres::locks;
use crate::postgres::session::{Scope, Session};

const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
/// TimescaleDB drops all chunks in one statement.
const CHUNKS_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Rows of one delete.
const A_STEP: i64 = 2_000;
/// Of the time that deleting takes, so many times as much is left to others.
const REST: u32 = 4;
const LEAST_REST: Duration = Duration::from_millis(20);
/// What came in later than this ago stays until the next time: it may be looked for (`lineage`), and
/// whoever sends old readings may still be at it. Microseconds.
const JUST_ARRIVED: i64 = 60 * 60 * 1_000_000;

/// At an exclusive lock.
const ATTEMPTS: u32 = 120;
const PAUSE: Duration = Duration::from_millis(500);

/// False where another ingestor has dropped it, or somebody keeps it as a table of its own.
const IS_PART: &str = "
    select exists (
        select from pg_inherits where inhrelid = to_regclass($1) and inhparent = to_regclass($2)
    )";

/// One for all ingestors of a database: "iot-retn" in ASCII.
const LOCK: i64 = 0x696f_742d_7265_746e;

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) partitions: u64,
    pub(super) rows: u64,
}

/// Removes what `look` found, and tells `progress` as it goes.
pub(super) async fn remove(
    session: &mut Session,
    look: &Look,
    progress: &mut (dyn FnMut(Removed) + Send),
) -> Result<Removed, Failure> {
    session.set_scope(Scope::Transaction);
    let mut work = Work {
        session,
        table: &look.name,
        cutoff: look.cutoff,
        arrived_before: look.has_arrival.then_some(look.now - JUST_ARRIVED),
        removed: Removed::default(),
        is_left_to_other: false,
        progress,
    };
    match &look.kind {
        Kind::Hypertable { old, .. } if old.is_empty() => {}
        Kind::Hypertable { old, .. } => {
            work.drop_whole(Whole::Chunks(old)).await?;
        }
        Kind::Partitioned { old, .. } => {
            for part in &old.whole {
                if let Dropped::NotYet = work.drop_whole(Whole::Partition(part)).await? {
                    work.sweep(&look.rows_of(part)).await?;
                }
            }
            for part in &old.swept {
                work.sweep(&look.rows_of(part)).await?;
            }
        }
        Kind::Plain { rows, .. } if rows.old == 0 => {}
        Kind::Plain { source, .. } => work.sweep(source).await?,
    }
    Ok(work.removed)
}

/// What goes as a whole.
#[derive(Clone, Copy)]
enum Whole<'l> {
    Partition(&'l Part),
    /// All in one statement of TimescaleDB.
    Chunks(&'l [String]),
}

/// What became of it.
enum Dropped {
    /// So many are gone.
    Now(u64),
    /// It was gone, or it is another ingestor's to drop.
    ByOther,
    /// Something came into it just now.
    NotYet,
}

struct Work<'w> {
    session: &'w mut Session,
    table: &'w str,
    cutoff: i64,
    arrived_before: Option<i64>,
    removed: Removed,
    /// Another ingestor is at it.
    is_left_to_other: bool,
    progress: &'w mut (dyn FnMut(Removed) + Send),
}

impl Work<'_> {
    fn went_on(&mut self, partitions: u64, rows: u64) {
        self.removed.partitions += partitions;
        self.removed.rows += rows;
        (self.progress)(self.removed);
    }

    /// Begins a transaction; whether it is this ingestor's to go on. If not, it is over.
    async fn begin(&mut self, limit: Duration) -> Result<bool, Failure> {
        if self.is_left_to_other {
            return Ok(false);
        }
        self.session.begin(limit).await?;
        let is_ours: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
            .bind(LOCK)
            .persistent(false)
            .fetch_one(self.session.connection())
            .await
            .map_err(Failure::of_statement)?;
        if !is_ours {
            self.session.abandon().await?;
            self.is_left_to_other = true;
        }
        Ok(is_ours)
    }

    async fn drop_whole(&mut self, whole: Whole<'_>) -> Result<Dropped, Failure> {
        let limit = match whole {
            Whole::Partition(_) => STATEMENT_LIMIT,
            Whole::Chunks(_) => CHUNKS_LIMIT,
        };
        let mut attempt = 1;
        loop {
            let allowance = self.session.allowance(limit * 2);
            match within(allowance, self.try_drop(whole, limit)).await {
                Ok(dropped) => {
                    if let Dropped::Now(count) = dropped {
                        self.went_on(count, 0);
                    }
                    return Ok(dropped);
                }
                Err(failure)
                    if failure.sqlstate().is_some_and(locks::passes) && attempt < ATTEMPTS =>
                {
                    self.session.abandon().await?;
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn try_drop(&mut self, whole: Whole<'_>, limit: Duration) -> Result<Dropped, Failure> {
        if !self.begin(limit).await? {
            return Ok(Dropped::ByOther);
        }
        let dropped = match whole {
            Whole::Partition(part) => self.detach_and_drop(part).await?,
            Whole::Chunks(names) => self.drop_chunks(names).await?,
        };
        match dropped {
            Dropped::Now(_) => self.session.end().await?,
            Dropped::ByOther | Dropped::NotYet => self.session.abandon().await?,
        }
        Ok(dropped)
    }

    async fn detach_and_drop(&mut self, part: &Part) -> Result<Dropped, Failure> {
        let is_part: bool = sqlx::query_scalar(IS_PART)
            .bind(&part.name)
            .bind(self.table)
            .persistent(false)
            .fetch_one(self.session.connection())
            .await
            .map_err(Failure::of_statement)?;
        if !is_part {
            return Ok(Dropped::ByOther);
        }
        // What may take a while comes before it is looked what has just come.
        self.session.run(locks::exclusive(&[&part.name])).await?;
        if let Some(before) = self.arrived_before {
            let sql = format!(
                "select exists (select from {} where created_at >= {})",
                part.name,
                literal(before)
            );
            let has_arrivals: bool = sqlx::query_scalar(AssertSqlSafe(sql))
                .persistent(false)
                .fetch_one(self.session.connection())
                .await
                .map_err(Failure::of_statement)?;
            if has_arrivals {
                return Ok(Dropped::NotYet);
            }
        }
        self.session
            .run(format!(
                "alter table {table} detach partition {name}; drop table {name}",
                table = self.table,
                name = part.name
            ))
            .await?;
        Ok(Dropped::Now(1))
    }

    async fn drop_chunks(&mut self, names: &[String]) -> Result<Dropped, Failure> {
        self.session.run(locks::exclusive(names)).await?;
        let dropped: i64 = sqlx::query_scalar(
            "select count(*) from drop_chunks(to_regclass($1), older_than => $2)",
        )
        .bind(self.table)
        .bind(time(self.cutoff))
        .persistent(false)
        .fetch_one(self.session.connection())
        .await
        .map_err(Failure::of_statement)?;
        Ok(Dropped::Now(u64::try_from(dropped).unwrap_or_default()))
    }

    /// Deletes the older rows of a table in the order of their time, a slice of it at once: what cannot go
    /// yet is passed by.
    async fn sweep(&mut self, rows: &OldRows) -> Result<(), Failure> {
        let mut from = None;
        loop {
            let started = Instant::now();
            let allowance = self.session.allowance(STATEMENT_LIMIT * 3);
            let slice = within(allowance, self.delete_slice(rows, from)).await?;
            let Some((to, deleted)) = slice else { return Ok(()) };
            self.went_on(0, deleted);
            let Some(to) = to else { return Ok(()) };
            from = Some(to);
            tokio::time::sleep((started.elapsed() * REST).max(LEAST_REST)).await;
        }
    }

    /// How far it came, if not to the end, and how many rows it deleted. Nothing if it is another's to go on.
    async fn delete_slice(
        &mut self,
        OldRows { table, which }: &OldRows,
        from: Option<DateTime<Utc>>,
    ) -> Result<Option<(Option<DateTime<Utc>>, u64)>, Failure> {
        if !self.begin(STATEMENT_LIMIT).await? {
            return Ok(None);
        }
        let find = format!(
            "select ts from {table} where {which} and ($1::timestamptz is null or ts > $1) \
             order by ts offset {} limit 1",
            A_STEP - 1
        );
        let to: Option<DateTime<Utc>> = sqlx::query_scalar(AssertSqlSafe(find))
            .bind(from)
            .persistent(false)
            .fetch_optional(self.session.connection())
            .await
            .map_err(Failure::of_statement)?;
        let arrived = self
            .arrived_before
            .map_or(String::new(), |before| format!("and created_at < {}", literal(before)));
        let delete = format!(
            "delete from {table} where {which} and ($1::timestamptz is null or ts > $1) \
             and ($2::timestamptz is null or ts <= $2) {arrived}"
        );
        let deleted = sqlx::query(AssertSqlSafe(delete))
            .bind(from)
            .bind(to)
            .persistent(false)
            .execute(self.session.connection())
            .await
            .map_err(Failure::of_statement)?
            .rows_affected();
        self.session.end().await?;
        Ok(Some((to, deleted)))
    }
}
