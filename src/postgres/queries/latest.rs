//! The latest reading of each of some devices, and the devices of the newest readings.

use std::collections::HashSet;

use sqlx::QueryBuilder;

use super::relation::Relation;
use super::row::StoredReading;
use super::window::{Window, windows};
use crate::postgres::failure::Failure;
use crate::postgres::instant::Instant as Time;
use crate::postgres::limits::QUERY_LIMIT;
use crate::postgres::session::Session;
use crate::postgres::spread::is_refusal;

/// The latest readings of `names`, in no order: in each window of those that have none in a later
/// one. A name may have none at all.
pub(super) async fn latest_of(
    session: &mut Session,
    relation: &Relation,
    newest: Time,
    mut names: Vec<String>,
) -> Result<Vec<StoredReading>, Failure> {
    let mut latest: Vec<StoredReading> = Vec::new();
    for window in windows(None, None, newest) {
        if names.is_empty() {
            break;
        }
        let found = match latest_in(session, relation, &window, &names).await {
            // Where rows are on several nodes, the nodes are not asked for a list.
            Err(failure) if is_refusal(&failure) => {
                session.abandon().await?;
                session.begin(QUERY_LIMIT).await?;
                let mut found = Vec::new();
                for name in &names {
                    found.extend(latest_of_one(session, relation, &window, name).await?);
                }
                found
            }
            outcome => outcome?,
        };
        let ids: HashSet<&str> = found.iter().map(|reading| reading.device_id.as_str()).collect();
        names.retain(|name| !ids.contains(name.as_str()));
        latest.extend(found);
    }
    Ok(latest)
}

async fn latest_in(
    session: &mut Session,
    relation: &Relation,
    window: &Window,
    names: &[String],
) -> Result<Vec<StoredReading>, Failure> {
    let (columns, source) = (relation.columns(), relation.source());
    let mut sql = QueryBuilder::new("select latest.* from unnest(");
    sql.push_bind(names.to_vec());
    sql.push(format!(
        "::text[]) as device (device_id)
        cross join lateral (
            select {columns}
            from {source}
            where telemetry.device_id = device.device_id"
    ));
    window.push_to(&mut sql);
    sql.push(
        " order by telemetry.ts desc
            limit 1
        ) as latest",
    );
    sql.build_query_as()
        .persistent(session.keeps_statements())
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)
}

async fn latest_of_one(
    session: &mut Session,
    relation: &Relation,
    window: &Window,
    name: &str,
) -> Result<Option<StoredReading>, Failure> {
    let (columns, source) = (relation.columns(), relation.source());
    let mut sql = QueryBuilder::new(format!("select {columns} from {source} where "));
    sql.push("telemetry.device_id = ").push_bind(name.to_owned());
    window.push_to(&mut sql);
    sql.push(" order by telemetry.ts desc limit 1");
    sql.build_query_as()
        .persistent(session.keeps_statements())
        .fetch_optional(session.connection())
        .await
        .map_err(Failure::of_statement)
}

/// The devices of the newest rows, by age, as far as nothing older can come between them; as many as
/// are `wanted`, or more.
pub(super) async fn newest_devices(
    session: &mut Session,
    relation: &Relation,
    newest_time: Time,
    rows: u32,
    wanted: usize,
) -> Result<Vec<StoredReading>, Failure> {
    let (columns, source) = (relation.columns(), relation.source());
    let mut newest: Vec<StoredReading> = Vec::new();
    for window in windows(None, None, newest_time) {
        let missing = i64::from(rows) - i64::try_from(newest.len()).unwrap_or(i64::MAX);
        if missing <= 0 {
            break;
        }
        let mut sql = QueryBuilder::new(format!("select {columns} from {source} where true"));
        window.push_to(&mut sql);
        sql.push(" order by telemetry.ts desc limit ").push_bind(missing);
        let found: Vec<StoredReading> = sql
            .build_query_as()
            .persistent(session.keeps_statements())
            .fetch_all(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        newest.extend(found);
        let devices: HashSet<&str> =
            newest.iter().map(|reading| reading.device_id.as_str()).collect();
        if devices.len() >= wanted {
            break;
        }
    }
    if newest.len() >= rows as usize
        && let Some(last) = newest.last().map(StoredReading::ts)
    {
        // Of that moment there may be more.
        newest.retain(|reading| reading.ts() != last);
    }
    let mut seen = HashSet::new();
    newest.retain(|reading| seen.insert(reading.device_id.clone()));
    sort_by_age(&mut newest);
    Ok(newest)
}

/// The newest first, and those of one moment by name.
pub(super) fn sort_by_age(latest: &mut [StoredReading]) {
    latest.sort_by(|a, b| b.ts().cmp(&a.ts()).then_with(|| a.device_id.cmp(&b.device_id)));
}
