//! What the HTTP side asks.
//!
//! No answer may depend on the planner's guesses, because a guess that is wrong once in a while
//! is a slow answer once in a while. So each statement asks for an order that one index alone
//! provides, with a limit, on a session whose settings rule out what is not an index: that index
//! is then the plan, whatever the statistics say.
//!
//! - All devices: `ts desc, id desc`, from the index on `ts`; readings of one microsecond are
//!   sorted by `id` on the way.
//! - One device: `device_id desc, ts desc`, from the unique index. Written as an equality,
//!   `device_id` would drop out of that order, and for a device that is common, but silent of
//!   late, the planner would walk the index on `ts` past everything newer; hence `any(array[…])`.
//!   A device's `ts` is unique, so this is the order of `ts desc, id desc` too.

use std::sync::LazyLock;

use sqlx::{Postgres, QueryBuilder};

use super::failure::{Failure, within};
use super::instant::Instant;
use super::{Database, QUERY_LIMIT, QUERY_TIMEOUT};
use crate::base::time::Timestamp;

use row::{DeviceRow, TelemetryRow, columns};

pub use cursor::Cursor;
pub use row::StoredReading;

mod cursor;
mod fault;
mod row;

/// Rows up to which a total is counted.
pub const TOTAL_EXACT_UP_TO: u32 = 100_000;

/// Which readings; all that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryFilter {
    /// Of this device alone. No NUL: PostgreSQL's text has none.
    pub device_id: Option<String>,
    /// Not measured before.
    pub start: Option<Timestamp>,
    /// Not measured after.
    pub end: Option<Timestamp>,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// After this many rows, each of which costs.
    Offset(u32),
    /// After the row that the cursor names, at the cost of the first page.
    After(Cursor),
}

/// How many rows match, on this page or off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// At most [`TOTAL_EXACT_UP_TO`].
    pub rows: u64,
    /// Whether there are no more than `rows`.
    pub exact: bool,
}

/// Readings, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryPage {
    /// No more than were asked for.
    pub readings: Vec<StoredReading>,
    /// Of the whole filter.
    pub total: Total,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// Which devices, and in what order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Only those that have this in their name, in capitals or not. No NUL: PostgreSQL's text has
    /// none.
    pub name_contains: Option<String>,
    /// By their latest reading, instead of by name.
    pub newest_first: bool,
}

/// Devices, each as its latest reading.
#[derive(Clone, Debug, PartialEq)]
pub struct DevicePage {
    /// No more than were asked for.
    pub latest: Vec<StoredReading>,
    /// Devices that match, on this page or off it.
    pub total: u64,
}

impl Database {
    /// Up to `limit` readings from `position` on.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub async fn telemetry(
        &self,
        filter: &TelemetryFilter,
        position: Position,
        limit: u32,
    ) -> Result<TelemetryPage, Failure> {
        let page = within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let named = session.keeps_statements();
            // One more than asked for tells whether there is a next page.
            let mut rows: Vec<TelemetryRow> = page(filter, position, i64::from(limit) + 1)
                .build_query_as()
                .persistent(named)
                .fetch_all(session.connection())
                .await
                .map_err(Failure::of_statement)?;
            let has_next = rows.len() > limit as usize;
            rows.truncate(limit as usize);
            // Counted after the page, on the same connection, so that it is not less than what
            // the page shows; and only if the page does not tell already.
            let total = match position {
                Position::Offset(skipped) if !has_next && (skipped == 0 || !rows.is_empty()) => {
                    u64::from(skipped) + rows.len() as u64
                }
                _ => {
                    let counted: i64 = count(filter)
                        .build_query_scalar()
                        .persistent(named)
                        .fetch_one(session.connection())
                        .await
                        .map_err(Failure::of_statement)?;
                    counted.unsigned_abs()
                }
            };
            session.end().await?;
            lease.keep();
            let last = rows.last().map(TelemetryRow::cursor);
            Ok(TelemetryPage {
                readings: rows.into_iter().map(|row| row.reading).collect(),
                total: Total {
                    rows: total.min(u64::from(TOTAL_EXACT_UP_TO)),
                    exact: total <= u64::from(TOTAL_EXACT_UP_TO),
                },
                next: last.filter(|_| has_next),
            })
        });
        match page.await {
            Ok(page) => Ok(page),
            Err(failure) => Err(self.explained(failure).await),
        }
    }

    /// Up to `limit` devices, after the first `offset` of them.
    ///
    /// The cost grows with the number of devices, not with that of their readings.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub async fn devices(
        &self,
        filter: &DeviceFilter,
        offset: u32,
        limit: u32,
    ) -> Result<DevicePage, Failure> {
        let page = within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let named = session.keeps_statements();
            let sql: &'static str =
                if filter.newest_first { &DEVICES_BY_AGE } else { &DEVICES_BY_NAME };
            let rows: Vec<DeviceRow> = sqlx::query_as(sql)
                .bind(i64::from(offset))
                .bind(i64::from(limit))
                .bind(filter.name_contains.as_deref())
                .persistent(named)
                .fetch_all(session.connection())
                .await
                .map_err(Failure::of_statement)?;
            session.end().await?;
            lease.keep();
            Ok(DevicePage {
                total: rows.first().map_or(0, |row| row.total.unsigned_abs()),
                latest: rows.into_iter().filter_map(|row| row.reading).collect(),
            })
        });
        match page.await {
            Ok(page) => Ok(page),
            Err(failure) => Err(self.explained(failure).await),
        }
    }
}

