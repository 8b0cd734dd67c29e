//! `REINDEX_CLOSED`: partitions that nothing comes into any more get their indexes anew.
//!
//! Rows come in the order of time and not of devices, so the pages of the key are a third empty when the
//! day is over. Built anew, beside whoever reads and writes, it takes 24 bytes a row less. Which are done
//! stands with the key itself, as the `fillfactor` that fits an index that is only read.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::partitions::{BOUNDS, SETTINGS, TO_MICROS};
use crate::postgres::session::{Scope, Session};

const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for the indexes of one partition.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// A partition is closed when its range ended so long ago: late readings have come by then.
const LATE: i64 = 24 * 60 * 60 * 1_000_000;

/// One for all ingestors of a database: "iot-clsd" in ASCII.
const LOCK: i64 = 0x696f_742d_636c_7364;

/// Partition and key of what has ended first and is not done, and how many bytes its indexes take.
type Found = (String, String, i64);

impl Database {
    /// One of them; whether there may be more.
    pub(super) async fn reindex_closed(&self) -> Result<bool, Failure> {
        // The work itself is in no transaction, so that this one, which holds nothing else, is there for the lock.
        let (mut turn, _) = self.writes.server().connect(&[]).await?;
        if !within(LOOK_LIMIT * 2, take(&mut turn)).await? {
            return Ok(false);
        }
        let (mut session, _) = self.writes.server().connect(&[]).await?;
        let Some((part, key, before)) = within(LOOK_LIMIT * 2, find(&mut session)).await? else {
            return Ok(false);
        };
        // No transaction can hold it.
        session.set_scope(Scope::Statement);
        within(LIMIT, async {
            drop_remains(&mut session, &part).await?;
            session.run(format!("reindex table concurrently {part}")).await?;
            session.run(format!("alter index {key} set (fillfactor = 100)")).await
        })
        .await?;
        let after = within(LOOK_LIMIT * 2, bytes(&mut session, &part)).await?;
        tracing::info!(
            partition = part,
            bytes_before = before,
            bytes_after = after,
            "the indexes of a closed partition are built anew"
        );
        Ok(true)
    }
}

/// Whether it is this ingestor's to go on, until the end of the session.
async fn take(turn: &mut Session) -> Result<bool, Failure> {
    turn.set_scope(Scope::Transaction);
    turn.begin(LOOK_LIMIT).await?;
    turn.run("select set_config('idle_in_transaction_session_timeout', '0', true)".to_owned())
        .await?;
    sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
        .bind(LOCK)
        .persistent(false)
        .fetch_one(turn.connection())
        .await
        .map_err(Failure::of_statement)
}

async fn find(session: &mut Session) -> Result<Option<Found>, Failure> {
    session.set_scope(Scope::Transaction);
    session.begin(LOOK_LIMIT).await?;
    session.run(SETTINGS.to_owned()).await?;
    let sql = format!(
        "select format('%I.%I', nspname, part.relname), format('%I.%I', nspname, key.relname),
            pg_indexes_size(part.oid)
        from pg_inherits
        join pg_class as part on part.oid = inhrelid
        join pg_namespace on pg_namespace.oid = part.relnamespace
        join pg_index on indrelid = part.oid and indisunique and indisvalid
        join pg_class as key on key.oid = indexrelid
        cross join {BOUNDS}
        where inhparent = to_regclass('telemetry') and part.relispartition and part.relkind = 'r'
            and part.relname ~ '^telemetry_p[0-9]' and pg_has_role(part.relowner, 'usage')
            and pg_relation_size(part.oid) > 0
            and {TO_MICROS} < (extract(epoch from clock_timestamp()) * 1000000)::bigint - {LATE}
            and not coalesce(key.reloptions @> array['fillfactor=100'], false)
        order by {TO_MICROS}
        limit 1"
    );
    let found = sqlx::query_as(AssertSqlSafe(sql))
        .persistent(false)
        .fetch_optional(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    session.end().await?;
    Ok(found)
}

/// What an attempt has left that was broken off: indexes that are kept up to date and used by nobody.
async fn drop_remains(session: &mut Session, part: &str) -> Result<(), Failure> {
    let sql = "select format('%I.%I', nspname, relname) from pg_index
        join pg_class on pg_class.oid = indexrelid
        join pg_namespace on pg_namespace.oid = relnamespace
        where indrelid = to_regclass($1) and not indisvalid and relname ~ '_cc(new|old)[0-9]*$'";
    let remains: Vec<String> = sqlx::query_scalar(sql)
        .bind(part)
        .persistent(false)
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    for index in remains {
        session.run(format!("drop index concurrently if exists {index}")).await?;
    }
    Ok(())
}

async fn bytes(session: &mut Session, part: &str) -> Result<i64, Failure> {
    sqlx::query_scalar("select coalesce(pg_indexes_size(to_regclass($1)), 0)")
        .bind(part)
        .persistent(false)
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)
}
