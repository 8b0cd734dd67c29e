//! Writing a batch, once or as often as it takes.
//!
//! Somebody may drop the unique key, without which rows that are sent again would be doubled, while rows come
//! in. It is not enough to look for that now and then: each statement checks it for itself. The careful one
//! names the key as what decides of a conflict, and is refused without. The fast one inserts nothing if the
//! index of the number that was found when the connection was looked at is not there, or not valid, in the
//! snapshot that it inserts by; to drop one takes a lock that waits for statements under way.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use sqlx::postgres::types::Oid;

use super::durability::DURABLY;
use super::failure::{Failure, within};
use super::mapped::{Batch, TableRows};
use super::session::{Scope, Session};
use super::written::Written;
use super::{Database, registry, table};
use crate::flusher::sink::{Refusal, Sink, SinkError, Stored};
use crate::telemetry::fields::COUNT;
use crate::telemetry::mapping::BUILT_IN_TABLE;
use crate::telemetry::{Reading, Record};

/// Fails with a unique violation if a row is there already, and stores none if the unique key is gone that
/// would say so: somebody may drop it at any time.
///
/// The log is trimmed on the word of a commit, so a commit must mean the disk. That is said in the
/// statement itself, since it then holds in the statement's own transaction, whatever the role, a
/// pooler or a reload say: a query of its own in the condition is run once, before any row.
static INSERT_NEW: LazyLock<String> = LazyLock::new(|| {
    let key = COUNT + 3;
    format!(
        "{}\n        and exists (select from pg_index where indexrelid = ${key} and indisvalid)",
        *INSERT
    )
});

/// Passes over rows that are there already. It looks for each row before it inserts it, and
/// announces and confirms it, which costs a quarter of PostgreSQL's time.
static INSERT_MISSING: LazyLock<String> =
    LazyLock::new(|| format!("{}\n    on conflict (device_id, ts) do nothing", *INSERT));

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let columns = table::columns();
    let number = |at: usize| format!(", ${}::float8[]", at + 3);
    let numbers: String = (0..COUNT).map(number).collect();
    format!(
        "
    insert into telemetry ({columns})
    select {columns}
    from unnest($1::text[], $2::timestamptz[]{numbers})
        as batch ({columns})
    where (select {DURABLY}) is not null"
    )
});

/// So that PostgreSQL gives up first, and says why.
const GRACE: Duration = Duration::from_secs(2);

impl Sink for Database {
    fn patience(&self) -> Duration {
        self.patience
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        self.prepare_schema().await.map_err(SinkError::from)
    }

    async fn ping(&self) -> Result<(), SinkError> {
        Self::ping(self).await.map_err(SinkError::from)
    }

    fn accept(&self) {
        let had_another = self.lineage.accept();
        self.registry.forget();
        if had_another {
            self.writes.forget_idle();
            self.queries.forget_idle();
        }
    }

    fn remember(&self) {
        self.lineage.remember();
    }

    /// One statement: all rows are committed, or none. Where duplicates are expected it passes over
    /// them. Else it takes the rows for new, which is faster; if one is not, nothing is written, and
    /// the careful statement follows.
    ///
    /// Rows go in by the order of the unique key, so two batches in flight take its locks in the
    /// same order and cannot deadlock. Cancellation-safe in the sense that a batch whose future
    /// was dropped may or may not have been written, and can be sent again.
    async fn insert(&self, rows: &[&Record], limit: Duration) -> Result<Stored, SinkError> {
        if rows.is_empty() {
            return Ok(Stored::default());
        }
        let built_in = || rows.iter().map(|row| row.built_in()).collect::<Option<Vec<&Reading>>>();
        let stored = match if self.mapped.is_partial() { None } else { built_in() } {
            Some(rows) => self.insert_built_in(&rows, limit).await,
            None => self.insert_mapped(rows, limit).await,
        };
        let stored = stored?;
        if stored.swallowed.is_empty() {
            self.lineage.confirmed(rows);
        }
        Ok(stored)
    }
}

/// What is written at once.
enum Work<'b, 'r> {
    BuiltIn(&'b Columns<'r>),
    Tables(&'b Batch<'r>),
}

