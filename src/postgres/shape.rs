//! What the table is: whoever has made it, and whatever of PostgreSQL's relatives it is in.

use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow};

use super::database::Database;
use super::failure::{Failure, within};
use super::hypertable::is_hypertable;
use super::limits::{QUERY_LIMIT, QUERY_TIMEOUT};
use super::session::Session;

/// How rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// In one table.
    Plain,
    /// In native partitions.
    Partitioned,
    /// In chunks of TimescaleDB.
    Hypertable,
    /// On several nodes, by Citus.
    Distributed,
}

/// The table `telemetry`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shape {
    /// How its rows are kept.
    pub(crate) kind: Kind,
    /// What it is partitioned by, as PostgreSQL says it.
    pub(crate) partitioned_by: Option<String>,
    /// About how many, as PostgreSQL estimates it.
    pub(crate) rows: u64,
    /// Rows alone.
    pub(crate) table_bytes: u64,
    /// All indexes.
    pub(crate) index_bytes: u64,
    /// Columns.
    pub(crate) columns: Vec<Column>,
    /// Indexes, those of keys included.
    pub(crate) indexes: Vec<Index>,
    /// Partitions, in the order of their bounds.
    pub(crate) partitions: Vec<Partition>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its type.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub(crate) kind: String,
    /// Whether every row has it.
    pub(crate) is_required: bool,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow)]
pub(crate) struct Index {
    /// Its name.
    pub(crate) name: String,
    /// How and over what: `btree (ts)`.
    pub(crate) definition: String,
    /// The key that it stands for: `unique` or `primary key`.
    pub(crate) key: Option<String>,
    /// False if it was not finished.
    pub(crate) is_valid: bool,
    /// Over all partitions.
    #[sqlx(try_from = "i64")]
    pub(crate) bytes: Bytes,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Serialize, FromRow)]
pub(crate) struct Partition {
    /// Its name.
    pub(crate) name: String,
    /// What belongs in it, as PostgreSQL says it.
    pub(crate) bounds: String,
    /// Indexes included.
    #[sqlx(try_from = "i64")]
    pub(crate) bytes: Bytes,
}

/// A size, which PostgreSQL never makes negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bytes(pub(crate) u64);

impl From<i64> for Bytes {
    fn from(bytes: i64) -> Self {
        Self(bytes.unsigned_abs())
    }
}

const KIND: &str = "
    select
        relkind = 'p',
        to_regclass('timescaledb_information.hypertables') is not null,
        to_regclass('pg_dist_partition') is not null,
        case relkind when 'p' then pg_get_partkeydef(pg_class.oid) end
    from pg_class where oid = to_regclass('telemetry')";
const IS_DISTRIBUTED: &str =
    "select exists (select from pg_dist_partition where logicalrelid = to_regclass('telemetry'))";

/// The table and all below it: partitions, chunks.
const TREE: &str = "
    with tree (part) as (
        select to_regclass('telemetry')::oid
        union
        select relid::oid from pg_partition_tree(to_regclass('telemetry'))
        union
        select inhrelid from pg_inherits where inhparent = to_regclass('telemetry')
    )";
const COLUMNS: &str = "
    select attname::text as name, format_type(atttypid, atttypmod) as type, attnotnull as is_required
    from pg_attribute
    where attrelid = to_regclass('telemetry') and attnum > 0 and not attisdropped
    order by attnum";
const INDEXES: &str = "
    select
        relname::text as name,
        regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', '') as definition,
        case when indisprimary then 'primary key' when indisunique then 'unique' end as key,
        indisvalid as is_valid,
        (
            select coalesce(sum(pg_relation_size(part)), 0)::bigint
            from (
                select indexrelid as part
                union
                select relid from pg_partition_tree(indexrelid)
            ) as parts
        ) as bytes
    from pg_index join pg_class on pg_class.oid = indexrelid
    where indrelid = to_regclass('telemetry')
    order by relname";
const PARTITIONS: &str = "
    select
        relname::text as name,
        pg_get_expr(relpartbound, oid) as bounds,
        coalesce(pg_total_relation_size(oid), 0) as bytes
    from pg_class join pg_inherits on inhrelid = oid
    where inhparent = to_regclass('telemetry') and relispartition
    order by pg_get_expr(relpartbound, oid) like '%MINVALUE%' desc, pg_get_expr(relpartbound, oid)";

impl Database {
    /// The table as it is; `None` if there is none.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn shape(&self) -> Result<Option<Shape>, Failure> {
        within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let shape = shape(session).await?;
            session.end().await?;
            lease.keep();
            Ok(shape)
        })
        .await
    }
}

async fn shape(session: &mut Session) -> Result<Option<Shape>, Failure> {
    let kind: Option<(bool, bool, bool, Option<String>)> = sqlx::query_as(KIND)
        .persistent(false)
        .fetch_optional(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let Some((is_partitioned, has_timescale, has_citus, partitioned_by)) = kind else {
        return Ok(None);
    };
    let kind = if has_timescale && is_hypertable(session, "telemetry").await? {
        Kind::Hypertable
    } else if has_citus && is_distributed(session).await? {
        Kind::Distributed
    } else if is_partitioned {
        Kind::Partitioned
    } else {
        Kind::Plain
    };
    let sizes = format!(
        "{TREE}
        select
            coalesce(sum(greatest(reltuples, 0)), 0)::bigint,
            coalesce(sum(pg_table_size(part)), 0)::bigint,
            coalesce(sum(pg_indexes_size(part)), 0)::bigint
        from tree join pg_class on oid = part"
    );
    let (rows, table, index): (i64, i64, i64) = sqlx::query_as(AssertSqlSafe(sizes))
        .persistent(false)
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    Ok(Some(Shape {
        kind,
        partitioned_by,
        rows: rows.unsigned_abs(),
        table_bytes: table.unsigned_abs(),
        index_bytes: index.unsigned_abs(),
        columns: all(session, COLUMNS).await?,
        indexes: all(session, INDEXES).await?,
        partitions: all(session, PARTITIONS).await?,
    }))
}

async fn is_distributed(session: &mut Session) -> Result<bool, Failure> {
    sqlx::query_scalar(IS_DISTRIBUTED)
        .persistent(false)
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)
}

async fn all<T>(session: &mut Session, question: &'static str) -> Result<Vec<T>, Failure>
where
    T: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    sqlx::query_as(question)
        .persistent(false)
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)
}
