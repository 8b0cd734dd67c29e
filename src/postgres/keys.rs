//! Which keys a table has.
//!
//! Keys that are sent along are looked up each by itself. Where that is refused ([`super::spread`]), the rows of some
//! devices and some times are asked for at once, and looked through here.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::failure::Failure;
use super::session::Session;
use super::table::quoted;

/// Keys that are asked for at once where each cannot be looked up by itself.
pub(super) const AT_ONCE: usize = 100;

/// Keys of rows, as columns of one length.
#[derive(Clone, Copy)]
pub(super) struct Keys<'k> {
    pub(super) device_ids: &'k [&'k str],
    pub(super) times: &'k [DateTime<Utc>],
}

impl Keys<'_> {
    /// Numbers, from 1, of those that are not in `table`, whose rows may be known to be spread. Leaves it to the
    /// caller to begin and to end.
    pub(super) async fn missing(
        self,
        session: &mut Session,
        table: &str,
        is_spread: bool,
    ) -> Result<Vec<i64>, Failure> {
        if is_spread {
            let source = format!("{} as telemetry", quoted(table));
            let known = self.known_of_spread(session, &source).await?;
            let missing = (1..).zip(known).filter(|(_, is_known)| !is_known);
            return Ok(missing.map(|(number, _)| number).collect());
        }
        sqlx::query_scalar(AssertSqlSafe(missing(table)))
            .bind(self.device_ids)
            .bind(self.times)
            .persistent(session.keeps_statements())
            .fetch_all(session.connection())
            .await
            .map_err(Failure::of_statement)
    }

    /// Which of them are in `source`, which is called `telemetry` and whose rows are spread, in their order.
    pub(super) async fn known_of_spread(
        self,
        session: &mut Session,
        source: &str,
    ) -> Result<Vec<bool>, Failure> {
        let sql = format!(
            "select telemetry.device_id::text, telemetry.ts::timestamptz from {source}
            where telemetry.device_id = any($1) and telemetry.ts = any($2)"
        );
        let mut known = Vec::with_capacity(self.device_ids.len());
        for (device_ids, times) in self.device_ids.chunks(AT_ONCE).zip(self.times.chunks(AT_ONCE)) {
            let found: Vec<(String, DateTime<Utc>)> = sqlx::query_as(AssertSqlSafe(sql.as_str()))
                .bind(device_ids)
                .bind(times)
                .persistent(session.keeps_statements())
                .fetch_all(session.connection())
                .await
                .map_err(Failure::of_statement)?;
            let found: HashSet<(&str, DateTime<Utc>)> =
                found.iter().map(|(device_id, ts)| (device_id.as_str(), *ts)).collect();
            let keys = device_ids.iter().copied().zip(times.iter().copied());
            known.extend(keys.map(|key| found.contains(&key)));
        }
        Ok(known)
    }
}

/// Of device ids and times as two arrays.
fn missing(table: &str) -> String {
    format!(
        "
    select wanted.at
    from unnest($1::text[], $2::timestamptz[]) with ordinality as wanted (device_id, ts, at)
    where not exists (
        select from {} as there
        where there.device_id = wanted.device_id and there.ts = wanted.ts
    )
    order by wanted.at",
        quoted(table)
    )
}