impl<'r> Work<'_, 'r> {
    /// Of rows of `telemetry`, in the order of the key.
    fn device_ids(&self) -> &[&'r str] {
        match self {
            Self::BuiltIn(columns) => &columns.device_ids,
            Self::Tables(batch) => batch.device_ids(),
        }
    }

    /// When rows of `telemetry` were measured, since the Unix epoch.
    fn micros(&self) -> Vec<i64> {
        let timestamps = match self {
            Self::BuiltIn(columns) => &columns.timestamps,
            Self::Tables(batch) => batch.timestamps(),
        };
        timestamps.iter().map(DateTime::timestamp_micros).collect()
    }

    /// What its statements share.
    fn scope(&self) -> Scope {
        match self {
            Self::BuiltIn(_) => Scope::Statement,
            Self::Tables(batch) => batch.scope(),
        }
    }
}

impl Database {
    async fn insert_built_in(&self, rows: &[&Reading], limit: Duration) -> Result<Stored, Failure> {
        let batch = Columns::of(rows);
        let written = self.write_with_partitions(&Work::BuiltIn(&batch), limit).await;
        let Written { inserted, swallowed, .. } =
            written.inspect_err(|_| self.duplicates.expect())?;
        let swallowed = batch.indices(&swallowed, rows);
        let passed_over = (rows.len() as u64).saturating_sub(inserted);
        let duplicates = passed_over.saturating_sub(swallowed.len() as u64);
        Ok(Stored { inserted, duplicates, merged: 0, swallowed })
    }

    /// Rows of several tables, or shapes; one statement a table, or two.
    async fn insert_mapped(&self, rows: &[&Record], limit: Duration) -> Result<Stored, Failure> {
        let tables = TableRows::of(rows);
        let known = self.known_for(&tables).await?;
        let batch = Batch::new(tables, known).map_err(Failure::Refused)?;
        let written = match self.write_with_partitions(&Work::Tables(&batch), limit).await {
            Ok(written) => written,
            Err(Failure::Refused(refusal)) => {
                batch.expect_duplicates();
                let is_tables = refusal.is_tables || batch.was_refused_by_table();
                return Err(Failure::Refused(Refusal { is_tables, ..refusal }));
            }
            Err(failure) => {
                self.mapped.forget();
                return Err(failure.while_filling());
            }
        };
        if batch.was_stored_without(&written.swallowed) {
            // What was stored beside them is found there when it is sent again.
            batch.expect_duplicates();
            return Err(Failure::Refused(Refusal { is_tables: true, ..Refusal::swallowed() }));
        }
        let swallowed = batch.origins(&written.swallowed);
        let merged = written.merged + batch.merged(&written.swallowed);
        let stored = written.inserted + merged + swallowed.len() as u64;
        let duplicates = (rows.len() as u64).saturating_sub(stored);
        Ok(Stored { inserted: written.inserted, duplicates, merged, swallowed })
    }

    /// Once more if all that was missing is a partition.
    async fn write_with_partitions(
        &self,
        work: &Work<'_, '_>,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let mut written = self.write_durably(work, limit).await;
        if let Err(Failure::Refused(refusal)) = &written
            && refusal.lacks_partition()
            && self.make_partitions_for(&work.micros()).await
        {
            written = self.write_durably(work, limit).await;
        }
        written
    }

    async fn write_durably(
        &self,
        work: &Work<'_, '_>,
        limit: Duration,
    ) -> Result<Written, Failure> {
        // Bounded in itself, by the time for connecting.
        let mut lease = self.writes.lease().await?;
        let session = lease.session();
        let patience = limit + session.allowance(GRACE);
        let outcome = within(patience, async {
            self.look(session).await.map_err(Failure::while_looking)?;
            let names = self.names_to_insert(work.device_ids());
            let mut outcome = self.write_with_names(work, &names, session, limit).await;
            match &outcome {
                Ok(_) => self.registry.learn(&names),
                Err(Unwritten::Names(failure)) => {
                    let failure = failure.clone();
                    session.abandon().await?;
                    outcome = self.write_with_names(work, &[], session, limit).await;
                    if outcome.is_ok() {
                        self.registry.set_aside(&failure);
                        self.tasks.set_lacks_names();
                    }
                }
                Err(Unwritten::Rows(_)) => {}
            }
            // A refusal leaves the connection in order, and the halves of the batch follow.
            if matches!(outcome, Err(Unwritten::Rows(Failure::Refused(_)))) {
                session.abandon().await?;
            }
            session.set_scope(Scope::Statement);
            outcome.map_err(|(Unwritten::Rows(failure) | Unwritten::Names(failure))| failure)
        })
        .await;
        if !matches!(outcome, Ok(_) | Err(Failure::Refused(_))) {
            // It may be another server that answers next, or an older state of this one.
            self.registry.forget();
        }
        match &outcome {
            // The database that was found is asked anew before it gets rows by this way.
            Err(Failure::WentBack { .. }) => lease.keep_as_new(),
            // What a rule has done away with PostgreSQL goes on doing away with where it was prepared,
            // also when the rule is gone.
            Ok(written) if !written.swallowed.is_empty() => {}
            Ok(_) | Err(Failure::Refused(_)) => lease.keep(),
            Err(_) => {}
        }
        outcome
    }

