//! Whether the database is still the one that has what it confirmed, and has not gone back in time.
//!
//! A replica that lagged is promoted, a backup is restored, a server that does not sync crashes: what was
//! confirmed last is gone, and nothing says so. So it is looked at on each new connection, and every few
//! seconds because a pooler may change servers behind a connection, which server and which database that is,
//! on which timeline, and how far its own log has come. What differs from what was found before is reason
//! enough to send again what the flusher's log still has: a row too many is no harm, a row too few is.
//!
//! That alone does not tell of a server that was started again after a crash, or from an old image of its
//! disk: a few of the rows that were confirmed last are looked for in the table then.
//!
//! What was found is remembered in a file for the next process. It is written once the database has all that
//! there is to be sent again and not before, so a process that ends early leaves the next one to find out once
//! more; and so does a file that is lost or damaged.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use identity::{Change, Identity, QUESTIONS};
use sqlx::postgres::PgRow;

use super::failure::Failure;
use super::keys::Keys;
use super::limits::LOOK_LIMIT;
use super::queries::Tables;
use super::session::Session;
use super::spread::Spread;
use crate::flusher::sink::LOOKED_WITHIN;
use crate::telemetry::Record;

mod identity;

/// The file's name in the directory that is given.
const NAME: &str = "database.json";

/// That the server's log has grown is written down so seldom.
const WRITE_AFTER: Duration = Duration::from_secs(60);

/// Rows of a batch that are looked for after a restart of the server.
const SAMPLES: usize = 8;

const IS_PARTITION: &str = "
    select exists (
        select from pg_inherits
        where inhrelid::bigint = $1 and inhparent = to_regclass('telemetry')
    )";

/// See the module. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Lineage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: Option<PathBuf>,
    /// Batches that may be confirmed in another order than they were committed in.
    in_flight: usize,
    known: Mutex<LineageState>,
}

/// Moments are those of the clock's monotonic time.
#[derive(Debug)]
struct LineageState {
    /// The database that has what was confirmed.
    trusted: Option<Identity>,
    /// Another one, which has it when what was flushed is sent again.
    found: Option<Identity>,
    /// Whether `trusted` still lacks some of that.
    is_behind: bool,
    looked: Option<Duration>,
    written: Option<Duration>,
    /// Which of the questions is answered.
    question: usize,
    /// Keys of rows that were confirmed last, for each batch.
    last: VecDeque<Vec<Key>>,
    /// Of rows that were flushed last by an earlier process, as long as this one has no others.
    before: Vec<Key>,
}

/// A look that has begun.
pub(super) struct Look {
    began: Duration,
    /// As it was before the question: another's answer may overtake this one's.
    trusted: Option<Identity>,
}

/// The table first.
type Key = (String, String, DateTime<Utc>);

fn key(row: &Record) -> Key {
    (row.table().to_owned(), row.device_id().to_owned(), row.timestamp().into())
}

impl Lineage {
    /// Remembered in `dir`, if there is one, by an earlier process; `in_flight` is how many batches there are
    /// at once.
    pub(super) fn new(dir: Option<&Path>, in_flight: usize) -> Self {
        let file = dir.map(|dir| dir.join(NAME));
        let known = LineageState {
            trusted: file.as_deref().and_then(read),
            found: None,
            is_behind: false,
            looked: None,
            written: None,
            question: 0,
            last: VecDeque::new(),
            before: Vec::new(),
        };
        Self(Arc::new(Shared { file, in_flight, known: Mutex::new(known) }))
    }

    /// Whether to look by way of a session that `is_new`, or because nobody has for a while.
    pub(super) fn begin_if_due(&self, is_new: bool, now: Duration) -> Option<Look> {
        let is_due = |looked: Duration| now.saturating_sub(looked) >= LOOKED_WITHIN / 2;
        let known = self.lock();
        let is_due = is_new || known.looked.is_none_or(is_due);
        is_due.then(|| Look { began: now, trusted: known.trusted.clone() })
    }

    /// What to ask for that; none if the server says nothing at all.
    pub(super) fn question(&self) -> Option<String> {
        QUESTIONS.get(self.lock().question).map(identity::question)
    }

    /// The server has refused to answer all of that.
    pub(super) fn ask_for_less(&self, failure: &Failure) {
        tracing::debug!(%failure, "the database does not say which one it is: asking for less");
        self.lock().question += 1;
    }