fn page(filter: &TelemetryFilter, position: Position, limit: i64) -> QueryBuilder<Postgres> {
    let columns = columns();
    let mut sql = matching(&format!("select id, {columns} from telemetry where true"), filter);
    if let Position::After(Cursor { ts, id }) = position {
        sql.push(" and (ts, id) < (").push_bind(ts);
        sql.push(", ").push_bind(id).push(")");
    }
    sql.push(match filter.device_id {
        Some(_) => " order by telemetry.device_id desc, telemetry.ts desc",
        None => " order by telemetry.ts desc, telemetry.id desc",
    });
    sql.push(" limit ").push_bind(limit);
    if let Position::Offset(rows) = position {
        sql.push(" offset ").push_bind(i64::from(rows));
    }
    sql
}

/// Stops at the first row that is not to be counted any more. The order is there for the sake of
/// its index, which alone is read: without it, a scan of the table may begin at the far end. What
/// the index holds is selected, because anything else would be computed for each row.
///
/// Most tables are past the limit as a whole, and to skip so many rows takes two thirds of the
/// time that it takes to count them. So all rows are counted only if that finds none behind them.
fn count(filter: &TelemetryFilter) -> QueryBuilder<Postgres> {
    let most = i64::from(TOTAL_EXACT_UP_TO);
    let past = most + 1;
    if *filter == TelemetryFilter::default() {
        let mut sql = QueryBuilder::new("select case when exists (");
        sql.push("select ts from telemetry order by ts desc offset ").push_bind(most);
        sql.push(") then ").push_bind(past).push(" else (");
        sql.push("select count(*) from (select ts from telemetry order by ts desc limit ");
        sql.push_bind(most).push(") as counted) end");
        return sql;
    }
    let mut sql = matching("select count(*) from (select ts from telemetry where true", filter);
    sql.push(match filter.device_id {
        Some(_) => " order by device_id desc, ts desc",
        None => " order by ts desc",
    });
    sql.push(" limit ").push_bind(past).push(") as matching");
    sql
}

fn matching(select: &str, filter: &TelemetryFilter) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(select);
    if let Some(device_id) = &filter.device_id {
        sql.push(" and device_id = any(array[").push_bind(device_id.clone()).push("])");
    }
    if let Some(start) = filter.start {
        sql.push(" and ts >= ").push_bind(Instant::from(start));
    }
    if let Some(end) = filter.end {
        sql.push(" and ts <= ").push_bind(Instant::from(end));
    }
    sql
}

/// `device`: the devices that match. A loose index scan: each step of the recursion is one descent
/// of the unique index, to the first device behind the one before.
const DEVICES: &str = "
    with recursive step (device_id) as (
        (select device_id from telemetry order by device_id limit 1)
        union all
        select (
            select telemetry.device_id
            from telemetry
            where telemetry.device_id > step.device_id
            order by telemetry.device_id
            limit 1
        )
        from step
        where step.device_id is not null
    ),
    device as materialized (
        select device_id from step
        where device_id is not null
            and ($3::text is null or strpos(lower(device_id), lower($3)) > 0)
    ),";

/// Looks up the latest readings of the page alone. There is always a row, for the total.
static DEVICES_BY_NAME: LazyLock<String> = LazyLock::new(|| {
    let columns = columns();
    format!(
        "{DEVICES}
    page as (
        select device_id from device order by device_id offset $1 limit $2
    )
    select known.total, latest.*
    from (select count(*) as total from device) as known
    left join page on true
    left join lateral (
        select {columns}
        from telemetry
        where telemetry.device_id = any(array[page.device_id])
        order by telemetry.device_id desc, telemetry.ts desc
        limit 1
    ) as latest on true
    order by page.device_id"
    )
});

/// Looks up the latest readings of all: one more descent of the index a device.
static DEVICES_BY_AGE: LazyLock<String> = LazyLock::new(|| {
    let columns = columns();
    format!(
        "{DEVICES}
    page as (
        select latest.*
        from device
        cross join lateral (
            select {columns}
            from telemetry
            where telemetry.device_id = any(array[device.device_id])
            order by telemetry.device_id desc, telemetry.ts desc
            limit 1
        ) as latest
        order by ts desc, device_id offset $1 limit $2
    )
    select known.total, page.*
    from (select count(*) as total from device) as known
    left join page on true
    order by page.ts desc, page.device_id"
    )
});