    /// The names of its devices that the list may lack.
    fn names_to_insert<'r>(&self, device_ids: &[&'r str]) -> Vec<&'r str> {
        let names = self.registry.unknown(device_ids);
        if !names.is_empty() && self.registry.is_set_aside() {
            self.tasks.set_lacks_names();
            return Vec::new();
        }
        names
    }

    /// Commits what it writes. Leaves it to the caller to take back what it does not.
    async fn write_with_names(
        &self,
        work: &Work<'_, '_>,
        names: &[&str],
        session: &mut Session,
        limit: Duration,
    ) -> Result<Written, Unwritten> {
        let scope = if names.is_empty() { work.scope() } else { Scope::Transaction };
        session.set_scope(scope);
        session.begin(limit).await.map_err(Unwritten::Rows)?;
        let written = match work {
            Work::BuiltIn(columns) => self.write(columns, session, limit).await,
            Work::Tables(batch) => batch.write(session, limit).await,
        };
        let written = written.map_err(Unwritten::Rows)?;
        if names.is_empty() {
            session.end().await.map_err(Unwritten::Rows)?;
        } else {
            registry::insert_and_commit(session, names).await.map_err(|failure| match failure {
                // Nothing is known of either.
                Failure::Unavailable { sqlstate: None, .. } => Unwritten::Rows(failure),
                failure => Unwritten::Names(failure),
            })?;
        }
        Ok(written)
    }

    async fn write(
        &self,
        batch: &Columns<'_>,
        session: &mut Session,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let all = batch.device_ids.len() as u64;
        let key = self.durability.key().filter(|_| !self.duplicates.are_expected());
        if let Some(key) = key {
            match batch.execute(&INSERT_NEW, Some(key), session).await {
                Err(failure) if failure.is_unique_violation() => {
                    session.abandon().await?;
                    session.begin(limit).await?;
                }
                // All are swallowed, or the key is gone.
                Ok(0) => self.durability.ask_soon(),
                Ok(inserted) if inserted < all => {
                    return batch.look_for_rest(inserted, session).await;
                }
                outcome => return outcome.map(Written::all),
            }
        }
        let inserted = batch.execute(&INSERT_MISSING, None, session).await?;
        self.duplicates.note(all - inserted);
        if inserted < all {
            return batch.look_for_rest(inserted, session).await;
        }
        Ok(Written::all(inserted))
    }
}

/// What was not written.
enum Unwritten {
    Rows(Failure),
    /// The rows were, and were taken back with the names, or for another reason: without, they go in or tell.
    Names(Failure),
}

/// A batch turned on its side, as `unnest` takes it. It would fill a shorter column up with
/// nulls; here they are of one length, because a reading is pushed to all of them at once.
struct Columns<'r> {
    device_ids: Vec<&'r str>,
    timestamps: Vec<DateTime<Utc>>,
    /// A column for each field.
    values: [Vec<f64>; COUNT],
}

impl<'r> Columns<'r> {
    /// Runs one of the statements; how many rows it has inserted.
    async fn execute(
        &self,
        statement: &'static str,
        key: Option<Oid>,
        session: &mut Session,
    ) -> Result<u64, Failure> {
        let mut query = sqlx::query(statement)
            .persistent(session.keeps_statements())
            .bind(&self.device_ids)
            .bind(&self.timestamps);
        for column in &self.values {
            query = query.bind(column);
        }
        if let Some(key) = key {
            query = query.bind(key);
        }
        query
            .execute(session.connection())
            .await
            .map(|done| done.rows_affected())
            .map_err(Failure::of_statement)
    }

