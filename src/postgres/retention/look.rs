//! What retention has to know of the table.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row as _};

use super::plan::{self, HeldUp, Part, Rows};
use crate::postgres::failure::Failure;
use crate::postgres::hypertable::is_hypertable;
use crate::postgres::partitions::{
    BOUNDS, DAY, FIRST, FROM_MICROS, LAST, Range, SETTINGS, TO_MICROS,
};
use crate::postgres::session::Session;
use crate::postgres::table::quoted;
use crate::telemetry::mapping::BUILT_IN_TABLE;

/// A table with fewer rows is counted, one with more is estimated.
const COUNTED_UP_TO: i64 = 10_000;

const TABLE: &str = "
    select
        (extract(epoch from clock_timestamp()) * 1000000)::bigint,
        exists (
            select from pg_partitioned_table join pg_attribute
                on attrelid = partrelid and attnum = partattrs[0]
            where partrelid = oid and partstrat = 'r' and partnatts = 1 and attname = 'ts'
        ),
        to_regclass('timescaledb_information.hypertables') is not null,
        exists (
            select from pg_attribute where attrelid = oid and attname = 'created_at' and not attisdropped
        ),
        greatest(reltuples, (
            select sum(greatest(leaf.reltuples, 0))
            from pg_partition_tree(pg_class.oid) join pg_class as leaf on leaf.oid = relid
            where isleaf
        ))::bigint,
        relkind = 'r' and relhassubclass
    from pg_class
    where oid = to_regclass($1) and relkind in ('r', 'p') and (not $2 or exists (
        select from pg_index
        where indrelid = pg_class.oid
            and indisunique and indisvalid and indpred is null and indexprs is null
            and indnkeyatts = 2
            and 2 = (
                select count(*) from pg_attribute
                where attrelid = indrelid and attnum in (indkey[0], indkey[1])
                    and attname in ('device_id', 'ts')
            )
    ))";
const CHUNKS: &str = "
    select
        array(select chunk::text from show_chunks(to_regclass($1), older_than => $2) as chunk),
        (select count(*) from show_chunks(to_regclass($1)))";

/// What [`crate::postgres::partitions`] adds to the name of the table.
const OUR_NAMES: &str = "_(p[0-9]{8}(_[0-9]{6})?|older)(_[0-9]+)?$";

/// What a look found.
#[derive(Debug)]
pub(super) struct Look {
    /// The table's, quoted.
    pub(super) name: String,
    /// Microseconds since the Unix epoch, by the database's clock.
    pub(super) now: i64,
    /// What is older may be removed.
    pub(super) cutoff: i64,
    pub(super) has_arrival: bool,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// TimescaleDB's.
    Hypertable { old: Vec<String>, all: usize },
    /// `all` that hold or held rows and are not of the future.
    Partitioned { old: plan::Partitions, all: usize, rows: Rows },
    /// Or divided in another way.
    Plain { rows: Rows, source: OldRows },
}

/// Old rows in a statement: where they are, and what tells them.
#[derive(Clone, Debug)]
pub(super) struct OldRows {
    pub(super) table: String,
    pub(super) which: String,
}

impl OldRows {
    fn of(table: &str, range: Range, cutoff: i64) -> Self {
        let mut which = format!("ts < {}", literal(range.to.min(cutoff)));
        if range.from != FIRST {
            which = format!("ts >= {} and {which}", literal(range.from));
        }
        Self { table: table.to_owned(), which }
    }
}

/// What old rows are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// To tell whether they are too many.
    ToJudge,
    /// To tell whether there are any.
    IfAny,
}

impl Look {
    /// The old rows of a partition, by way of its table: it may be another role's, or gone by now.
    pub(super) fn rows_of(&self, part: &Part) -> OldRows {
        OldRows::of(&self.name, part.range, self.cutoff)
    }

    /// Whether it is more than time alone makes old.
    pub(super) fn is_too_much(&self) -> Option<HeldUp> {
        match &self.kind {
            Kind::Hypertable { old, all } => plan::are_too_many(old.len(), *all),
            Kind::Partitioned { old, all, rows: swept } => {
                let used = old.whole.iter().filter(|part| part.is_used).count();
                plan::are_too_many(used, *all).or_else(|| swept.are_too_many())
            }
            Kind::Plain { rows, .. } => rows.are_too_many(),
        }
    }
}

