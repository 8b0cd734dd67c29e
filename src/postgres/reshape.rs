//! Turns a plain table into a partitioned one while rows come in.
//!
//! The table becomes the first partition of a new one, up to a boundary beyond all that is in it and all
//! that may come meanwhile. A check that no row lies behind the boundary is added without a look at the
//! rows, then validated, which holds up nobody; so the exchange itself finds nothing to check, and is one
//! transaction of some milliseconds. Whoever needs an exclusive lock gives up on it after a moment and
//! comes back: nobody queues behind a long reader.
//!
//! It can be broken off anywhere: until the exchange there is a plain table, at most with that check,
//! which the service drops as soon as a row is refused by it; and it can be run again.

use std::time::Duration;

use super::database::Database;
use super::failure::{Failure, within};
use super::limits::QUERY_TIMEOUT;
use super::locks;
use super::partitions::{self, Grid, Range};
use super::session::{QUERY_SETTINGS, Scope, Session};
use super::table::{OLDER, PARTITION_BOUND};
use crate::base::retry::Backoff;
use crate::base::time::Timestamp;

const ATTEMPTS: u32 = 1_200;
/// At most, and a third of it at least.
const PAUSE: Duration = Duration::from_millis(750);
const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Validating reads the whole table.
const VALIDATE_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// What validating may take at most, beyond the newest time that is accepted.
const MARGIN_MICROS: i64 = partitions::DAY;

const EXCHANGE: &str = include_str!("reshape.sql");

const STATE: &str = "
    select
        relnamespace::regnamespace::text,
        (extract(epoch from clock_timestamp()) * 1000000)::bigint,
        pg_relation_size(oid) = 0,
        (
            select (extract(epoch from (regexp_match(pg_get_constraintdef(bound.oid), '''(.*)'''))[1]
                ::timestamptz) * 1000000)::bigint
            from pg_constraint as bound
            where conrelid = pg_class.oid and conname = 'telemetry_partition_bound'
        )
    from pg_class where oid = to_regclass('telemetry')";

/// A sentence each.
const OBSTACLES: &str = "
    with wide as (select oid, relowner, relnamespace from pg_class where oid = to_regclass('telemetry'))
    select 'this role does not own the table'
    from wide where not pg_has_role(current_user, relowner, 'usage')
    union all
    select format('its %s %s has not both device_id and ts: drop it',
        case when indisprimary then 'primary key' else 'unique index' end, indexrelid::regclass)
    from pg_index join wide on indrelid = oid
    where indisunique and 2 > (
        select count(*) from pg_attribute
        where attrelid = oid and attname in ('device_id', 'ts') and attnum = any(indkey)
    )
    union all
    select 'it has no unique key on (device_id, ts): add one'
    from wide where not exists (
        select from pg_index
        where indrelid = oid and indisunique and indisvalid and indpred is null and indnkeyatts = 2
            and 2 = (
                select count(*) from pg_attribute
                where attrelid = oid and attname in ('device_id', 'ts') and attnum = any(indkey)
            )
    )
    union all
    select format('its column %I is counted up by a sequence: let the service apply its migration first', attname)
    from pg_attribute join wide on attrelid = oid
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attnum > 0 and not attisdropped
        and (attidentity <> '' or pg_get_expr(adbin, adrelid) like 'nextval(%')
    union all
    select format('the constraint %I of %s refers to it, or to others from it: drop it', conname, conrelid::regclass)
    from pg_constraint join wide on wide.oid in (conrelid, confrelid)
    where contype in ('f', 'x')
    union all
    select distinct format('%s depends on it and would stay with its older rows: drop it, and make it again afterwards',
        coalesce((select format('the view or rule on %s', ev_class::regclass) from pg_rewrite where oid = objid),
            'a function'))
    from pg_depend join wide on refobjid = wide.oid
    where refclassid = 'pg_class'::regclass
        and classid in ('pg_rewrite'::regclass, 'pg_proc'::regclass)
    union all
    select format('it is in the publication %I: take it out of there first', pubname)
    from pg_publication_rel join pg_publication on pg_publication.oid = prpubid
    join wide on prrelid = wide.oid
    union all
    select format('%s inherits from it', inhrelid::regclass) from pg_inherits join wide on inhparent = oid
    union all
    select 'a table telemetry_older is there already' from wide
    where exists (
        select from pg_class as other
        where other.relnamespace = wide.relnamespace and relname = 'telemetry_older'
    )";

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Reshape {
    /// Rows before it stay together in `telemetry_older`.
    pub(crate) boundary: Timestamp,
    /// What has to be mended before, a sentence each.
    pub(crate) obstacles: Vec<String>,
    schema: String,
    is_empty: bool,
    /// Whether the check is there, for this boundary.
    has_bound: bool,
    ahead: Vec<Range>,
}

impl Reshape {
    /// The statements, in their order, for a person.
    #[must_use]
    pub(crate) fn statements(&self) -> Vec<String> {
        let mut all = Vec::new();
        if !self.is_empty {
            if !self.has_bound {
                all.push(self.bound());
            }
            all.push(VALIDATE.to_owned());
        }
        all.push(format!(
            "one transaction: telemetry becomes {OLDER}, the partition before {}, of a new table with its \
             columns, keys, indexes, grants, policies, triggers, owner and comments; {} partitions after it",
            self.boundary,
            self.ahead.len()
        ));
        all
    }

    /// All that attaching would look for.
    fn bound(&self) -> String {
        let boundary = partitions::bound(self.boundary.as_micros());
        format!(
            "alter table telemetry add constraint {PARTITION_BOUND} check (ts is not null and ts < {boundary}) not valid"
        )
    }

