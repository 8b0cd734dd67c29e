//! The columns that a table has, whatever the configuration says.

use sqlx::Row as _;

use crate::postgres::database::Database;
use crate::postgres::failure::{Failure, within};
use crate::postgres::limits::{QUERY_LIMIT, QUERY_TIMEOUT};
use crate::postgres::session::Session;

const COLUMNS: &str = "
    select attname::text, format_type(atttypid, null)
    from pg_attribute
    where attrelid = to_regclass(quote_ident($1)) and attnum > 0 and not attisdropped";

/// A column as PostgreSQL has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredColumn {
    /// Whatever somebody has called it.
    pub(crate) name: String,
    /// As PostgreSQL writes it, such as `double precision`.
    pub(crate) sql_type: String,
}

impl Database {
    /// The columns of `table`; none if there is no such table.
    ///
    /// # Errors
    /// See [`Failure`]; after [`QUERY_TIMEOUT`] at the latest.
    pub(crate) async fn columns(&self, table: &str) -> Result<Vec<StoredColumn>, Failure> {
        within(QUERY_TIMEOUT, async {
            let mut lease = self.queries.lease().await?;
            let session = lease.session();
            session.begin(QUERY_LIMIT).await?;
            let columns = columns_of(session, table).await?;
            session.end().await?;
            lease.keep();
            Ok(columns)
        })
        .await
    }
}

async fn columns_of(session: &mut Session, table: &str) -> Result<Vec<StoredColumn>, Failure> {
    let rows = sqlx::query(COLUMNS)
        .bind(table)
        .persistent(false)
        .fetch_all(session.connection())
        .await
        .map_err(Failure::of_statement)?;
    let column = |row: &sqlx::postgres::PgRow| {
        Ok(StoredColumn { name: row.try_get(0)?, sql_type: row.try_get(1)? })
    };
    rows.iter().map(column).collect::<Result<_, _>>().map_err(Failure::of_statement)
}
