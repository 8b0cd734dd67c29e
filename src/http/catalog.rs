//! The tables and columns that can be asked for.
//!
//! They are those of the configuration, so that an answer has the same keys whatever state the database
//! is in: a column that the table does not have yet is null. Only what a request names itself is looked for
//! in the table as well: the column of a field that was taken out of the file stays, and stays readable.
//! A table that no mapping fills any more, or that is another program's, is not ours to show.

use crate::postgres::Relation;
use crate::telemetry::fields::FIELDS;
use crate::telemetry::mapping::{BUILT_IN_TABLE, ColumnOutline, Kind, Mappings, TableOutline};

/// The tables of the configuration, that of the built-in shape first.
#[derive(Clone, Debug)]
pub(crate) struct Tables(Vec<Table>);

/// A table that can be asked for.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// In the order in which they are shown.
    pub(super) columns: Vec<ColumnOutline>,
    pub(super) mappings: Vec<String>,
}

impl Tables {
    /// Those of a configuration.
    #[must_use]
    pub(crate) fn of(mappings: &Mappings) -> Self {
        let mut built_in = Table::built_in();
        let mut others = Vec::new();
        for outline in mappings.outlines() {
            if outline.name == BUILT_IN_TABLE {
                built_in.add(outline);
            } else {
                let TableOutline { name, columns, mappings } = outline;
                others.push(Table { name, columns, mappings });
            }
        }
        others.insert(0, built_in);
        Self(others)
    }

    /// How each of them is read as a whole.
    #[must_use]
    pub(crate) fn relations(&self) -> Vec<Relation> {
        self.0.iter().map(Table::relation).collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<&Table> {
        self.0.iter().find(|table| table.name == name)
    }

    pub(super) fn all(&self) -> &[Table] {
        &self.0
    }
}

impl Table {
    /// That of the built-in shape, as long as no mapping fills it.
    fn built_in() -> Self {
        let column = |field: &crate::telemetry::fields::Field| ColumnOutline {
            name: field.name.to_owned(),
            kind: Kind::Float,
            unit: Some(field.unit.to_owned()),
            mappings: Vec::new(),
        };
        let columns = FIELDS.iter().map(column).collect();
        Self { name: BUILT_IN_TABLE.to_owned(), columns, mappings: Vec::new() }
    }

    fn add(&mut self, TableOutline { columns, mappings, .. }: TableOutline) {
        self.mappings = mappings;
        for column in columns {
            match self.columns.iter_mut().find(|known| known.name == column.name) {
                Some(known) => known.mappings = column.mappings,
                None => self.columns.push(column),
            }
        }
    }

    /// Whether a row of it is a reading of the built-in shape and nothing else.
    pub(super) fn is_built_in(&self) -> bool {
        self.name == BUILT_IN_TABLE && self.mappings.is_empty()
    }

    /// How its rows are read if all of their columns are asked for.
    pub(super) fn relation(&self) -> Relation {
        if self.is_built_in() { Relation::built_in() } else { Relation::whole(&self.name) }
    }

    pub(super) fn column(&self, name: &str) -> Option<&ColumnOutline> {
        self.columns.iter().find(|column| column.name == name)
    }
}

#[cfg(test)]
impl Tables {
    /// With a table of its own, and a column beside those of the built-in shape.
    pub(super) fn example() -> Self {
        let file = r#"
            [[default.mapping]]
            name = "shelly"
            topic = "+/events/rpc"
            device = "{.src}"
            time = { path = "ts", format = "s" }
            table = "power"
            fields = { power = { unit = "W" }, output = { type = "bool" } }
            [[default.mapping]]
            name = "counter"
            topic = "count/{d}"
            device = "{d}"
            time = { path = "ts" }
            fields = { count = { type = "int" }, humidity = {} }
        "#;
        let mut sources =
            crate::base::settings::Sources::new(std::collections::BTreeMap::new(), file);
        let tables = Self::of(&Mappings::read(&mut sources));
        sources.mistakes_so_far().unwrap();
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_the_built_in_shape_come_first_and_what_mappings_add_behind_them() {
        let tables = Tables::example();
        let shown = |name| -> Vec<String> {
            let table = tables.find(name).unwrap();
            table
                .columns
                .iter()
                .map(|column| format!("{} {:?}", column.name, column.mappings))
                .collect()
        };
        let none = "[]";
        assert_eq!(
            shown("telemetry"),
            [
                format!("temperature {none}"),
                r#"humidity ["counter"]"#.to_owned(),
                format!("battery {none}"),
                r#"count ["counter"]"#.to_owned(),
            ]
        );
        assert_eq!(shown("power"), [r#"output ["shelly"]"#, r#"power ["shelly"]"#]);
        assert!(tables.find("telemetry_devices").is_none() && !tables.all()[0].is_built_in());
        let without = Tables::of(&Mappings::default());
        assert!(without.all().len() == 1 && without.all()[0].is_built_in());
    }
}