    /// Some rows were passed over, and no error said so: those that are not in the table were swallowed by a
    /// trigger, a rule or a policy.
    async fn look_for_rest(
        &self,
        inserted: u64,
        session: &mut Session,
    ) -> Result<Written, Failure> {
        let swallowed = sqlx::query_scalar(AssertSqlSafe(table::missing_keys(BUILT_IN_TABLE)))
            .persistent(session.keeps_statements())
            .bind(&self.device_ids)
            .bind(&self.timestamps)
            .fetch_all(session.connection())
            .await
            .map_err(|error| Failure::of_statement(error).while_looking())?;
        Ok(Written { inserted, swallowed, ..Written::default() })
    }

    /// Which of `rows` have the keys with these numbers, from 1, by the order of the key.
    fn indices(&self, numbers: &[i64], rows: &[&Reading]) -> Vec<usize> {
        if numbers.is_empty() {
            return Vec::new();
        }
        let key = |number: &i64| {
            let at = usize::try_from(*number - 1).ok()?;
            Some((*self.device_ids.get(at)?, *self.timestamps.get(at)?))
        };
        let keys: HashSet<(&str, DateTime<Utc>)> = numbers.iter().filter_map(key).collect();
        let is_swallowed = |row: &Reading| keys.contains(&(&row.device_id, row.timestamp.into()));
        (0..rows.len()).filter(|index| is_swallowed(rows[*index])).collect()
    }

    fn of(readings: &[&'r Reading]) -> Self {
        let mut rows = readings.to_vec();
        // Stable, so that the first of two with the same key stays first.
        rows.sort_by(|a, b| (&a.device_id, a.timestamp).cmp(&(&b.device_id, b.timestamp)));
        let mut columns = Self {
            device_ids: Vec::with_capacity(rows.len()),
            timestamps: Vec::with_capacity(rows.len()),
            values: std::array::from_fn(|_| Vec::with_capacity(rows.len())),
        };
        for row in rows {
            columns.device_ids.push(&row.device_id);
            columns.timestamps.push(row.timestamp.into());
            for (column, value) in columns.values.iter_mut().zip(row.values) {
                column.push(value);
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;

    fn reading(device_id: &str, millis: i64, temperature: f64) -> Reading {
        Reading {
            device_id: device_id.to_owned(),
            timestamp: Timestamp::from_millis(millis).unwrap(),
            values: [temperature, 0.0, 0.0],
        }
    }

    #[test]
    fn rows_go_in_by_key_and_the_first_of_equal_keys_stays_first() {
        let readings = [
            reading("b", 1, 1.0),
            reading("a", 2, 2.0),
            reading("b", 1, 3.0),
            reading("a", 1, 4.0),
        ];
        let columns = Columns::of(&readings.iter().collect::<Vec<_>>());
        assert_eq!(columns.device_ids, ["a", "a", "b", "b"]);
        assert_eq!(columns.values[0], [4.0, 2.0, 1.0, 3.0]);
    }

    #[test]
    fn the_statements_fill_the_columns_of_a_reading() {
        let expected = "
    insert into telemetry (device_id, ts, temperature, humidity, battery)
    select device_id, ts, temperature, humidity, battery
    from unnest($1::text[], $2::timestamptz[], $3::float8[], $4::float8[], $5::float8[])
        as batch (device_id, ts, temperature, humidity, battery)
    where (select set_config('synchronous_commit', case current_setting('synchronous_commit') \
        when 'remote_apply' then 'remote_apply' else 'on' end, true)) is not null
    on conflict (device_id, ts) do nothing";
        assert_eq!(*INSERT_MISSING, expected);
    }

    #[test]
    fn swallowed_rows_are_found_again_by_their_keys() {
        let readings = [
            reading("b", 1, 1.0),
            reading("a", 2, 2.0),
            reading("b", 1, 3.0),
            reading("a", 1, 4.0),
        ];
        let rows: Vec<&Reading> = readings.iter().collect();
        let columns = Columns::of(&rows);
        assert_eq!(columns.indices(&[], &rows), [0_usize; 0]);
        assert_eq!(columns.indices(&[2], &rows), [1]);
        assert_eq!(columns.indices(&[1, 3, 4], &rows), [0, 2, 3]);
    }
}
