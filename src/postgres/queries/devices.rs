//! Each device's latest reading. Whose they are is [`super::names`]'s to say, so that none of this walks through the
//! table to find out who is in it.
//!
//! Somebody else may write rows and no names, or the list may not be filled yet. Where it is short, those
//! of the newest rows that are not in it are shown as well, and their names are gathered.

use std::collections::{HashMap, HashSet};

use sqlx::AssertSqlSafe;

use super::latest::{latest_of, newest_devices, sort_by_age};
use super::names::Names;
use super::relation::Relation;
use super::row::StoredReading;
use super::total::Total;
use crate::base::time::Clock as _;
use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::instant::Instant as Time;
use crate::postgres::limits::{QUERY_LIMIT, QUERY_TIMEOUT};
use crate::postgres::session::Session;
use crate::postgres::table::DEVICES;
use crate::telemetry::mapping::BUILT_IN_TABLE;

/// Which devices, and in what order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceFilter {
    /// Only those that have this in their name, in capitals or not. No NUL: PostgreSQL's text has
    /// none.
    pub(crate) name_contains: Option<String>,
    /// By their latest reading, instead of by name.
    pub(crate) newest_first: bool,
}

impl DeviceFilter {
    /// As PostgreSQL finds it, capitals of rare alphabets aside.
    #[must_use]
    pub(crate) fn matches(&self, device_id: &str) -> bool {
        let part = self.name_contains.as_ref().map(|part| part.to_lowercase());
        part.is_none_or(|part| device_id.to_lowercase().contains(&part))
    }
}

/// Devices, each as its latest reading.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DevicePage {
    /// No more than were asked for.
    pub(crate) latest: Vec<StoredReading>,
    /// The names that it goes past, in their order, also those without a row.
    pub(crate) names: Vec<String>,
    /// How many names it goes past: those of which the table has no row any more are passed by. Where they
    /// are fewer than were asked for there are no more.
    pub(crate) passed: u32,
    /// Devices that match, on this page or off it.
    pub(crate) total: Total,
}

/// The newest rows that are looked through for devices that are not in the list,
const ROWS_FOR_STRANGERS: u32 = 1_000;
/// if it is no longer than that.
const SHORT_LIST: u32 = 100;
/// The newest rows that are looked through first for the newest devices, and where that does not do.
const FEW_ROWS: u32 = 5_000;
const MANY_ROWS: u32 = 200_000;
/// So many devices are looked up one by one, rather than to look through [`MANY_ROWS`].
const FEW_DEVICES: usize = 2_000;
/// More names are not sorted by age.
const MOST_DEVICES: u32 = 1_000_000;

impl Database {
    /// Up to `limit` devices of `relation`, after the first `offset` of them.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn devices(
        &self,
        relation: &Relation,
        filter: &DeviceFilter,
        offset: u32,
        limit: u32,
    ) -> Result<DevicePage, Failure> {
        let page = within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let known = self.tables.of(relation.name());
            let part = filter.name_contains.as_deref();
            let changes = self.registry.changes();
            let names = Names::of(relation, part, &known.devices, changes, self.clock);
            let newest = known.newest.get(self.clock.wall());
            let mut query = Query { session, relation, filter, newest, names };
            let page = if filter.newest_first {
                query.by_age(offset, limit).await?
            } else {
                query.by_name(offset, limit).await?
            };
            if page.has_strangers && relation.name() == BUILT_IN_TABLE {
                self.tasks.set_lacks_names();
            }
            session.end().await?;
            lease.keep();
            let Page { latest, names, total, .. } = page;
            Ok(DevicePage { latest, passed: count(names.len()), names, total })
        });
        match page.await {
            Ok(page) => Ok(page),
            Err(failure) => Err(self.explained(failure, relation).await),
        }
    }
}

/// As their names are in `names`.
fn sort_by_place(latest: &mut [StoredReading], names: &[String]) {
    let places: HashMap<&str, usize> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    latest.sort_by_key(|reading| places.get(reading.device_id.as_str()).copied());
}

/// `names` as the list of devices would have them, in whatever order the database compares text.
pub(super) async fn in_order(
    session: &mut Session,
    relation: &Relation,
    names: &[String],
) -> Result<Vec<String>, Failure> {
    // Of two that are compared, that of the column counts.
    let column = match relation.name() {
        BUILT_IN_TABLE => format!("device_id from {DEVICES}"),
        _ => format!("telemetry.device_id::text from {}", relation.source()),
    };
    let sql = format!(
        "select name.device_id from (
            (select {column} limit 0) union all select unnest($1::text[])
        ) as name (device_id) order by name.device_id"
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(names)
        .persistent(session.keeps_statements())
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

struct Query<'q> {
    session: &'q mut Session,
    relation: &'q Relation,
    filter: &'q DeviceFilter,
    newest: Time,
    names: Names<'q>,
}

