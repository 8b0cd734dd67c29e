//! Readings for a file, newest first: of log and table together for as long as the log has any, and of the
//! table alone from there on, in pages as large as it gives fast.
//!
//! The log is asked first and the table then, as for a page, so what is flushed meanwhile is in both, and the
//! table's counts. In an outage the file is made of the log alone, to its end, also if the database is back
//! before that.

use crate::base::time::Timestamp;
use crate::http::error::ApiError;
use crate::http::state::AppState;
use crate::http::together::{Partial, as_stored, joined, patiently};
use crate::postgres::{Ahead, Failure, Position, Relation, StoredReading, TelemetryFilter, Walk};
use crate::recent::{Ask, Found, LogPart, RecentError};

/// Readings of the log that are held at once, and at least, where few are long already.
const FROM_LOG: usize = 4_096;
const FEWEST_FROM_LOG: usize = 16;

/// Why there is no next page.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The database does not answer, or refuses: to be tried again if it is the former.
    #[error(transparent)]
    Database(#[from] Failure),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] RecentError),
    /// What the head of the file says does not hold any more.
    #[error(
        "the log has deleted readings that the file was to contain, because the database is back"
    )]
    Gone,
    /// More than may be held in memory.
    #[error("readings in the log are too long")]
    TooLong,
}

/// Where the next page comes from.
#[derive(Debug)]
enum Stage {
    /// Both. What was found in the log last, if no page was made of it yet.
    Both(Option<Found>),
    Table,
    /// The log, of which this is promised to be whole.
    Log(Partial),
}

/// A way through readings.
pub(super) struct Source {
    state: AppState,
    relation: Relation,
    filter: TelemetryFilter,
    walk: Walk,
    /// The last reading that was passed.
    behind: Option<(i64, String)>,
    stage: Stage,
    /// Most readings that are taken from the log for a page.
    from_log: usize,
    to_skip: u64,
    left: u64,
}

impl Source {
    pub(super) fn new(
        state: &AppState,
        relation: Relation,
        filter: TelemetryFilter,
        position: Position,
        limit: Option<u64>,
    ) -> Self {
        let (to_skip, behind, from) = match position {
            Position::Offset(readings) => (readings.into(), None, Position::Offset(0)),
            Position::After(cursor) => {
                let (micros, device_id) = cursor.place();
                (0, Some((micros, device_id.to_owned())), Position::After(cursor))
            }
        };
        Self {
            state: state.clone(),
            walk: Walk::new(relation.clone(), filter.clone(), from, None),
            relation,
            filter,
            behind,
            stage: Stage::Both(None),
            from_log: FROM_LOG,
            to_skip,
            left: limit.unwrap_or(u64::MAX),
        }
    }

    /// The first page, and what may be missing in the file.
    pub(super) async fn begin(
        &mut self,
    ) -> Result<(Vec<StoredReading>, Option<Partial>), ApiError> {
        let state = self.state.clone();
        let is_doubtful = state.health.is_database_doubtful();
        let to_skip = self.to_skip;
        // However long that takes, it says nothing of the database.
        self.look().await.map_err(|fault| ApiError::internal(&fault))?;
        let failure = match patiently(&state, is_doubtful, self.next()).await {
            Ok(page) => return Ok((page, None)),
            Err(Fault::Database(failure)) => failure,
            Err(fault) => return Err(ApiError::internal(&fault)),
        };
        if !ApiError::is_outage(&failure) {
            return Err(ApiError::of_query(&state.health, &failure, "device_id"));
        }
        let found =
            self.find(LogPart::Retained).await.map_err(|fault| ApiError::internal(&fault))?;
        if !found.has_table {
            return Err(ApiError::of_query(&state.health, &failure, "device_id"));
        }
        let complete_from = state.recent.complete_from(self.relation.name(), None);
        let partial = Partial { complete_from };
        (self.stage, self.to_skip) = (Stage::Log(partial), to_skip);
        let page = self.next().await.map_err(|fault| ApiError::internal(&fault))?;
        Ok((page, Some(partial)))
    }

