//! The latest reading of all devices that match, of table and log, as pages have them.
//!
//! By name they are read page by page. What waits in the log is looked up once, at the beginning: a device of
//! which something waits has its last value, and one that the table does not have yet comes in its place. By
//! age, their order changes all the time, and all come at once. While the database does not answer, and where
//! it is asked which are silent, the last values that the service keeps are the file.

use std::collections::{HashMap, HashSet};

use super::file::File;
use super::format::Format;
use super::rows::Rows;
use super::sending::{BrokenOff, finish};
use super::turns::{Turn, Turns};
use crate::http::device_page;
use crate::http::error::ApiError;
use crate::http::exchange::{Download, Exchange, Pieces};
use crate::http::query::{Parameters, bad};
use crate::http::remembered::{self, Asked, Remembered};
use crate::http::selection::Selection;
use crate::http::state::AppState;
use crate::http::together::{self, Partial, patiently};
use crate::postgres::{DeviceFilter, DevicePage, Failure, Relation, StoredReading};
use crate::recent::LogRow;

/// Devices that are asked for at once.
const PAGE: u32 = 1_000;

/// Devices that are put in the order of their age, which takes all of them at once.
const MOST_BY_AGE: u32 = 20_000;

/// Answers with what `parameters` ask for, as a file.
pub(in crate::http) async fn devices(
    state: &AppState,
    exchange: &Exchange,
    turns: &Turns,
    format: Format,
    parameters: &Parameters,
) -> Result<Box<File>, ApiError> {
    let limit = parameters.number("limit", 1..=u32::MAX)?.unwrap_or(u32::MAX);
    let offset = parameters.offset()?;
    let filter = DeviceFilter {
        name_contains: parameters.device_name("name_contains")?,
        newest_first: parameters.flag("newest_first")?.unwrap_or(false),
    };
    let silent = parameters.flag("silent")?;
    remembered::check(state, silent)?;
    let Selection { relation, shown } = Selection::read(state, parameters).await?;
    let rows = Rows::new(format, "last_seen", shown);
    let name = match relation.name() {
        "telemetry" => "devices".to_owned(),
        table => format!("devices-{table}"),
    };
    let turn = turns.take()?;
    let asked = Asked { relation, filter, silent, offset, limit };
    let (source, partial) = Source::find(state, asked, &turn).await?;
    exchange.answer_with(Download::start(move |pieces| async move {
        let outcome = send(&pieces, &rows, source, &turn).await;
        finish(pieces, outcome, "devices").await;
    }));
    Ok(File::new(format, &name, partial))
}

async fn send(
    pieces: &Pieces,
    rows: &Rows,
    mut source: Source,
    turn: &Turn,
) -> Result<(), BrokenOff> {
    pieces.send(rows.header()?).await?;
    loop {
        let page = source.next(turn).await;
        let page = page.map_err(|failure| BrokenOff::Failed(failure.to_string()))?;
        let Some(page) = page else { return Ok(()) };
        for piece in rows.pieces(page) {
            pieces.send(piece?).await?;
        }
    }
}

/// Where devices come from.
enum Source {
    ByName(Box<ByName>),
    /// Those that come at once.
    Found(Vec<StoredReading>),
    /// And how many of them were sent.
    Remembered(Remembered, usize),
}

impl Source {
    /// Finds the first, and what may be missing.
    async fn find(
        state: &AppState,
        asked: Asked,
        turn: &Turn,
    ) -> Result<(Self, Option<Partial>), ApiError> {
        if asked.silent.is_some() {
            return Self::remembered(state, &asked).await;
        }
        let _query = turn.query().await;
        if asked.filter.newest_first {
            return Self::by_age(state, asked).await;
        }
        let is_doubtful = state.health.is_database_doubtful();
        let table = asked.relation.name();
        let waiting = state.recent.waiting(table, |name| asked.filter.matches(name)).await;
        let (waiting, is_all) = waiting.map_err(|error| ApiError::internal(&error))?;
        let waiting = waiting.into_iter().map(|row| (row.key.device_id.to_string(), row));
        let mut source = ByName::new(state, &asked, waiting.collect());
        match patiently(state, is_doubtful, source.begin()).await {
            Ok(()) => {
                let partial = (!is_all).then_some(Partial { complete_from: None });
                Ok((Self::ByName(Box::new(source)), partial))
            }
            Err(failure) if ApiError::is_outage(&failure) => {
                let found = Self::remembered(state, &asked).await?;
                match found {
                    (Self::Remembered(none, _), _) if none.total == 0 => {
                        Err(ApiError::of_query(&state.health, &failure, "name_contains"))
                    }
                    found => Ok(found),
                }
            }
            Err(failure) => Err(ApiError::of_query(&state.health, &failure, "name_contains")),
        }
    }

    async fn remembered(
        state: &AppState,
        asked: &Asked,
    ) -> Result<(Self, Option<Partial>), ApiError> {
        let found = remembered::find(state, asked).await?;
        let partial = found.partial;
        Ok((Self::Remembered(found, 0), partial))
    }

