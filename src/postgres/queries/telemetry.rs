//! Readings, newest first, page by page, and how many there are.

use std::collections::VecDeque;

use sqlx::{Postgres, QueryBuilder};

use super::cursor::Cursor;
use super::in_table::{LogKey, which_are_known};
use super::relation::Relation;
use super::row::StoredReading;
use super::total::TOTAL_EXACT_UP_TO;
use super::window::{Window, cut_for, join_rest, up_to, windows};
use crate::base::time::{Clock as _, Timestamp};
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::instant::Instant;
use crate::postgres::limits::{QUERY_LIMIT, QUERY_TIMEOUT};
use crate::postgres::session::{Scope, Session};

/// The devices of one moment are in the order of their bytes, as those of the log are, whatever language the
/// database compares by.
const BY_BYTES: &str = "telemetry.device_id::text collate \"C\"";
/// Where counting ends.
const PAST: i64 = TOTAL_EXACT_UP_TO as i64 + 1;

/// Which readings; all that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TelemetryFilter {
    /// Of this device alone. No NUL: PostgreSQL's text has none.
    pub(crate) device_id: Option<String>,
    /// Not measured before.
    pub(crate) start: Option<Timestamp>,
    /// Not measured after.
    pub(crate) end: Option<Timestamp>,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// After this many rows, each of which costs.
    Offset(u32),
    /// After the row that the cursor names, at the cost of the first page.
    After(Cursor),
}

/// Readings of the table, newest first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TelemetrySlice {
    /// No more than were asked for.
    pub(crate) readings: Vec<StoredReading>,
    /// Rows that match the whole filter, up to one more than [`TOTAL_EXACT_UP_TO`].
    pub(crate) counted: u64,
    /// Which of the keys are in the table, in their order; `None` if that makes no difference.
    pub(crate) known: Option<Vec<bool>>,
}

impl Database {
    /// Up to `most` readings of `relation` from `position` on, beside readings of the log that match
    /// the same filter and are named by `keys`.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn telemetry(
        &self,
        relation: &Relation,
        filter: &TelemetryFilter,
        position: &Position,
        most: u32,
        keys: &[LogKey<'_>],
    ) -> Result<TelemetrySlice, Failure> {
        let spread = self.tables.spread(relation.name());
        let was_known = spread.is_known();
        let mut slice = self.slice(relation, filter, position, most, keys).await;
        if spread.learn_from(was_known, &slice) {
            slice = self.slice(relation, filter, position, most, keys).await;
        }
        match slice {
            Ok(slice) => Ok(slice),
            Err(failure) => Err(self.explained(failure, relation).await),
        }
    }

    async fn slice(
        &self,
        relation: &Relation,
        filter: &TelemetryFilter,
        position: &Position,
        most: u32,
        keys: &[LogKey<'_>],
    ) -> Result<TelemetrySlice, Failure> {
        within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            // A row must not come in between, or else it is counted twice or not at all.
            session.set_scope(if keys.is_empty() { Scope::Statement } else { Scope::Snapshot });
            session.begin(QUERY_LIMIT).await?;
            let remembered = self.tables.of(relation.name());
            let newest = remembered.newest.get(self.clock.wall());
            let asked = Asked { relation, filter, newest };
            let (readings, read) = page(session, asked, position, most).await?;
            let has_next = readings.len() >= most as usize;
            let is_whole = *filter == TelemetryFilter::default();
            let is_past = is_whole && remembered.rows.is_past(self.clock.monotonic());
            if let (Position::Offset(0), Some(first)) = (position, readings.first())
                && is_whole
            {
                remembered.newest.note(first.ts());
            }
            // Counted after the page, on the same connection, so that it is not less than what
            // the page shows; and only if the page does not tell already.
            let counted = match position {
                Position::Offset(skipped)
                    if !has_next && (*skipped == 0 || !readings.is_empty()) =>
                {
                    u64::from(*skipped) + readings.len() as u64
                }
                _ if is_past => PAST.unsigned_abs(),
                _ => total(session, asked, read).await?,
            };
            let is_more = counted > u64::from(TOTAL_EXACT_UP_TO);
            if is_whole && is_more != is_past {
                remembered.rows.note(is_more, self.clock.monotonic());
            }
            let is_skipping = matches!(position, Position::Offset(skipped) if *skipped > 0);
            let is_needed = is_skipping || !is_more;
            let known = if is_needed && !keys.is_empty() {
                Some(which_are_known(session, relation, keys, &remembered.spread).await?)
            } else {
                None
            };
            session.end().await?;
            session.set_scope(Scope::Statement);
            lease.keep();
            Ok(TelemetrySlice { readings, counted, known })
        })
        .await
    }
}