struct Page {
    latest: Vec<StoredReading>,
    names: Vec<String>,
    total: Total,
    /// Whether there are devices that the list lacks.
    has_strangers: bool,
}

impl Page {
    fn of(all: Vec<StoredReading>, total: Total, offset: u32, limit: u32) -> Self {
        let latest: Vec<_> = all.into_iter().skip(offset as usize).take(limit as usize).collect();
        let names = latest.iter().map(|reading| reading.device_id.clone()).collect();
        Self { latest, names, total, has_strangers: false }
    }
}

impl Query<'_> {
    async fn by_name(&mut self, offset: u32, limit: u32) -> Result<Page, Failure> {
        let total = self.names.total(self.session).await?;
        if total.exact && total.rows <= u64::from(SHORT_LIST) {
            return self.of_short_list(offset, limit).await;
        }
        let names = self.names.page(self.session, offset, limit).await?;
        let mut latest = latest_of(self.session, self.relation, self.newest, names.clone()).await?;
        sort_by_place(&mut latest, &names);
        Ok(Page { latest, names, total, has_strangers: false })
    }

    /// Most often the newest rows have them all. Else it takes all names: those of few devices are looked
    /// up, those of many are sought in more of the newest rows first.
    async fn by_age(&mut self, offset: u32, limit: u32) -> Result<Page, Failure> {
        let total = self.names.total(self.session).await?;
        if total.exact && total.rows <= u64::from(SHORT_LIST) {
            return self.of_short_list(offset, limit).await;
        }
        let wanted = offset.saturating_add(limit) as usize;
        if self.filter.name_contains.is_none() && wanted * 2 <= FEW_ROWS as usize {
            // Of many devices, hardly any comes twice in so few rows.
            let fewer = offset.saturating_add(limit).saturating_mul(4);
            for rows in (fewer < FEW_ROWS).then_some(fewer).into_iter().chain([FEW_ROWS]) {
                let newest =
                    newest_devices(self.session, self.relation, self.newest, rows, wanted).await?;
                if newest.len() >= wanted {
                    return Ok(Page::of(newest, total, offset, limit));
                }
            }
        }
        let names = self.names.page(self.session, 0, MOST_DEVICES).await?;
        if names.len() > FEW_DEVICES {
            let among: HashSet<&str> = names.iter().map(String::as_str).collect();
            let mut newest =
                newest_devices(self.session, self.relation, self.newest, MANY_ROWS, usize::MAX)
                    .await?;
            newest.retain(|reading| among.contains(reading.device_id.as_str()));
            if newest.len() >= wanted {
                return Ok(Page::of(newest, total, offset, limit));
            }
        }
        let mut latest = latest_of(self.session, self.relation, self.newest, names).await?;
        sort_by_age(&mut latest);
        Ok(Page::of(latest, total, offset, limit))
    }

    async fn of_short_list(&mut self, offset: u32, limit: u32) -> Result<Page, Failure> {
        let mut names = self.names.page(self.session, 0, SHORT_LIST).await?;
        let is_empty = names.is_empty() && !self.names.any(self.session).await?;
        let rows = if is_empty { MANY_ROWS } else { ROWS_FOR_STRANGERS };
        let mut strangers =
            newest_devices(self.session, self.relation, self.newest, rows, usize::MAX).await?;
        strangers.retain(|reading| {
            !names.contains(&reading.device_id) && self.filter.matches(&reading.device_id)
        });
        let total = Total::of((names.len() + strangers.len()) as u64);
        let has_strangers = !strangers.is_empty();
        let mut all = latest_of(self.session, self.relation, self.newest, names.clone()).await?;
        if self.filter.newest_first {
            all.append(&mut strangers);
            sort_by_age(&mut all);
        } else {
            if has_strangers {
                names.extend(strangers.iter().map(|reading| reading.device_id.clone()));
                names = in_order(self.session, self.relation, &names).await?;
                all.append(&mut strangers);
            }
            sort_by_place(&mut all, &names);
        }
        Ok(Page { has_strangers, ..Page::of(all, total, offset, limit) })
    }
}
