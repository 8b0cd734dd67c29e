//! What is wrong with the table when a query cannot be answered.

use super::columns::StoredColumn;
use super::relation::Relation;
use crate::postgres::database::Database;
use crate::postgres::failure::Failure;

/// PostgreSQL's "datatype mismatch".
const MISMATCH: &str = "42804";

impl Database {
    /// `failure`, or the column that it comes from.
    pub(super) async fn explained(&self, failure: Failure, relation: &Relation) -> Failure {
        let is_of_the_data = failure.sqlstate().is_some_and(|code| code.starts_with("22"));
        let is_of_the_table = failure.is_configuration() && !failure.is_missing_table();
        if failure.is_untranslatable() || !(is_of_the_data || is_of_the_table) {
            return failure;
        }
        match self.columns(relation.name()).await {
            Ok(columns) if !columns.is_empty() => match first_odd(relation, &columns) {
                Some(reason) => {
                    Failure::Unavailable { reason, sqlstate: Some(MISMATCH.to_owned()) }
                }
                None => failure,
            },
            Ok(_) | Err(_) => failure,
        }
    }
}

/// A sentence about the first column that a row cannot be read from.
fn first_odd(relation: &Relation, columns: &[StoredColumn]) -> Option<String> {
    let table = relation.name();
    relation.needed().iter().enumerate().find_map(|(at, column)| {
        let Some(found) = columns.iter().find(|stored| stored.name == *column) else {
            return Some(format!("the table {table} has no column {column}"));
        };
        let found = &found.sql_type;
        let (expected, fits): (&str, &[&str]) = match at {
            0 => ("text", &["text", "character varying", "character", "citext"]),
            1 => ("timestamp with time zone", &["timestamp with", "date"]),
            _ => ("double precision", &["double", "real", "numeric", "integer", "bigint", "smallint"]),
        };
        (!fits.iter().any(|fit| found.starts_with(fit))).then(|| {
            format!("the column {column} of the table {table} is of type {found}; change it to {expected}")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::table::COLUMNS;

    #[test]
    fn the_first_column_that_cannot_be_read_is_named_with_its_type() {
        let built_in = Relation::built_in();
        let mut columns: Vec<StoredColumn> = COLUMNS
            .iter()
            .map(|column| StoredColumn {
                name: (*column).to_owned(),
                sql_type: "double precision".to_owned(),
            })
            .collect();
        columns[0].sql_type = "text".to_owned();
        columns[1].sql_type = "timestamp without time zone".to_owned();
        assert_eq!(first_odd(&built_in, &columns), None);
        columns[2].sql_type = "jsonb".to_owned();
        let said = first_odd(&built_in, &columns).unwrap();
        assert!(said.contains(COLUMNS[2]) && said.contains("jsonb"), "{said}");
        assert_eq!(first_odd(&Relation::whole("power"), &columns), None, "any type is shown");
        columns.remove(1);
        assert_eq!(
            first_odd(&Relation::whole("power"), &columns).unwrap(),
            "the table power has no column ts"
        );
    }
}