/// What is asked, whatever the page.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) relation: &'a Relation,
    pub(super) filter: &'a TelemetryFilter,
    /// About the newest time in the table.
    pub(super) newest: Instant,
}

impl Asked<'_> {
    fn windows_until(&self, until: Option<Instant>) -> Vec<Window> {
        windows(self.filter.start.map(Instant::from), until, self.newest)
    }
}

/// What a page has read as a whole, and so need not be counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Read {
    rows: i64,
    /// Those of this time and before it are not among them; `None` if none are.
    rest: Option<Instant>,
    /// Whether it is of a device whose readings lie so far apart, here at least, that a count seldom ends before
    /// the last.
    is_sparse: bool,
}

impl Read {
    /// By the first page of a device: all that are newer than its last.
    fn note_newer_than(&mut self, last: &StoredReading, readings: &[StoredReading]) {
        let rest = last.ts();
        let newer = readings.iter().take_while(|reading| reading.ts() != rest).count();
        self.rows = newer.try_into().unwrap_or(i64::MAX);
        self.rest = Some(rest);
    }
}

/// `wanted` readings, from window after window.
pub(super) async fn page(
    session: &mut Session,
    asked: Asked<'_>,
    position: &Position,
    wanted: u32,
) -> Result<(Vec<StoredReading>, Read), Failure> {
    let (mut to_skip, after) = match position {
        Position::Offset(rows) => (i64::from(*rows), None),
        Position::After(cursor) => (0, Some(cursor)),
    };
    let end = asked.filter.end.map(Instant::from);
    let until = after.map_or(end, |after| Some(end.map_or(after.ts, |end| end.min(after.ts))));
    let mut readings: Vec<StoredReading> = Vec::new();
    let is_counted = *position == Position::Offset(0);
    let is_of_one = asked.filter.device_id.is_some();
    let mut read = Read::default();
    let mut windows = VecDeque::from(asked.windows_until(until));
    let mut is_first = true;
    while let Some(window) = windows.pop_front() {
        let missing = i64::from(wanted) - i64::try_from(readings.len()).unwrap_or(i64::MAX);
        let rows: Vec<StoredReading> = page_of(asked, after, &window, to_skip, missing)
            .build_query_as()
            .persistent(session.keeps_statements())
            .fetch_all(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        let was_skipped_whole = rows.is_empty() && to_skip > 0;
        readings.extend(rows);
        if readings.len() >= wanted as usize || window.is_last {
            break;
        }
        if is_counted {
            read.rows = readings.len().try_into().unwrap_or(i64::MAX);
            read.rest = window.after;
        }
        to_skip = if was_skipped_whole {
            to_skip - count(session, asked, &window, to_skip).await?
        } else {
            0
        };
        if is_of_one && is_first && !was_skipped_whole {
            read.is_sparse = true;
            let missing = (wanted as usize).saturating_sub(readings.len());
            cut_for(&mut windows, readings.len(), missing, asked.filter.start.map(Instant::from));
        }
        is_first = false;
    }
    if is_counted
        && is_of_one
        && let Some(last) = readings.last()
    {
        read.note_newer_than(last, &readings);
    }
    Ok((readings, read))
}

fn page_of(
    Asked { relation, filter, .. }: Asked<'_>,
    after: Option<&Cursor>,
    window: &Window,
    to_skip: i64,
    limit: i64,
) -> QueryBuilder<Postgres> {
    let (columns, source) = (relation.columns(), relation.source());
    let mut sql = QueryBuilder::new(format!("select {columns} from {source} where true"));
    if let Some(device_id) = &filter.device_id {
        sql.push(" and telemetry.device_id = ").push_bind(device_id.clone());
    }
    push_span(&mut sql, filter);
    window.push_to(&mut sql);
    if let Some(Cursor { ts, device_id }) = after {
        // The comparison of rows alone would rule out no partition.
        sql.push(" and telemetry.ts <= ").push_bind(*ts);
        sql.push(format!(" and (telemetry.ts, {BY_BYTES}) < (")).push_bind(*ts);
        sql.push(", ").push_bind(device_id.clone()).push(")");
    }
    match filter.device_id {
        Some(_) => sql.push(" order by telemetry.ts desc"),
        None => sql.push(format!(" order by telemetry.ts desc, {BY_BYTES} desc")),
    };
    sql.push(" limit ").push_bind(limit);
    if to_skip > 0 {
        sql.push(" offset ").push_bind(to_skip);
    }
    sql
}

/// Counts window after window, but for what was read, and no further than [`PAST`].
async fn total(session: &mut Session, asked: Asked<'_>, read: Read) -> Result<u64, Failure> {
    let mut counted = read.rows;
    let windows = asked.windows_until(asked.filter.end.map(Instant::from));
    let mut windows = up_to(windows, read.rest);
    if read.is_sparse && read.rest.is_none() {
        join_rest(&mut windows);
    }
    for window in windows {
        counted += count(session, asked, &window, PAST - counted).await?;
        if counted >= PAST {
            break;
        }
    }
    Ok(counted.unsigned_abs())
}

async fn count(
    session: &mut Session,
    asked: Asked<'_>,
    window: &Window,
    most: i64,
) -> Result<i64, Failure> {
    count_in(asked, window, most)
        .build_query_scalar()
        .persistent(session.keeps_statements())
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)
}