    /// Takes the row in that was answered, and looks further by way of `session` if that does not tell
    /// enough. A standby takes no rows anyway.
    ///
    /// # Errors
    /// [`Failure::WentBack`] until [`Self::accept`] if the database may lack what it confirmed; others as of
    /// any question.
    pub(super) async fn judge(
        &self,
        Look { began, trusted }: Look,
        answer: &PgRow,
        session: &mut Session,
        tables: &Tables,
    ) -> Result<(), Failure> {
        let Some(mut identity) = identity::read(answer).map_err(Failure::of_statement)? else {
            return Ok(());
        };
        let mut change = match &trusted {
            Some(trusted) => trusted.change(&identity),
            None => Some(Change::Unknown),
        };
        if change.is_none()
            && let Some(table) = trusted.as_ref().and_then(|trusted| trusted.table)
            && identity.table != Some(table)
        {
            if identity.table.is_none() {
                // No row goes anywhere until there is one.
                identity.table = Some(table);
            } else if !is_partition(session, table).await? {
                change = Some(Change::Table);
            }
        }
        if change == Some(Change::Restarted) {
            change = self.lacks_last(session, tables).await?.then_some(Change::Crashed);
        }
        self.conclude(identity, change, began)
    }

    /// What follows from a look that began at that time.
    fn conclude(
        &self,
        mut identity: Identity,
        change: Option<Change>,
        began: Duration,
    ) -> Result<(), Failure> {
        let mut known = self.lock();
        match change {
            None => {
                known.looked = Some(began);
                let before = known.trusted.as_ref().and_then(|trusted| trusted.log_position);
                identity.log_position = identity.log_position.max(before);
                let is_old = |at| began.saturating_sub(at) >= WRITE_AFTER;
                let is_old = known.written.is_none_or(is_old);
                let has_moved = Some(&identity) != known.trusted.as_ref();
                let is_other =
                    known.trusted.as_ref().is_none_or(|trusted| !trusted.is_like(&identity));
                known.trusted = Some(identity);
                if !known.is_behind && (is_other || (has_moved && is_old)) {
                    self.write(&mut known, began);
                }
                Ok(())
            }
            Some(change) => {
                known.looked = None;
                known.found = Some(identity);
                Err(Failure::WentBack { reason: change.to_string() })
            }
        }
    }

    /// The database that was found counts from now on; whether another did until now.
    pub(super) fn accept(&self) -> bool {
        let mut known = self.lock();
        let Some(found) = known.found.take() else { return false };
        known.is_behind = true;
        known.last.clear();
        known.before.clear();
        known.trusted.replace(found).is_some()
    }

    /// It has everything.
    pub(super) fn remember(&self, now: Duration) {
        let mut known = self.lock();
        known.is_behind = false;
        self.write(&mut known, now);
    }

    /// These rows were flushed last by an earlier process, in this order. Some may be letters.
    pub(super) fn expect<'r>(&self, rows: impl Iterator<Item = &'r Record>) {
        self.lock().before = rows.map(key).collect();
    }

    /// These rows were confirmed.
    pub(super) fn confirmed(&self, rows: &[&Record]) {
        let step = rows.len().div_ceil(SAMPLES).max(1);
        let samples = rows.iter().rev().step_by(step);
        let keys = samples.map(|row| key(row)).collect();
        let mut known = self.lock();
        known.before.clear();
        if known.last.len() >= self.0.in_flight {
            known.last.pop_front();
        }
        known.last.push_back(keys);
    }

    /// Whether rows that were confirmed last are not in the table.
    async fn lacks_last(&self, session: &mut Session, tables: &Tables) -> Result<bool, Failure> {
        let (last, before) = {
            let known = self.lock();
            (known.last.iter().flatten().cloned().collect::<Vec<_>>(), known.before.clone())
        };
        if !last.is_empty() {
            return Ok(!missing(session, tables, last).await?.is_empty());
        }
        let count = before.len();
        Ok(count > 0 && is_more_than_letters(&missing(session, tables, before).await?, count))
    }

    fn write(&self, known: &mut LineageState, now: Duration) {
        known.written = Some(now);
        let (Some(file), Some(identity)) = (&self.0.file, &known.trusted) else { return };
        let new = file.with_extension("new");
        let text = serde_json::to_vec(identity).unwrap_or_default();
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, file)) {
            tracing::debug!(%error, file = %file.display(), "which database has what was confirmed is not written down: the next process sends again what is still in the log");
        }
    }

    fn lock(&self) -> MutexGuard<'_, LineageState> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an earlier process has left, unless it is damaged.
fn read(file: &Path) -> Option<Identity> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Numbers of the keys that are not in their tables, from 1, in their order.
async fn missing(
    session: &mut Session,
    tables: &Tables,
    keys: Vec<Key>,
) -> Result<Vec<i64>, Failure> {
    let mut missing = Vec::new();
    let names: BTreeSet<&str> = keys.iter().map(|(table, ..)| table.as_str()).collect();
    for table in names {
        let of_table = (1_i64..).zip(&keys).filter(|(_, (of, ..))| of == table);
        let of_table = of_table.map(|(number, (_, device_id, at))| (number, device_id, *at));
        missing.extend(missing_of(session, table, &tables.spread(table), of_table).await?);
    }
    missing.sort_unstable();
    Ok(missing)
}

