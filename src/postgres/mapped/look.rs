//! What the tables are that mappings fill, as PostgreSQL's catalogue has it, which everybody may read.

use std::collections::HashMap;

use sqlx::postgres::types::Oid;

use crate::postgres::failure::Failure;
use crate::postgres::session::Session;
use crate::telemetry::mapping::Kind;

const COLUMNS: &str = "
    select
        wanted.name,
        attname::text,
        format_type(atttypid, atttypmod),
        attnotnull and not atthasdef
    from unnest($1::text[]) as wanted (name)
    join pg_attribute on attrelid = to_regclass(quote_ident(wanted.name))
    where attnum > 0 and not attisdropped";
const KEYS: &str = "
    select
        wanted.name,
        (
            select indexrelid from pg_index
            where indrelid = to_regclass(quote_ident(wanted.name))
                and indisunique and indisvalid and indpred is null and indexprs is null
                and indnkeyatts = 2
                and 2 = (
                    select count(*) from pg_attribute
                    where attrelid = indrelid and attnum in (indkey[0], indkey[1])
                        and attname in ('device_id', 'ts')
                )
            order by indexrelid
            limit 1
        )
    from unnest($1::text[]) as wanted (name)
    where to_regclass(quote_ident(wanted.name)) is not null";

/// A table that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) columns: HashMap<String, FoundColumn>,
    /// Its unique key on `(device_id, ts)`.
    pub(super) key: Option<Oid>,
}

/// A column that is there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FoundColumn {
    /// Its type, as PostgreSQL says it.
    pub(super) sql: String,
    /// Whether a row has to have a value of its own in it.
    pub(super) is_required: bool,
}

impl FoundColumn {
    /// The kind that it holds, if it is of the type of one.
    pub(super) fn kind(&self) -> Option<Kind> {
        let kinds = [Kind::Float, Kind::Int, Kind::Bool, Kind::Text, Kind::Json];
        kinds.into_iter().find(|kind| kind.sql() == self.sql)
    }
}

/// Those of `tables` that are there. Leaves it to the caller to begin and to end.
pub(super) async fn look(
    session: &mut Session,
    tables: &[&str],
) -> Result<HashMap<String, Found>, Failure> {
    let keys: Vec<(String, Option<Oid>)> = sqlx::query_as(KEYS)
        .persistent(false)
        .bind(tables)
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let columns: Vec<(String, String, String, bool)> = sqlx::query_as(COLUMNS)
        .persistent(false)
        .bind(tables)
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let with_key = |(name, key)| (name, Found { key, ..Found::default() });
    let mut found: HashMap<String, Found> = keys.into_iter().map(with_key).collect();
    for (table, name, sql, is_required) in columns {
        if let Some(table) = found.get_mut(&table) {
            table.columns.insert(name, FoundColumn { sql, is_required });
        }
    }
    Ok(found)
}
