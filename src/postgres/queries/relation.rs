//! Which table is asked, and how its rows are read.
//!
//! The table of the built-in shape is read column by column, as the types that a reading has. A table that
//! mappings fill is read as whole rows, each as one JSON object that PostgreSQL makes of it: whatever
//! columns it has at that moment, of whatever types. So a column that is not there yet, that was left out
//! of the file, or whose type somebody has changed costs no answer.

use std::fmt::Write as _;

use crate::postgres::table::{COLUMNS, DEVICES};
use crate::telemetry::mapping::BUILT_IN_TABLE;

/// A table, and what of its rows is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    name: String,
    is_whole: bool,
}

impl Relation {
    /// The table of the built-in shape, of which the fields are read that every reading has.
    #[must_use]
    pub(crate) fn built_in() -> Self {
        Self { name: BUILT_IN_TABLE.to_owned(), is_whole: false }
    }

    /// The table `name` of the configuration, `[a-z][a-z0-9_]*`, of which whole rows are read.
    #[must_use]
    pub(crate) fn whole(name: &str) -> Self {
        Self { name: name.to_owned(), is_whole: true }
    }

    /// What it is called.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether whole rows are read.
    #[must_use]
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The columns without which it cannot be read.
    pub(super) fn needed(&self) -> &'static [&'static str] {
        if self.is_whole { &COLUMNS[..2] } else { &COLUMNS }
    }

    /// What is selected. A column that is of the type it is read as costs nothing.
    pub(super) fn columns(&self) -> String {
        let [device_id, ts, fields @ ..] = COLUMNS;
        let mut list = format!("telemetry.{device_id}::text, telemetry.{ts}::timestamptz");
        if self.is_whole {
            // The dot and the star tell the row from a column that is called like the table.
            list.push_str(", row_to_json(telemetry.*)::text");
        } else {
            for column in fields {
                // Writing to a string does not fail.
                write!(list, ", telemetry.{column}::float8").ok();
            }
        }
        list
    }

    /// Behind `from`: in a statement every table is called `telemetry`.
    pub(super) fn source(&self) -> String {
        match self.name.as_str() {
            BUILT_IN_TABLE => BUILT_IN_TABLE.to_owned(),
            name => format!("\"{name}\" as telemetry"),
        }
    }

    /// The table that lists the names of its devices, as `device_id`.
    pub(super) fn list(&self) -> Option<&'static str> {
        (self.name == BUILT_IN_TABLE).then_some(DEVICES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_may_be_called_like_one_of_its_columns_or_like_a_word_of_sql() {
        let order = Relation::whole("order");
        assert_eq!(order.source(), "\"order\" as telemetry");
        assert!(order.columns().ends_with("row_to_json(telemetry.*)::text"));
    }

    #[test]
    fn the_built_in_shape_is_read_column_by_column() {
        let built_in = Relation::built_in();
        assert_eq!(built_in.source(), "telemetry");
        assert!(built_in.columns().ends_with(", telemetry.battery::float8"));
        assert_eq!(Relation::whole("telemetry").source(), "telemetry");
    }
}
