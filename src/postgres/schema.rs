//! The migrations of `migrations/`, applied by the service itself.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use super::failure::{Failure, within};
use super::{Database, QUERY_TIMEOUT, SCHEMA_SETTINGS};

/// Longest wait for migrations: another ingestor may hold their lock, and an index on a table that
/// was there before takes its time.
pub const MIGRATE_TIMEOUT: Duration = Duration::from_secs(300);

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

impl Database {
    /// Brings the schema up to date.
    ///
    /// Changes nothing, and needs no right to, if every migration is applied already; those of a
    /// newer version do no harm. A role that may not migrate uses the table as it finds it.
    /// Several ingestors may do this at once: sqlx holds an advisory lock. Cancellation-safe:
    /// each migration is a transaction.
    ///
    /// # Errors
    /// Always [`Failure::Unavailable`]: after [`QUERY_TIMEOUT`] at the latest if the database does
    /// not answer, after [`MIGRATE_TIMEOUT`] if there is something to migrate.
    pub async fn prepare_schema(&self) -> Result<(), Failure> {
        let (mut connection, prepared) = within(QUERY_TIMEOUT, async {
            // Not one of those for batches, whose statements may not take as long as migrations.
            let mut connection = self.writes.server().connect(SCHEMA_SETTINGS).await?;
            let prepared = is_prepared(&mut connection).await;
            Ok((connection, prepared))
        })
        .await?;
        let outcome = match prepared {
            Ok(true) => Ok(()),
            Ok(false) => within(MIGRATE_TIMEOUT, migrate(&mut connection)).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Err(failure)
                if failure.sqlstate() == Some("42501")
                    && within(QUERY_TIMEOUT, has_table(&mut connection)).await? =>
            {
                tracing::warn!(%failure, "this role may not migrate, the table is used as it is");
                Ok(())
            }
            outcome => outcome,
        }
    }
}

async fn migrate(connection: &mut PgConnection) -> Result<(), Failure> {
    // `run` less its generic argument, for which the compiler cannot prove that the future is
    // `Send`, so that nothing that awaits it could be spawned.
    MIGRATIONS.run_direct(None, connection, false).await.map_err(Failure::of_migration)
}

/// Whether all of our migrations are applied. Asked before sqlx is, which would create its own
/// table in any case, and refuse one that a newer version has migrated.
async fn is_prepared(connection: &mut PgConnection) -> Result<bool, Failure> {
    let applied = sqlx::query_as::<_, (i64, Vec<u8>)>(
        "select version, checksum from _sqlx_migrations where success",
    );
    let applied: HashMap<i64, Vec<u8>> =
        match applied.fetch_all(connection).await.map_err(Failure::of_statement) {
            Ok(rows) => rows.into_iter().collect(),
            Err(failure) if failure.is_missing_table() => return Ok(false),
            Err(failure) => return Err(failure),
        };
    Ok(MIGRATIONS.iter().all(|migration| {
        applied.get(&migration.version).is_some_and(|checksum| *checksum == *migration.checksum)
    }))
}

async fn has_table(connection: &mut PgConnection) -> Result<bool, Failure> {
    sqlx::query_scalar("select to_regclass('telemetry') is not null")
        .fetch_one(connection)
        .await
        .map_err(Failure::of_statement)
}
