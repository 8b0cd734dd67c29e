//! Writing a batch, once or as often as it takes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::failure::{Failure, within};
use super::session::Session;
use super::{Database, table};
use crate::flusher::sink::{Sink, SinkError, Stored};
use crate::telemetry::Reading;
use crate::telemetry::fields::COUNT;

/// Fails with a unique violation if a row is there already.
static INSERT_NEW: LazyLock<String> = LazyLock::new(|| {
    let columns = table::columns();
    let number = |at: usize| format!(", ${}::float8[]", at + 3);
    let numbers: String = (0..COUNT).map(number).collect();
    format!(
        "
    insert into telemetry ({columns})
    select {columns}
    from unnest($1::text[], $2::timestamptz[]{numbers})
        as batch ({columns})"
    )
});

/// Passes over rows that are there already. It looks for each row before it inserts it, and
/// announces and confirms it, which costs a quarter of PostgreSQL's time.
static INSERT_MISSING: LazyLock<String> =
    LazyLock::new(|| format!("{}\n    on conflict (device_id, ts) do nothing", *INSERT_NEW));

/// So that PostgreSQL gives up first, and says why.
const GRACE: Duration = Duration::from_secs(2);

const UNIQUE_VIOLATION: &str = "23505";

/// So many batches without a duplicate have to be written before the next is taken for new.
const EXPECTED: u32 = 100;

/// Whether batches are expected to hold rows that are in the table already: at the start, since a
/// process that was killed may have written them; after a failure, whose outcome may not be known;
/// and after a duplicate. Until then no batch goes in by a statement that would not notice that the
/// table lacks the unique key. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Duplicates {
    expected_in: Arc<AtomicU32>,
}

impl Default for Duplicates {
    fn default() -> Self {
        Self { expected_in: Arc::new(AtomicU32::new(EXPECTED)) }
    }
}

impl Duplicates {
    fn are_expected(&self) -> bool {
        self.expected_in.load(Ordering::Relaxed) > 0
    }

    fn expect(&self) {
        self.expected_in.store(EXPECTED, Ordering::Relaxed);
    }

    /// A batch was written with so many of them.
    fn note(&self, duplicates: u64) {
        if duplicates > 0 {
            self.expect();
        } else {
            let one_less = |batches: u32| batches.checked_sub(1);
            // None are expected any more if that fails.
            self.expected_in.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).ok();
        }
    }
}

impl Sink for Database {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.prepare_schema().await.map_err(SinkError::from)
    }

    async fn ping(&self) -> Result<(), SinkError> {
        Self::ping(self).await.map_err(SinkError::from)
    }

    /// One statement: all rows are committed, or none. Where duplicates are expected it passes over
    /// them. Else it takes the rows for new, which is faster; if one is not, nothing is written, and
    /// the careful statement follows.
    ///
    /// Rows go in by the order of the unique key, so two batches in flight take its locks in the
    /// same order and cannot deadlock. Cancellation-safe in the sense that a batch whose future
    /// was dropped may or may not have been written, and can be sent again.
    async fn insert(&self, rows: &[&Reading], limit: Duration) -> Result<Stored, SinkError> {
        if rows.is_empty() {
            return Ok(Stored::default());
        }
        let batch = Columns::of(rows);
        let outcome = within(limit + GRACE, self.insert_in_time(&batch, limit)).await;
        let inserted = outcome.inspect_err(|_| self.duplicates.expect())?;
        let duplicates = (rows.len() as u64).saturating_sub(inserted);
        Ok(Stored { inserted, duplicates, swallowed: Vec::new() })
    }
}

impl Database {
    async fn insert_in_time(&self, batch: &Columns<'_>, limit: Duration) -> Result<u64, Failure> {
        let mut lease = self.writes.lease().await?;
        let session = lease.session();
        session.begin(limit).await?;
        let outcome = self.write(batch, session, limit).await;
        match outcome {
            Ok(_) => session.end().await?,
            // A refused value leaves the connection in order, and the halves of the batch follow.
            Err(Failure::Refused(_)) => session.abandon().await?,
            Err(_) => return outcome,
        }
        lease.keep();
        outcome
    }

    async fn write(
        &self,
        batch: &Columns<'_>,
        session: &mut Session,
        limit: Duration,
    ) -> Result<u64, Failure> {
        if !self.duplicates.are_expected() {
            match batch.execute(&INSERT_NEW, session).await {
                Err(failure) if failure.sqlstate() == Some(UNIQUE_VIOLATION) => {
                    session.abandon().await?;
                    session.begin(limit).await?;
                }
                outcome => return outcome,
            }
        }
        let inserted = batch.execute(&INSERT_MISSING, session).await?;
        self.duplicates.note(batch.device_ids.len() as u64 - inserted);
        Ok(inserted)
    }
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
        session: &mut Session,
    ) -> Result<u64, Failure> {
        let mut query = sqlx::query(statement)
            .persistent(session.keeps_statements())
            .bind(&self.device_ids)
            .bind(&self.timestamps);
        for column in &self.values {
            query = query.bind(column);
        }
        query
            .execute(session.connection())
            .await
            .map(|done| done.rows_affected())
            .map_err(Failure::of_statement)
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
    on conflict (device_id, ts) do nothing";
        assert_eq!(*INSERT_MISSING, expected);
    }

    #[test]
    fn rows_are_taken_for_new_only_after_many_batches_without_a_duplicate() {
        let duplicates = Duplicates::default();
        for found in [0, 3] {
            duplicates.note(found);
            for _ in 0..EXPECTED - u32::from(found == 0) {
                assert!(duplicates.are_expected());
                duplicates.note(0);
            }
            assert!(!duplicates.are_expected());
        }
        duplicates.note(0);
        assert!(!duplicates.are_expected());
        duplicates.expect();
        assert!(duplicates.are_expected());
    }
}