/// Stops at the first row that is not to be counted any more. The order is there for the sake of
/// its index, which alone is read: without it, a scan of the table may begin at the far end. A device's
/// readings are in one place of its index, in whatever order. What the index holds is selected, because
/// anything else would be computed for each row.
///
/// Most tables are past the limit as a whole, and to skip so many rows takes two thirds of the
/// time that it takes to count them. So all rows are counted only if that finds none behind them.
fn count_in(asked: Asked<'_>, window: &Window, most: i64) -> QueryBuilder<Postgres> {
    let Asked { relation, filter, .. } = asked;
    let source = relation.source();
    let is_whole = *filter == TelemetryFilter::default() && most == PAST;
    let mut sql = QueryBuilder::new("select ");
    if is_whole {
        sql.push(format!("case when exists (select ts from {source} where true"));
        window.push_to(&mut sql);
        sql.push(" order by ts desc offset ").push_bind(most - 1);
        sql.push(") then ").push_bind(most).push(" else (select ");
    }
    sql.push(format!("count(*) from (select ts from {source} where true"));
    if let Some(device_id) = &filter.device_id {
        sql.push(" and telemetry.device_id = ").push_bind(device_id.clone());
    }
    push_span(&mut sql, filter);
    window.push_to(&mut sql);
    if filter.device_id.is_none() {
        sql.push(" order by ts desc");
    }
    sql.push(" limit ").push_bind(most).push(") as matching");
    if is_whole {
        sql.push(") end");
    }
    sql
}

fn push_span(sql: &mut QueryBuilder<Postgres>, filter: &TelemetryFilter) {
    if let Some(start) = filter.start {
        sql.push(" and telemetry.ts >= ").push_bind(Instant::from(start));
    }
    if let Some(end) = filter.end {
        sql.push(" and telemetry.ts <= ").push_bind(Instant::from(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::queries::row::StoredValues;

    /// A table that has no key may have several of one moment, of which the page has some.
    #[test]
    fn readings_of_the_last_moment_of_a_page_are_counted_with_what_is_behind_it() {
        let reading = |second: i64| {
            let at = Timestamp::from_micros(second * 1_000_000).unwrap();
            StoredReading::of_log("a".to_owned(), at, StoredValues::Row("{}".to_owned()))
        };
        for (seconds, newer) in [(&[9, 8, 7][..], 2), (&[9, 9, 7, 7], 2), (&[9, 9], 0), (&[9], 0)] {
            let page: Vec<StoredReading> = seconds.iter().copied().map(reading).collect();
            let mut read = Read::default();
            read.note_newer_than(page.last().unwrap(), &page);
            assert_eq!((read.rows, read.rest), (newer, page.last().map(StoredReading::ts)));
        }
    }
}