    async fn by_age(state: &AppState, asked: Asked) -> Result<(Self, Option<Partial>), ApiError> {
        let most = asked.limit.min(MOST_BY_AGE);
        let is_whole = asked.limit > MOST_BY_AGE;
        let asked = Asked { limit: most, ..asked };
        let page = device_page::page(state, &asked).await?;
        if is_whole && page.total.rows > u64::from(asked.offset) + u64::from(most) {
            let problem = format!(
                "allows at most {most} devices in a file, and more match; set `limit` to {most} or less, or omit `newest_first`"
            );
            return Err(bad("newest_first", &problem));
        }
        let latest = page.latest.into_iter().map(|(latest, _)| latest).collect();
        Ok((Self::Found(latest), page.partial))
    }

    /// The next page, which may have no device.
    async fn next(&mut self, turn: &Turn) -> Result<Option<Vec<StoredReading>>, Failure> {
        match self {
            Self::ByName(source) => source.next(turn).await,
            Self::Found(latest) if latest.is_empty() => Ok(None),
            Self::Found(latest) => Ok(Some(std::mem::take(latest))),
            Self::Remembered(found, sent) if *sent >= found.len() => Ok(None),
            Self::Remembered(found, sent) => {
                let page = found.rows(*sent, PAGE as usize).map(|device| device.latest).collect();
                *sent += PAGE as usize;
                Ok(Some(page))
            }
        }
    }
}

/// A way through the devices by name.
struct ByName {
    state: AppState,
    relation: Relation,
    filter: DeviceFilter,
    /// The devices of which something waits, as their last values.
    waiting: HashMap<String, LogRow>,
    /// Those of them that the table does not have, and that did not come yet.
    new: HashSet<String>,
    /// Names of the table that were passed.
    passed: u32,
    to_skip: usize,
    left: usize,
    is_last: bool,
    /// Names of the page before: one that is new in the table moves those behind it, and the last ones come
    /// again.
    sent: HashSet<String>,
    first: Option<Vec<StoredReading>>,
}

impl ByName {
    fn new(state: &AppState, asked: &Asked, waiting: HashMap<String, LogRow>) -> Self {
        Self {
            state: state.clone(),
            relation: asked.relation.clone(),
            filter: asked.filter.clone(),
            waiting,
            new: HashSet::new(),
            passed: 0,
            to_skip: asked.offset as usize,
            left: asked.limit as usize,
            is_last: false,
            sent: HashSet::new(),
            first: None,
        }
    }

    /// Reads the first page.
    async fn begin(&mut self) -> Result<(), Failure> {
        if !self.waiting.is_empty() {
            let names: Vec<&str> = self.waiting.keys().map(String::as_str).collect();
            let has = self.state.database.has_devices(&self.relation, &names).await?;
            let new = names.iter().zip(has).filter(|(_, has)| !has);
            self.new = new.map(|(name, _)| (*name).to_owned()).collect();
        }
        if self.new.is_empty() {
            // The table skips faster.
            self.passed = u32::try_from(self.to_skip).unwrap_or(u32::MAX);
            self.to_skip = 0;
        }
        self.first = Some(self.read().await?);
        Ok(())
    }

    async fn next(&mut self, turn: &Turn) -> Result<Option<Vec<StoredReading>>, Failure> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.is_last || self.left == 0 {
            return Ok(None);
        }
        let _query = turn.query().await;
        self.read().await.map(Some)
    }

    async fn read(&mut self) -> Result<Vec<StoredReading>, Failure> {
        let database = &self.state.database;
        let size = PAGE.min(u32::try_from(self.left.saturating_add(self.to_skip)).unwrap_or(PAGE));
        let DevicePage { latest, mut names, passed, .. } =
            database.devices(&self.relation, &self.filter, self.passed, size).await?;
        let is_last = passed < size;
        let end = names.last().cloned();
        if !self.new.is_empty() {
            let known: HashSet<&String> = names.iter().collect();
            let new = self.new.iter().filter(|name| !known.contains(name));
            let new: Vec<String> = new.cloned().collect();
            names.extend(new);
            names = database.in_order(&self.relation, &names).await?;
            if !is_last {
                let end = names.iter().position(|name| Some(name) == end.as_ref());
                names.truncate(end.map_or(0, |end| end + 1));
            }
        }
        self.is_last = is_last;
        self.passed = self.passed.saturating_add(passed);
        let sent = std::mem::replace(&mut self.sent, names.iter().cloned().collect());
        names.retain(|name| !sent.contains(name));
        for name in &names {
            self.new.remove(name);
        }
        let skipped = self.to_skip.min(names.len());
        names.drain(..skipped);
        self.to_skip -= skipped;
        names.truncate(self.left);
        self.left -= names.len();
        let mut latest: HashMap<String, StoredReading> =
            latest.into_iter().map(|reading| (reading.device_id.clone(), reading)).collect();
        let mut reading = |name: String| {
            together::latest(&self.relation, latest.remove(&name), self.waiting.remove(&name))
        };
        Ok(names.into_iter().filter_map(&mut reading).collect())
    }
}
