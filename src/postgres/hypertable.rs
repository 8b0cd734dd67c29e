//! Whether a table is one of TimescaleDB's.

use super::failure::Failure;
use super::session::Session;

/// By its parts: a name in a schema that this role may not use is no table to it.
const IS_HYPERTABLE: &str = "
    select exists (
        select from timescaledb_information.hypertables
        join pg_namespace on nspname = hypertable_schema
        join pg_class on relname = hypertable_name and relnamespace = pg_namespace.oid
        where pg_class.oid = to_regclass($1)
    )";

/// Whether TimescaleDB, which is there, keeps `table`, a quoted name.
pub(super) async fn is_hypertable(session: &mut Session, table: &str) -> Result<bool, Failure> {
    sqlx::query_scalar(IS_HYPERTABLE)
        .bind(table)
        .persistent(false)
        .fetch_one(session.connection())
        .await
        .map_err(Failure::of_statement)
}
