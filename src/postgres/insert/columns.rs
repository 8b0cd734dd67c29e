//! Readings as columns, and the statements that insert them.
//!
//! Somebody may drop the unique key, without which rows that are sent again would be doubled, while rows come
//! in. It is not enough to look for that now and then: each statement checks it for itself. The careful one
//! names the key as what decides of a conflict, and is refused without. The fast one inserts nothing if the
//! index of the number that was found when the connection was looked at is not there, or not valid, in the
//! snapshot that it inserts by; to drop one takes a lock that waits for statements under way.

use std::collections::HashSet;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sqlx::postgres::types::Oid;

use crate::postgres::durability::DURABLY;
use crate::postgres::failure::Failure;
use crate::postgres::keys::Keys;
use crate::postgres::session::Session;
use crate::postgres::table;
use crate::telemetry::Reading;
use crate::telemetry::fields::COUNT;

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

/// What writes rows that are taken for new: of their device ids, times, and values of each field as arrays, and
/// of the number of the index that is the unique key. For benchmarks of the table.
#[must_use]
pub fn insert_statement() -> &'static str {
    &INSERT_NEW
}

/// A batch turned on its side, as `unnest` takes it. It would fill a shorter column up with
/// nulls; here they are of one length, because a reading is pushed to all of them at once.
pub(super) struct Columns<'r> {
    device_ids: Vec<&'r str>,
    timestamps: Vec<DateTime<Utc>>,
    /// A column for each field.
    values: [Vec<f64>; COUNT],
}

impl<'r> Columns<'r> {
    pub(super) fn of(readings: &[&'r Reading]) -> Self {
        let mut rows = readings.to_vec();
        // Stable, so that the first of two with the same key stays first.
        rows.sort_by(|a, b| (a.timestamp, &a.device_id).cmp(&(b.timestamp, &b.device_id)));
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

    pub(super) fn device_ids(&self) -> &[&'r str] {
        &self.device_ids
    }

    pub(super) fn timestamps(&self) -> &[DateTime<Utc>] {
        &self.timestamps
    }

    /// Inserts them if all are new, by the unique key with this number; how many rows it has inserted.
    pub(super) async fn insert_new(&self, key: Oid, session: &mut Session) -> Result<u64, Failure> {
        self.execute(&INSERT_NEW, Some(key), session).await
    }

    /// Inserts those that are new; how many that were.
    pub(super) async fn insert_missing(&self, session: &mut Session) -> Result<u64, Failure> {
        self.execute(&INSERT_MISSING, None, session).await
    }

    pub(super) fn keys(&self) -> Keys<'_> {
        Keys { device_ids: &self.device_ids, times: &self.timestamps }
    }

    /// Which of `rows` have the keys with these numbers, from 1, in their order here.
    pub(super) fn indices(&self, numbers: &[i64], rows: &[&Reading]) -> Vec<usize> {
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
    fn rows_go_in_by_time_and_device_and_the_first_of_equal_keys_stays_first() {
        let readings = [
            reading("b", 1, 1.0),
            reading("a", 2, 2.0),
            reading("b", 1, 3.0),
            reading("a", 1, 4.0),
        ];
        let columns = Columns::of(&readings.iter().collect::<Vec<_>>());
        assert_eq!(columns.device_ids, ["a", "b", "b", "a"]);
        assert_eq!(columns.values[0], [4.0, 1.0, 3.0, 2.0]);
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
        assert_eq!(columns.indices(&[4], &rows), [1]);
        assert_eq!(columns.indices(&[1, 2, 3], &rows), [0, 2, 3]);
    }
}
