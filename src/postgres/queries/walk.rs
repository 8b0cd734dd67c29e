//! All readings that match, however many, for a file.
//!
//! They are read page by page, each page where the one before it has ended. No transaction and no cursor of
//! PostgreSQL's lasts from page to page: whoever takes an hour to read a file keeps no connection, and keeps
//! PostgreSQL from cleaning up nothing. A row never changes its place, so none is missed or comes twice; one
//! that is stored meanwhile may come or not.
//!
//! A page has as many rows as come in good time and are not too long, so that a slow disk sees small pages, no
//! page comes near the time that a query may take, and none takes much memory.

use std::time::Duration;

use super::relation::Relation;
use super::row::StoredReading;
use super::telemetry::{Asked, Position, TelemetryFilter, page};
use crate::base::time::{Clock as _, Timestamp};
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::limits::{QUERY_LIMIT, QUERY_TIMEOUT};

/// A way through readings, newest first.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    relation: Relation,
    filter: TelemetryFilter,
    position: Position,
    /// Rows that are still wanted.
    left: u64,
    pace: Pace,
}

impl Walk {
    /// From `position` on, to the end or up to `limit` rows.
    #[must_use]
    pub(crate) fn new(
        relation: Relation,
        filter: TelemetryFilter,
        position: Position,
        limit: Option<u64>,
    ) -> Self {
        let left = limit.unwrap_or(u64::MAX);
        Self { relation, filter, position, left, pace: Pace::default() }
    }
}

/// A page of a [`Walk`].
#[derive(Debug)]
pub(crate) struct Ahead {
    /// Newest first.
    pub(crate) readings: Vec<StoredReading>,
    /// Whether there may be more behind the last of them.
    pub(crate) is_cut: bool,
}

impl Walk {
    /// Goes past `last`, whoever has it.
    pub(crate) fn pass(&mut self, last: &StoredReading) {
        self.position = Position::After(last.cursor());
    }

    /// Goes past so many readings of the table, before anything else was passed.
    pub(crate) fn skip(&mut self, readings: u32) {
        self.position = Position::Offset(readings);
    }
}

impl Database {
    /// The next readings of `walk`; none at its end. After a failure it can be called again, and goes on
    /// where it was.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn walk_on(&self, walk: &mut Walk) -> Result<Vec<StoredReading>, Failure> {
        let Ahead { readings, is_cut } = self.look_ahead(walk, None).await?;
        if !is_cut {
            walk.left = 0;
        }
        walk.left = walk.left.saturating_sub(readings.len() as u64);
        if let Some(last) = readings.last() {
            walk.pass(last);
        }
        Ok(readings)
    }

    /// The next readings of `walk` that were not measured before `since`, which it does not pass.
    ///
    /// # Errors
    /// As [`Self::walk_on`].
    pub(crate) async fn look_ahead(
        &self,
        walk: &mut Walk,
        since: Option<Timestamp>,
    ) -> Result<Ahead, Failure> {
        let Walk { relation, filter, position, left, pace } = walk;
        let wanted = u32::try_from(*left).unwrap_or(u32::MAX).min(pace.rows);
        if wanted == 0 {
            return Ok(Ahead { readings: Vec::new(), is_cut: false });
        }
        let filter = TelemetryFilter { start: filter.start.max(since), ..filter.clone() };
        let began = self.clock.monotonic();
        let read = within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let newest = self.tables.of(relation.name()).newest.get(self.clock.wall());
            let asked = Asked { relation, filter: &filter, newest };
            let (readings, _) = page(session, asked, position, wanted).await?;
            session.end().await?;
            lease.keep();
            Ok(readings)
        });
        match read.await {
            Ok(readings) => {
                let time = self.clock.monotonic().saturating_sub(began);
                pace.took(time, readings.iter().map(StoredReading::bytes).sum());
                let is_cut = readings.len() >= wanted as usize;
                Ok(Ahead { readings, is_cut })
            }
            Err(failure) => {
                if matches!(failure, Failure::TimedOut { .. }) {
                    pace.timed_out();
                }
                Err(self.explained(failure, relation).await)
            }
        }
    }
}

/// How many rows a page has.
#[derive(Clone, Debug)]
struct Pace {
    rows: u32,
}

/// A page has hardly a round trip to it.
const MOST_ROWS: u32 = 16_384;
const FIRST_ROWS: u32 = 256;
const FEWEST_ROWS: u32 = 16;
/// What the rows of a page are not to be longer than, if they are as long as those of the one before.
const LONG_BYTES: usize = 2 * 1024 * 1024;
/// Pages are halved above this, and doubled below a quarter of it.
const LONG: Duration = Duration::from_millis(600);

impl Default for Pace {
    fn default() -> Self {
        Self { rows: FIRST_ROWS }
    }
}

impl Pace {
    /// A page of `bytes` has taken `time`.
    fn took(&mut self, time: Duration, bytes: usize) {
        let most = if bytes > LONG_BYTES / 2 { self.rows } else { MOST_ROWS };
        if time > LONG || bytes > LONG_BYTES {
            self.rows = (self.rows / 2).max(FEWEST_ROWS);
        } else if time < LONG / 4 {
            self.rows = (self.rows * 2).min(most);
        }
    }

    fn timed_out(&mut self) {
        self.rows = (self.rows / 8).max(FEWEST_ROWS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_while_they_are_fast_and_shrink_while_they_are_slow_within_bounds() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.took(Duration::from_millis(10), 1_000);
        }
        assert_eq!(pace.rows, MOST_ROWS);
        pace.took(LONG / 2, 1_000);
        assert_eq!(pace.rows, MOST_ROWS);
        pace.took(LONG * 2, 1_000);
        assert_eq!(pace.rows, MOST_ROWS / 2);
        pace.took(Duration::ZERO, LONG_BYTES + 1);
        assert_eq!(pace.rows, MOST_ROWS / 4);
        pace.took(Duration::ZERO, LONG_BYTES);
        assert_eq!(pace.rows, MOST_ROWS / 4);
        for _ in 0..20 {
            pace.timed_out();
        }
        assert_eq!(pace.rows, FEWEST_ROWS);
    }
}
