//! What of the log, or of what is imported, is in the table already.
//!
//! Each key is looked up by itself: a join would be planned by a guess at how many there are. Where that is
//! refused, they are asked for otherwise, see [`crate::postgres::keys`].

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::devices::in_order;
use super::relation::Relation;
use crate::base::time::Timestamp;
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::keys::Keys;
use crate::postgres::limits::{QUERY_LIMIT, QUERY_TIMEOUT};
use crate::postgres::session::Session;
use crate::postgres::spread::Spread;

/// What names a reading that the log has: its device and its time.
pub(crate) type LogKey<'k> = (&'k str, Timestamp);

/// Which of `keys` are in the table, in their order.
pub(super) async fn which_are_known(
    session: &mut Session,
    relation: &Relation,
    keys: &[LogKey<'_>],
    spread: &Spread,
) -> Result<Vec<bool>, Failure> {
    let source = relation.source();
    let (device_ids, times): (Vec<&str>, Vec<DateTime<Utc>>) =
        keys.iter().map(|(device_id, at)| (*device_id, DateTime::from(*at))).unzip();
    if spread.is_known() {
        let keys = Keys { device_ids: &device_ids, times: &times };
        return keys.known_of_spread(session, &source).await;
    }
    let sql = format!(
        "select key.place from unnest($1::text[], $2::timestamptz[])
            with ordinality as key (device_id, ts, place)
        cross join lateral (
            select from {source}
            where telemetry.device_id = any(array[key.device_id]) and telemetry.ts = key.ts
            order by telemetry.device_id
            limit 1
        ) as stored"
    );
    let places = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(device_ids)
        .bind(times)
        .persistent(session.keeps_statements())
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    Ok(marked(&places, keys.len()))
}

/// Which of `names` have rows, in their order.
async fn which_have_rows(
    session: &mut Session,
    relation: &Relation,
    names: &[&str],
    spread: &Spread,
) -> Result<Vec<bool>, Failure> {
    let source = relation.source();
    if spread.is_known() {
        return having_of_spread(session, &source, names).await;
    }
    let sql = format!(
        "select name.place from unnest($1::text[]) with ordinality as name (device_id, place)
        cross join lateral (
            select from {source} where telemetry.device_id = name.device_id limit 1
        ) as stored"
    );
    let places: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(names)
        .persistent(session.keeps_statements())
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    Ok(marked(&places, names.len()))
}

/// The same, one by one.
async fn having_of_spread(
    session: &mut Session,
    source: &str,
    names: &[&str],
) -> Result<Vec<bool>, Failure> {
    let sql = format!("select 1 from {source} where telemetry.device_id = $1::text limit 1");
    let mut having = Vec::with_capacity(names.len());
    for name in names {
        let found: Option<i32> = sqlx::query_scalar(AssertSqlSafe(sql.as_str()))
            .bind(name)
            .persistent(session.keeps_statements())
            .fetch_optional(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        having.push(found.is_some());
    }
    Ok(having)
}

impl Database {
    /// How many of these names and times `relation` has a row of. A key that stands there twice counts twice.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn known(
        &self,
        relation: &Relation,
        keys: &[LogKey<'_>],
    ) -> Result<u64, Failure> {
        let spread = self.tables.spread(relation.name());
        let ask = || {
            within(QUERY_TIMEOUT, async {
                let mut lease = self.queries.lease().await?;
                let session = lease.session();
                session.begin(QUERY_LIMIT).await?;
                let known = which_are_known(session, relation, keys, &spread).await?;
                session.end().await?;
                lease.keep();
                Ok(known.into_iter().filter(|is_known| *is_known).count() as u64)
            })
        };
        let was_known = spread.is_known();
        let mut known = ask().await;
        if spread.learn_from(was_known, &known) {
            known = ask().await;
        }
        known
    }

    /// Which of `names` have rows in `relation`, in their order.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn has_devices(
        &self,
        relation: &Relation,
        names: &[&str],
    ) -> Result<Vec<bool>, Failure> {
        let spread = self.tables.spread(relation.name());
        let ask = || {
            within(QUERY_TIMEOUT, async {
                let mut lease = self.queries.lease().await?;
                let session = lease.session();
                session.begin(QUERY_LIMIT).await?;
                let having = which_have_rows(session, relation, names, &spread).await?;
                session.end().await?;
                lease.keep();
                Ok(having)
            })
        };
        let was_known = spread.is_known();
        let mut having = ask().await;
        if spread.learn_from(was_known, &having) {
            having = ask().await;
        }
        having
    }

    /// `names` in the order of the list of devices of `relation`.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn in_order(
        &self,
        relation: &Relation,
        names: &[String],
    ) -> Result<Vec<String>, Failure> {
        within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let names = in_order(session, relation, names).await?;
            session.end().await?;
            lease.keep();
            Ok(names)
        })
        .await
    }
}

/// Which of `count` places, counted from 1, are among these.
fn marked(places: &[i64], count: usize) -> Vec<bool> {
    let mut marked = vec![false; count];
    for place in places {
        let at = usize::try_from(place - 1).ok();
        if let Some(mark) = at.and_then(|at| marked.get_mut(at)) {
            *mark = true;
        }
    }
    marked
}