    fn exchange(&self) -> String {
        let boundary = partitions::bound(self.boundary.as_micros());
        let sql = EXCHANGE.replace("{boundary}", boundary.trim_matches('\''));
        let sql = sql.replace("{is_empty}", if self.is_empty { "true" } else { "false" });
        format!(
            "{sql}; {}",
            partitions::statements(&self.schema, &self.ahead, vec![OLDER.to_owned()])
        )
    }
}

const VALIDATE: &str = "alter table telemetry validate constraint telemetry_partition_bound";
const DROP_BOUND: &str =
    "alter table telemetry drop constraint if exists telemetry_partition_bound";

impl Database {
    /// What it takes to partition the table, which is plain. Without a `boundary` it is the first that lies
    /// beyond what may come, `max_future_secs` ahead of the clock, within the next day.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(crate) async fn plan_reshape(
        &self,
        boundary: Option<Timestamp>,
        max_future_secs: u32,
    ) -> Result<Reshape, Failure> {
        let (mut session, _) = self.writes.server().connect(QUERY_SETTINGS).await?;
        let session = &mut session;
        within(QUERY_TIMEOUT, async {
            session.begin(QUERY_TIMEOUT).await?;
            let (schema, now, is_empty, bound): (String, i64, bool, Option<i64>) =
                sqlx::query_as(STATE)
                    .persistent(false)
                    .fetch_one(session.connection())
                    .await
                    .map_err(Failure::of_statement)?;
            let mut obstacles: Vec<String> = sqlx::query_scalar(OBSTACLES)
                .persistent(false)
                .fetch_all(session.connection())
                .await
                .map_err(Failure::of_statement)?;
            session.end().await?;
            let grid = self.partitions.grid();
            let future = i64::from(max_future_secs) * 1_000_000;
            let safe = now.saturating_add(future).saturating_add(MARGIN_MICROS);
            let chosen = match (boundary, bound) {
                (Some(boundary), _) => boundary.as_micros(),
                (None, _) if is_empty => grid.floor(now) - grid.width,
                // As it was begun.
                (None, Some(bound)) if bound > safe - MARGIN_MICROS / 2 => bound,
                (None, _) => grid.floor(safe) + grid.width,
            };
            if !is_empty && chosen < safe - MARGIN_MICROS {
                obstacles.push(format!(
                    "the boundary has to lie beyond what may come until all is done, {} or later",
                    Timestamp::from_micros(safe).unwrap_or(Timestamp::UNIX_EPOCH)
                ));
            }
            let ahead = ahead(grid, chosen, now);
            let boundary = Timestamp::from_micros(chosen).unwrap_or_else(|| {
                obstacles.push("the boundary is in no calendar".to_owned());
                Timestamp::UNIX_EPOCH
            });
            let has_bound = bound == Some(chosen);
            Ok(Reshape { boundary, obstacles, schema, is_empty, has_bound, ahead })
        })
        .await
    }

    /// Carries it out, and tells of each step that begins.
    ///
    /// # Errors
    /// See [`Failure`]. The table is as it was then, or has the check that a next run takes up.
    pub(crate) async fn reshape(
        &self,
        plan: &Reshape,
        mut says: impl FnMut(&str),
    ) -> Result<(), Failure> {
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        let session = &mut session;
        if !plan.is_empty {
            if !plan.has_bound {
                let sql = plan.bound();
                says(&sql);
                patiently(session, &format!("{DROP_BOUND}; {sql}")).await?;
            }
            says(VALIDATE);
            session.set_scope(Scope::Statement);
            let validated = alone(session, VALIDATE, VALIDATE_LIMIT).await;
            if let Err(failure) = validated {
                if failure.sqlstate() == Some("23514") {
                    session.abandon().await?;
                    patiently(session, DROP_BOUND).await?;
                    return Err(Failure::unavailable(format!(
                        "there are rows dated {} or later, or without a date: choose a later --boundary, or remove them",
                        plan.boundary
                    )));
                }
                return Err(failure);
            }
        }
        says("the exchange");
        patiently(session, &plan.exchange()).await
    }
}

/// Two cells at least, and as many as are kept ready.
fn ahead(grid: Grid, boundary: i64, now: i64) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut from = boundary;
    while (ranges.len() < 2 || from <= now + grid.ahead) && ranges.len() < 100 {
        let to = grid.floor(from) + grid.width;
        ranges.push(Range { from, to });
        from = to;
    }
    ranges
}

async fn alone(session: &mut Session, sql: &str, limit: Duration) -> Result<(), Failure> {
    session.begin(limit).await?;
    session.run(sql.to_owned()).await?;
    session.end().await
}

/// In a transaction that waits for no lock for long; again, until it has it.
async fn patiently(session: &mut Session, sql: &str) -> Result<(), Failure> {
    session.set_scope(Scope::Transaction);
    let sql = format!("{}; {sql}", locks::exclusive(&["telemetry"]));
    let mut pauses = Backoff::new(PAUSE, PAUSE, fastrand::Rng::new());
    let mut attempts = 0;
    loop {
        let outcome = alone(session, &sql, EXCHANGE_LIMIT).await;
        match outcome {
            Err(failure)
                if failure.sqlstate() == Some(locks::NOT_AVAILABLE) && attempts < ATTEMPTS =>
            {
                session.abandon().await?;
                attempts += 1;
                tokio::time::sleep(pauses.next_pause()).await;
            }
            Err(failure) => {
                // Whoever comes next finds the connection in order, or gone.
                session.abandon().await.ok();
                return Err(failure);
            }
            Ok(()) => return Ok(()),
        }
    }
}