/// The same of one table.
async fn missing_of(
    session: &mut Session,
    table: &str,
    spread: &Spread,
    keys: impl Iterator<Item = (i64, &String, DateTime<Utc>)>,
) -> Result<Vec<i64>, Failure> {
    let mut numbers = Vec::new();
    let mut device_ids = Vec::new();
    let mut times = Vec::new();
    for (number, device_id, at) in keys {
        numbers.push(number);
        device_ids.push(device_id.as_str());
        times.push(at);
    }
    session.begin(LOOK_LIMIT).await?;
    let keys = Keys { device_ids: &device_ids, times: &times };
    let was_known = spread.is_known();
    let mut missing = keys.missing(session, table, was_known).await;
    if spread.learn_from(was_known, &missing) {
        session.abandon().await?;
        session.begin(LOOK_LIMIT).await?;
        missing = keys.missing(session, table, true).await;
    }
    match missing {
        Ok(missing) => {
            session.end().await?;
            let number = |at: i64| numbers.get(usize::try_from(at - 1).ok()?).copied();
            Ok(missing.into_iter().filter_map(number).collect())
        }
        // There is no such table any more, or not one that can be read.
        Err(failure) if failure.is_of_statement() => session.abandon().await.map(|()| numbers),
        Err(failure) => Err(failure),
    }
}

/// Whether those that are missing of `count` rows, by their numbers, are likely to have been there: the last
/// of all, or many in a row. Rows that were refused are letters, and here and there.
fn is_more_than_letters(missing: &[i64], count: usize) -> bool {
    const LAST: usize = 3;
    const IN_A_ROW: usize = 16;
    let runs = missing.chunk_by(|a, b| a + 1 == *b);
    let last_of_all = i64::try_from(count).unwrap_or(i64::MAX);
    let is_loss = |run: &[i64]| {
        let is_at_end = run.last() == Some(&last_of_all);
        run.len() >= IN_A_ROW || (is_at_end && run.len() >= LAST.min(count))
    };
    runs.into_iter().any(is_loss)
}

/// Whether the table of this number has become a partition of the one that there is now.
async fn is_partition(session: &mut Session, table: i64) -> Result<bool, Failure> {
    session.begin(LOOK_LIMIT).await?;
    let is_partition = sqlx::query_scalar(IS_PARTITION)
        .persistent(false)
        .bind(table)
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    session.end().await?;
    Ok(is_partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(log_position: i64) -> Identity {
        Identity {
            system: Some("7".to_owned()),
            timeline: Some("00000001".to_owned()),
            log_position: Some(log_position),
            started: Some(5),
            database: Some(16_384),
            table: Some(16_390),
        }
    }

    #[test]
    fn it_is_looked_at_on_each_new_connection_and_again_before_a_look_is_too_old() {
        let lineage = Lineage::new(None, 1);
        let is_due = |is_new, at| lineage.begin_if_due(is_new, at).is_some();
        let began = Duration::from_secs(10);
        assert!(is_due(false, began));
        lineage.conclude(identity(1_000), None, began).unwrap();
        let over = began + LOOKED_WITHIN / 2;
        assert!(!is_due(false, over.saturating_sub(Duration::from_millis(1))));
        assert!(is_due(true, began));
        assert!(is_due(false, over));
        // As long as it is not accepted, each way to it is asked.
        let found = lineage.conclude(identity(999), Some(Change::LogPosition), began);
        assert!(matches!(found, Err(Failure::WentBack { .. })));
        assert!(is_due(false, began));
    }

    #[test]
    fn that_the_log_has_grown_is_written_once_a_minute_and_another_database_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let lineage = Lineage::new(Some(dir.path()), 1);
        let written = || read(&dir.path().join(NAME)).unwrap();
        let look = |identity, seconds| {
            lineage.conclude(identity, None, Duration::from_secs(seconds)).unwrap();
        };
        look(identity(1_000), 0);
        assert_eq!(written(), identity(1_000));
        look(identity(2_000), 59);
        assert_eq!(written(), identity(1_000));
        look(identity(3_000), 60);
        assert_eq!(written(), identity(3_000));
        let restarted = Identity { started: Some(6), ..identity(3_000) };
        look(restarted.clone(), 61);
        assert_eq!(written(), restarted);
    }

    #[test]
    fn rows_that_are_missing_here_and_there_are_letters_and_the_last_of_all_are_a_loss() {
        assert!(!is_more_than_letters(&[], 100));
        assert!(!is_more_than_letters(&[3, 50, 51, 52, 99, 100], 100));
        assert!(is_more_than_letters(&[3, 98, 99, 100], 100));
        assert!(is_more_than_letters(&(40..60).collect::<Vec<_>>(), 100));
        assert!(is_more_than_letters(&[1], 1));
    }
}
