//! The migrations of `migrations/`, applied by the service itself.
//!
//! sqlx's own way is not taken: its table `_sqlx_migrations` may be another application's, whose rows
//! stop it, and its lock belongs to a session, which a pooler does not keep. Here everything happens
//! in one transaction, under a lock that ends with it, and is noted in a table of our own.
//!
//! What would have to wait for an exclusive lock on a table in use is put off instead ([`PATIENT`]): whoever
//! waits for such a lock holds up all that come after, so one long reader would stop the service. It
//! works without, and [`super::upkeep`] tries again. It works as well without one that fails there for another
//! reason, which is tried again at the next start.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::migrate::{Migration, Migrator};
use sqlx::postgres::PgRow;

use super::database::Database;
use super::failure::{Failure, within};
use super::limits::{LOOK_LIMIT, QUERY_TIMEOUT};
use super::locks;
use super::session::{MOST_IDLE, Session};
use super::table::MIGRATIONS_TABLE;

/// Longest wait for migrations: another ingestor may hold their lock, and an index on a table that
/// was there before takes its time.
pub(crate) const MIGRATE_TIMEOUT: Duration = Duration::from_secs(300);
const MIGRATE_LIMIT: Duration = Duration::from_secs(290);

/// The driver's, of earlier versions of this service, or of somebody else.
const FORMER_TABLE: &str = "_sqlx_migrations";

/// One for all ingestors of a database: "iot-inge" in ASCII.
pub(super) const LOCK: i64 = 0x696f_742d_696e_6765;

/// The one that makes the table. One that was there before is taken as it is, whatever made it: only its
/// owner knows what indexes it can bear to be made.
const MAKES_TABLE: i64 = 1;
/// The first of those that change a table in use; each can be left for later.
const PATIENT: i64 = 3;

/// The oldest PostgreSQL that has all that the migrations and the service ask for, as `server_version_num`.
const OLDEST_SERVER: i32 = 130_000;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How far the schema has come. The table can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Migrated {
    /// Every migration is applied.
    Wholly,
    /// One waits for a better moment.
    PutOff,
    /// One cannot be applied; the next start tries again.
    SetAside,
}

impl Database {
    /// Brings the schema up to date, as far as that is possible at this moment.
    ///
    /// Changes nothing, and needs no right to, if every migration is applied already; those of a
    /// newer version do no harm. A role that may not migrate uses the table as it finds it.
    /// Several ingestors may do this at once. Cancellation-safe: all of it is one transaction.
    ///
    /// # Errors
    /// Always [`Failure::Unavailable`]: soon if the database does not answer, after
    /// [`MIGRATE_TIMEOUT`] if there is something to migrate.
    pub(crate) async fn prepare_schema(&self) -> Result<(), Failure> {
        let is_put_off = self.migrate().await? == Migrated::PutOff;
        if is_put_off && !self.tasks.is_behind() {
            tracing::info!(
                "somebody reads or changes the table telemetry, so its migration is put off and tried again every few seconds; until then the table is used as it is"
            );
        }
        self.prepare_tables().await?;
        self.tasks.set_prepared(!is_put_off);
        Ok(())
    }

    /// Applies what is not.
    pub(super) async fn migrate(&self) -> Result<Migrated, Failure> {
        // The one that the first batch will use.
        let mut lease = self.writes.lease().await?;
        let session = lease.session();
        let patience = session.allowance(QUERY_TIMEOUT);
        let noted = within(patience, noted(session)).await?;
        if not_in(&noted).next().is_none() {
            lease.keep();
            return Ok(Migrated::Wholly);
        }
        match within(MIGRATE_TIMEOUT, apply(session, noted)).await {
            Ok(migrated) => {
                lease.keep();
                Ok(migrated)
            }
            Err(failure) => {
                drop(lease);
                if failure.sqlstate() == Some("42501") && self.has_table().await? {
                    tracing::warn!(%failure, "this role may not migrate, the table is used as it is");
                    return Ok(Migrated::SetAside);
                }
                Err(failure.while_migrating())
            }
        }
    }

    async fn has_table(&self) -> Result<bool, Failure> {
        let mut lease = self.writes.lease().await?;
        let session = lease.session();
        let question = "select to_regclass('telemetry') is not null";
        let rows = within(session.allowance(QUERY_TIMEOUT), session.ask(LOOK_LIMIT, question));
        let found = first(&rows.await?)?;
        lease.keep();
        Ok(found)
    }
}

/// Checksums by version, in hexadecimal digits.
type Applied = HashMap<i64, String>;

