//! What of a batch something has done away with, where it is on several nodes: see [`crate::postgres::spread`].

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::rows::TableRows;
use super::statements::held;
use super::value::Array;
use crate::postgres::failure::Failure;
use crate::postgres::keys::AT_ONCE;
use crate::postgres::session::Session;

/// Numbers, from 1, of `rows` that are not in their table, or not with each of the values in `arrays`.
pub(super) async fn missing_of_spread(
    rows: &TableRows<'_>,
    arrays: &[Array<'_>],
    session: &mut Session,
) -> Result<Vec<i64>, Failure> {
    let names: Vec<&str> = rows.columns.iter().map(|column| column.name).collect();
    let sql = held(rows.table, &names);
    let mut missing = Vec::new();
    let chunks = rows.device_ids.chunks(AT_ONCE).zip(rows.timestamps.chunks(AT_ONCE));
    let mut places = (0..).zip(1..);
    for (device_ids, times) in chunks {
        let found: Vec<(String, DateTime<Utc>, Vec<bool>)> =
            sqlx::query_as(AssertSqlSafe(sql.as_str()))
                .bind(device_ids)
                .bind(times)
                .persistent(session.keeps_statements())
                .fetch_all(session.connection())
                .await
                .map_err(Failure::of_statement)?;
        let found: HashMap<(&str, DateTime<Utc>), &[bool]> = found
            .iter()
            .map(|(device_id, ts, nulls)| ((device_id.as_str(), *ts), nulls.as_slice()))
            .collect();
        let keys = device_ids.iter().copied().zip(times.iter().copied());
        for (key, (at, number)) in keys.zip(places.by_ref()) {
            let is_whole = found.get(&key).is_some_and(|nulls| {
                !nulls.iter().zip(arrays).any(|(is_null, array)| *is_null && array.has(at))
            });
            if !is_whole {
                missing.push(number);
            }
        }
    }
    Ok(missing)
}
