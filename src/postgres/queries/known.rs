//! How many of some readings the table has already.

use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

use super::relation::Relation;
use crate::base::time::Timestamp;
use crate::postgres::failure::{Failure, within};
use crate::postgres::{Database, QUERY_LIMIT, QUERY_TIMEOUT};

impl Database {
    /// How many rows of `relation` have one of these names and times. A key that stands there twice counts
    /// twice.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub async fn known(
        &self,
        relation: &Relation,
        device_ids: Vec<String>,
        times: &[Timestamp],
    ) -> Result<u64, Failure> {
        within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let times: Vec<DateTime<Utc>> = times.iter().map(|at| (*at).into()).collect();
            let mut sql = QueryBuilder::new("select count(*) from unnest(");
            sql.push_bind(device_ids).push("::text[], ").push_bind(times);
            // One look into the unique key for each.
            sql.push(format!(
                "::timestamptz[]) as wanted (device_id, ts)
                cross join lateral (
                    select 1 from {} where telemetry.device_id = wanted.device_id and telemetry.ts = wanted.ts
                    limit 1
                ) as found",
                relation.source()
            ));
            let known: i64 = sql
                .build_query_scalar()
                .persistent(session.keeps_statements())
                .fetch_one(session.connection())
                .await
                .map_err(Failure::of_statement)?;
            session.end().await?;
            lease.keep();
            Ok(known.unsigned_abs())
        })
        .await
    }
}