    /// The next page; none at the end. After a failure of the database it can be called again.
    pub(super) async fn next(&mut self) -> Result<Vec<StoredReading>, Fault> {
        loop {
            let mut page = match self.stage {
                _ if self.left == 0 => return Ok(Vec::new()),
                Stage::Table => self.state.database.walk_on(&mut self.walk).await?,
                Stage::Log(partial) => self.of_log_alone(partial).await?,
                Stage::Both(_) => match self.of_both().await? {
                    Some(page) => page,
                    None => continue,
                },
            };
            if page.is_empty() {
                return Ok(page);
            }
            let skipped = usize::try_from(self.to_skip).unwrap_or(usize::MAX).min(page.len());
            page.drain(..skipped);
            self.to_skip -= skipped as u64;
            page.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= page.len() as u64;
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    /// `None` from where on the log has nothing.
    async fn of_both(&mut self) -> Result<Option<Vec<StoredReading>>, Fault> {
        self.look().await?;
        let Stage::Both(Some(found)) = &self.stage else { return Ok(None) };
        let Some(last) = found.rows.last() else {
            self.stage = Stage::Table;
            if self.behind.is_none() {
                // The index skips faster.
                self.walk.skip(u32::try_from(self.to_skip).unwrap_or(u32::MAX));
                self.to_skip = 0;
            }
            return Ok(None);
        };
        let is_log_cut = found.rows.len() >= self.from_log;
        let since = is_log_cut.then_some(last.key.timestamp);
        let ahead = self.state.database.look_ahead(&mut self.walk, since).await?;
        let Ahead { readings, is_cut } = ahead;
        let Stage::Both(found) = &mut self.stage else { return Ok(None) };
        let rows = found.take().map(|found| found.rows).unwrap_or_default();
        let page = joined(&self.relation, (readings, is_cut), (rows, is_log_cut));
        self.pass(&page);
        Ok(Some(page))
    }

    async fn of_log_alone(&mut self, promised: Partial) -> Result<Vec<StoredReading>, Fault> {
        let found = self.find(LogPart::Retained).await?;
        if let Some(promised) = promised.complete_from {
            let is_within =
                self.behind.as_ref().is_none_or(|(micros, _)| *micros >= promised.as_micros());
            let certain = self.state.recent.complete_from(self.relation.name(), None);
            if is_within && certain.is_none_or(|certain: Timestamp| certain > promised) {
                return Err(Fault::Gone);
            }
        }
        let rows = found.rows.into_iter();
        let page: Vec<StoredReading> = rows.map(|row| as_stored(&self.relation, row)).collect();
        self.pass(&page);
        Ok(page)
    }

    fn pass(&mut self, page: &[StoredReading]) {
        let Some(last) = page.last() else { return };
        self.walk.pass(last);
        let cursor = last.cursor();
        let (micros, device_id) = cursor.place();
        self.behind = Some((micros, device_id.to_owned()));
    }

    /// Looks what the log has, unless that is known.
    async fn look(&mut self) -> Result<(), Fault> {
        if matches!(self.stage, Stage::Both(None)) {
            self.stage = Stage::Both(Some(self.find(LogPart::Pending).await?));
        }
        Ok(())
    }

    async fn find(&mut self, part: LogPart) -> Result<Found, Fault> {
        loop {
            let TelemetryFilter { device_id, start, end } = self.filter.clone();
            let ask = Ask {
                table: self.relation.name().to_owned(),
                device_id,
                start,
                end,
                behind: self.behind.clone(),
                wanted: self.from_log,
                counted: 0,
            };
            let found = self.state.recent.find_all(ask, part).await?;
            if found.unread.is_none() {
                return Ok(found);
            }
            // Shorter pages take less.
            if self.from_log == FEWEST_FROM_LOG {
                return Err(Fault::TooLong);
            }
            self.from_log = (self.from_log / 4).max(FEWEST_FROM_LOG);
        }
    }
}
