//! What is wrong with the table when a query cannot be answered.

use sqlx::Row as _;

use crate::postgres::failure::{Failure, within};
use crate::postgres::table::COLUMNS;
use crate::postgres::{Database, QUERY_LIMIT, QUERY_TIMEOUT};

/// PostgreSQL's "datatype mismatch".
const MISMATCH: &str = "42804";

const TYPES: &str = "
    select attname::text, format_type(atttypid, null)
    from pg_attribute
    where attrelid = to_regclass('telemetry') and attnum > 0 and not attisdropped";

impl Database {
    /// `failure`, or the column that it comes from.
    pub(super) async fn explained(&self, failure: Failure) -> Failure {
        let is_of_the_data = failure.sqlstate().is_some_and(|code| code.starts_with("22"));
        let is_of_the_table = failure.is_configuration() && !failure.is_missing_table();
        if failure.is_untranslatable() || !(is_of_the_data || is_of_the_table) {
            return failure;
        }
        match within(QUERY_TIMEOUT, self.odd_column()).await {
            Ok(Some(reason)) => {
                Failure::Unavailable { reason, sqlstate: Some(MISMATCH.to_owned()) }
            }
            Ok(None) | Err(_) => failure,
        }
    }

    /// A sentence about the first column that a reading cannot be read from.
    async fn odd_column(&self) -> Result<Option<String>, Failure> {
        let mut lease = self.queries.lease().await?;
        let session = lease.session();
        session.begin(QUERY_LIMIT).await?;
        let rows = sqlx::query(TYPES)
            .persistent(false)
            .fetch_all(session.connection())
            .await
            .map_err(Failure::of_statement)?;
        session.end().await?;
        lease.keep();
        let types: Vec<(String, String)> = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, _>>()
            .map_err(Failure::of_statement)?;
        Ok((!types.is_empty()).then(|| first_odd(&types)).flatten())
    }
}

fn first_odd(types: &[(String, String)]) -> Option<String> {
    COLUMNS.iter().enumerate().find_map(|(at, column)| {
        let Some((_, found)) = types.iter().find(|(name, _)| name == column) else {
            return Some(format!("the table telemetry has no column {column}"));
        };
        let (expected, fits): (&str, &[&str]) = match at {
            0 => ("text", &["text", "character varying", "character", "citext"]),
            1 => ("timestamp with time zone", &["timestamp with", "date"]),
            _ => ("double precision", &["double", "real", "numeric", "integer", "bigint", "smallint"]),
        };
        (!fits.iter().any(|fit| found.starts_with(fit))).then(|| {
            format!("the column {column} of the table telemetry is of type {found}; change it to {expected}")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_column_that_cannot_be_read_is_named_with_its_type() {
        let mut types: Vec<(String, String)> = COLUMNS
            .iter()
            .map(|column| ((*column).to_owned(), "double precision".to_owned()))
            .collect();
        types[0].1 = "text".to_owned();
        types[1].1 = "timestamp without time zone".to_owned();
        assert_eq!(first_odd(&types), None);
        types[2].1 = "jsonb".to_owned();
        let said = first_odd(&types).unwrap();
        assert!(said.contains(COLUMNS[2]) && said.contains("jsonb"), "{said}");
        types.remove(1);
        assert_eq!(first_odd(&types).unwrap(), "the table telemetry has no column ts");
    }
}