/// Looks at `table` within the transaction of the caller. Nothing if there is none, as a view is none; one that
/// a mapping fills has the key of those, or it is another's yet.
pub(super) async fn look(
    session: &mut Session,
    table: &str,
    days: u32,
    counting: Counting,
) -> Result<Option<Look>, Failure> {
    let name = &*quoted(table);
    session.run(SETTINGS.to_owned()).await?;
    let found: Option<(i64, bool, bool, bool, i64, bool)> = sqlx::query_as(TABLE)
        .bind(name)
        .bind(table != BUILT_IN_TABLE)
        .persistent(false)
        .fetch_optional(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let Some((now, is_partitioned, has_timescale, has_arrival, estimate, has_heirs)) = found else {
        return Ok(None);
    };
    let cutoff = now - i64::from(days) * DAY;
    let kind = if has_timescale && is_hypertable(session, name).await? {
        let (old, all): (Vec<String>, i64) = sqlx::query_as(CHUNKS)
            .bind(name)
            .bind(time(cutoff))
            .persistent(false)
            .fetch_one(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        Kind::Hypertable { old, all: usize::try_from(all).unwrap_or_default() }
    } else if is_partitioned {
        let parts = parts(session, name).await?;
        let mut old = plan::old(&parts, cutoff);
        for parts in [&mut old.whole, &mut old.swept] {
            leave_out_empty(session, name, parts, cutoff).await?;
        }
        let swept = old.swept.iter().map(|part| OldRows::of(name, part.range, cutoff));
        let rows = rows(session, name, &swept.collect::<Vec<_>>(), estimate, counting).await?;
        Kind::Partitioned { old, all: plan::in_use(&parts, now), rows }
    } else {
        // Tables that inherit from it are their maker's.
        let table = if has_heirs { format!("only {name}") } else { name.to_owned() };
        let source = OldRows::of(&table, Range { from: FIRST, to: LAST }, cutoff);
        let rows = rows(session, &table, std::slice::from_ref(&source), estimate, counting).await?;
        Kind::Plain { rows, source }
    };
    Ok(Some(Look { name: name.to_owned(), now, cutoff, has_arrival, kind }))
}

/// Name, whether it is ours, its bounds, its bytes, whether it has or had rows.
type Found = (String, bool, Option<i64>, Option<i64>, i64, bool);

async fn parts(session: &mut Session, name: &str) -> Result<Vec<Part>, Failure> {
    // Of ordinary tables alone: what is below another level, or elsewhere, is its maker's.
    let sql = format!(
        "select
            format('%I.%I', nspname, part.relname),
            part.relnamespace = wide.relnamespace
                and pg_has_role(part.relowner, 'usage') and pg_has_role(wide.relowner, 'usage')
                and starts_with(part.relname, wide.relname)
                and substr(part.relname, length(wide.relname) + 1) ~ '^{OUR_NAMES}',
            {FROM_MICROS}, {TO_MICROS},
            -- Nothing of one that another ingestor drops at this moment.
            coalesce(pg_total_relation_size(part.oid), 0),
            coalesce(pg_relation_size(part.oid) > 0, false)
        from pg_inherits
        join pg_class as part on part.oid = inhrelid
        join pg_namespace on pg_namespace.oid = part.relnamespace
        join pg_class as wide on wide.oid = inhparent
        cross join {BOUNDS}
        where inhparent = to_regclass($1) and part.relispartition and part.relkind = 'r'
            and bounds is not null
        order by 3 nulls first"
    );
    let found: Vec<Found> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(name)
        .persistent(false)
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let part = |(name, is_ours, from, to, bytes, is_used): Found| {
        let range = Range { from: from.unwrap_or(FIRST), to: to.unwrap_or(LAST) };
        Part { name, range, is_ours, is_used, bytes }
    };
    Ok(found.into_iter().map(part).collect())
}

/// In them there is nothing to remove: an empty `telemetry_older` stays, for what is late. Other partitions of
/// ours go also if they were never used.
async fn leave_out_empty(
    session: &mut Session,
    name: &str,
    parts: &mut Vec<Part>,
    cutoff: i64,
) -> Result<(), Failure> {
    for part in std::mem::take(parts) {
        let goes_empty = part.is_ours && part.range.from != FIRST;
        let rows = OldRows::of(name, part.range, cutoff);
        if goes_empty || count_old(session, &rows, 1).await? > 0 {
            parts.push(part);
        }
    }
    Ok(())
}

async fn rows(
    session: &mut Session,
    table: &str,
    swept: &[OldRows],
    estimate: i64,
    counting: Counting,
) -> Result<Rows, Failure> {
    let mut all = 0;
    if counting == Counting::ToJudge {
        all = count(session, table, COUNTED_UP_TO + 1).await?;
    }
    if all > COUNTED_UP_TO {
        all = all.max(estimate);
    }
    let (mut old, limit) = (0, plan::counted_of(all));
    for rows in swept {
        old += count_old(session, rows, limit - old).await?;
    }
    let (is_exact, mut guess) = (old < limit, 0_i64);
    if !is_exact && counting == Counting::ToJudge {
        for rows in swept {
            guess = guess.saturating_add(guess_old(session, rows).await?);
        }
    }
    Ok(Rows { old, is_exact, guess, all })
}

/// As PostgreSQL plans with it.
async fn guess_old(session: &mut Session, rows: &OldRows) -> Result<i64, Failure> {
    let sql = format!("explain select from {} where {}", rows.table, rows.which);
    let lines = session.rows(sql).await?;
    let first = lines.first().map(|line| line.try_get(0)).transpose();
    // Of a plan that nobody can read, the worst.
    Ok(first.map_err(Failure::of_statement)?.and_then(plan::rows_of_plan).unwrap_or(i64::MAX))
}

/// At most `limit`.
async fn count_old(session: &mut Session, rows: &OldRows, limit: i64) -> Result<i64, Failure> {
    count(session, &format!("{} where {}", rows.table, rows.which), limit).await
}

/// The same of all rows of `source`.
async fn count(session: &mut Session, source: &str, limit: i64) -> Result<i64, Failure> {
    let sql = format!("select count(*) from (select from {source} limit {limit}) as found");
    sqlx::query_scalar(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)
}

pub(super) fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// The same in a statement.
pub(super) fn literal(micros: i64) -> String {
    format!("timestamptz {}", crate::postgres::partitions::bound(micros))
}