/// What our table or, of an earlier version, the driver's says is applied.
async fn noted(session: &mut Session) -> Result<Applied, Failure> {
    // PostgreSQL would log an error if it were just tried.
    let readable = |table| {
        format!("select coalesce(has_table_privilege(to_regclass('{table}'), 'select'), false)")
    };
    let tables = [FORMER_TABLE, MIGRATIONS_TABLE];
    let rows = session.ask(LOOK_LIMIT, &tables.map(readable).join(";")).await?;
    let mut applied = Applied::new();
    for (table, row) in tables.into_iter().zip(&rows) {
        if !row.try_get(0).map_err(Failure::of_statement)? {
            continue;
        }
        match session.ask(LOOK_LIMIT, &entries(table)).await {
            Ok(rows) => applied.extend(read(&rows)?),
            // Somebody else's, of another shape.
            Err(failure) if failure.is_configuration() || failure.is_missing_table() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(applied)
}

/// What asks a table for the versions that were applied.
fn entries(table: &str) -> String {
    format!("select version::bigint, encode(checksum::bytea, 'hex') from {table} where success")
}

fn read(rows: &[PgRow]) -> Result<Applied, Failure> {
    let entry = |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(entry).collect::<sqlx::Result<_>>().map_err(Failure::of_statement)
}

/// The first value of the first row.
fn first(rows: &[PgRow]) -> Result<bool, Failure> {
    let value = rows.first().map_or(Ok(false), |row| row.try_get(0));
    value.map_err(Failure::of_statement)
}

/// A sentence if the server lacks what is needed.
fn is_too_old(number: i32, version: &str) -> Option<String> {
    (number < OLDEST_SERVER)
        .then(|| format!("PostgreSQL {version} is too old, the ingestor needs 13 or newer"))
}

/// Whether an error of a migration may be gone when it is tried again: a lock, a deadlock, what the server lacks, a
/// time limit or somebody who cancelled it.
fn passes(sqlstate: &str) -> bool {
    locks::passes(sqlstate) || ["40", "53", "57"].iter().any(|class| sqlstate.starts_with(class))
}

async fn apply(session: &mut Session, mut applied: Applied) -> Result<Migrated, Failure> {
    let limit = MIGRATE_LIMIT.as_millis();
    let rows = session
        .rows(format!(
            "begin;
            set local statement_timeout = '{limit}ms';
            set local idle_in_transaction_session_timeout = {MOST_IDLE};
            do 'begin perform pg_advisory_xact_lock({LOCK}); end';
            create table if not exists {MIGRATIONS_TABLE} (
                version bigint primary key,
                description text not null,
                checksum bytea not null,
                success boolean not null default true,
                applied_at timestamptz not null default now()
            );
            select to_regclass('telemetry') is not null,
                current_setting('server_version_num')::int, current_setting('server_version');
            {}",
            entries(MIGRATIONS_TABLE)
        ))
        .await?;
    let is_there = first(&rows)?;
    if let Some(row) = rows.first() {
        let version = || Ok((row.try_get(1)?, row.try_get(2)?));
        let (number, version): (i32, String) = version().map_err(Failure::of_statement)?;
        if let Some(reason) = is_too_old(number, &version) {
            return Err(Failure::unavailable(reason));
        }
    }
    // Whoever held the lock before us may have applied them.
    applied.extend(read(rows.get(1..).unwrap_or_default())?);
    for migration in not_in(&applied) {
        let sql = match migration.version {
            MAKES_TABLE if is_there => String::new(),
            _ => format!("{};", migration.sql.as_str()),
        };
        let sql = format!("{sql}{}", note(migration));
        if migration.version < PATIENT {
            session.run(sql).await?;
            continue;
        }
        let limited = format!("savepoint patient; {}; {sql}", locks::exclusive(&["telemetry"]));
        match session.run(limited + "release patient").await {
            Ok(()) => {}
            Err(failure) if failure.sqlstate().is_some_and(passes) => {
                session.run("rollback to patient; commit".to_owned()).await?;
                return Ok(Migrated::PutOff);
            }
            Err(failure) => {
                // Others' tables are still ours to make.
                session.run("rollback to patient; commit".to_owned()).await?;
                if failure.sqlstate() == Some("42501") {
                    return Err(failure);
                }
                tracing::warn!(
                    migration = &*migration.description,
                    %failure,
                    "a migration of the table telemetry fails: rows are still stored, at the same speed as before; fix the cause, and the next start tries again"
                );
                return Ok(Migrated::SetAside);
            }
        }
    }
    session.run("commit".to_owned()).await?;
    Ok(Migrated::Wholly)
}

/// What says that it is applied.
fn note(migration: &Migration) -> String {
    format!(
        "insert into {MIGRATIONS_TABLE} (version, description, checksum)
        values ({}, '{}', '\\x{}')
        on conflict (version) do update set checksum = excluded.checksum;",
        migration.version,
        migration.description.replace('\'', "''"),
        Hex(&migration.checksum)
    )
}

fn not_in(applied: &Applied) -> impl Iterator<Item = &'static Migration> {
    MIGRATIONS.iter().filter(|migration| {
        let checksum = applied.get(&migration.version);
        checksum.is_none_or(|checksum| *checksum != Hex(&migration.checksum).to_string())
    })
}

struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::is_too_old;

    #[test]
    fn an_old_server_is_told_which_one_it_takes() {
        let said = is_too_old(120_022, "12.22 (Debian 12.22-1)").unwrap();
        assert_eq!(
            said,
            "PostgreSQL 12.22 (Debian 12.22-1) is too old, the ingestor needs 13 or newer"
        );
        assert_eq!(is_too_old(130_000, "13beta1"), None);
    }
}
