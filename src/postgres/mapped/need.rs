//! What rows need of a table, and the statements that make it so. Pure.
//!
//! Tables and columns come from the configuration, and from what waits in the log of an earlier one;
//! nothing is ever made from what arrives, dropped, or renamed.

use std::collections::{BTreeMap, BTreeSet};

use super::look::Found;
use crate::postgres::table::quoted;
use crate::telemetry::fields::FIELDS;
use crate::telemetry::mapping::{BUILT_IN_TABLE, Kind, Mappings};

/// What rows need of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Need {
    pub(super) columns: BTreeMap<String, NeededColumn>,
    /// Columns of the built-in shape that are left out now and then.
    pub(super) may_be_null: BTreeSet<String>,
}

/// A column that rows fill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NeededColumn {
    pub(super) kind: Kind,
    /// Whether the configuration says so, and it has to be of that type.
    pub(super) is_configured: bool,
}

/// Statements, in their order.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mend {
    /// For the service.
    pub(super) ours: Vec<String>,
    /// For an operator: they take time and locks, or change what is somebody else's.
    pub(super) operators: Vec<String>,
}

impl Mend {
    /// All of them.
    pub(super) fn statements(self) -> String {
        [self.ours, self.operators].concat().join("; ")
    }
}

/// What each table of the mappings needs, by its name.
pub(super) fn of_mappings(mappings: &Mappings) -> BTreeMap<String, Need> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    for shape in mappings.tables() {
        let need = needs.entry(shape.name.clone()).or_default();
        for column in &shape.columns {
            let needed = NeededColumn { kind: column.kind, is_configured: true };
            need.columns.insert(column.name.clone(), needed);
        }
        if shape.name == BUILT_IN_TABLE {
            let is_optional =
                |name: &str| mappings.filling(BUILT_IN_TABLE).any(|one| !one.always_fills(name));
            let optional = FIELDS.iter().map(|field| field.name).filter(|name| is_optional(name));
            need.may_be_null = optional.map(str::to_owned).collect();
        }
    }
    needs
}

impl Need {
    /// Needs what `other` does, too, which is of an older configuration.
    pub(super) fn add(&mut self, other: Self) {
        for (name, column) in other.columns {
            self.columns.entry(name).or_insert(column);
        }
        self.may_be_null.extend(other.may_be_null);
    }

    /// What makes `found` fit for it.
    pub(super) fn mend(&self, table: &str, found: Option<&Found>) -> Mend {
        let mut mend = Mend::default();
        let is_built_in = table == BUILT_IN_TABLE;
        let Some(found) = found else {
            // That one is the migrations' to make.
            if !is_built_in {
                mend.ours = self.make(table);
            }
            return mend;
        };
        let table = quoted(table);
        let mut added = Vec::new();
        for (name, needed) in &self.columns {
            let is_fixed = is_built_in && FIELDS.iter().any(|field| field.name == name);
            let there = found.columns.get(name);
            let (name, kind) = (quoted(name), needed.kind);
            match there {
                None => added.push(format!("add column if not exists {name} {}", kind.sql())),
                // Whoever has made it knows why it is of another type; a double fits into it.
                Some(_) if is_fixed => {}
                Some(there) => {
                    let fits = match there.kind() {
                        Some(of) => of == kind || !needed.is_configured,
                        None => false,
                    };
                    if !fits {
                        mend.operators.push(retype(&table, &name, &there.sql, kind));
                    }
                }
            }
        }
        if !added.is_empty() {
            mend.ours.push(format!("alter table {table} {}", added.join(", ")));
        }
        for name in &self.may_be_null {
            if found.columns.get(name).is_some_and(|column| column.is_required) {
                let name = quoted(name);
                mend.ours.push(format!("alter table {table} alter column {name} drop not null"));
            }
        }
        if !is_built_in {
            for (name, sql) in [("device_id", "text"), ("ts", "timestamp with time zone")] {
                let there = found.columns.get(name).map(|column| column.sql.as_str());
                if there.is_none() {
                    mend.operators.push(format!("alter table {table} add column {name} {sql}"));
                } else if there != Some(sql) {
                    mend.operators
                        .push(format!("alter table {table} alter column {name} type {sql}"));
                }
            }
        }
        if found.key.is_none() {
            mend.operators.push(format!("alter table {table} add unique (device_id, ts)"));
        }
        mend
    }

    /// A table of our own, with the same indexes as `telemetry`.
    fn make(&self, table: &str) -> Vec<String> {
        let table = quoted(table);
        let column = |(name, needed): (&String, &NeededColumn)| {
            format!("{} {}, ", quoted(name), needed.kind.sql())
        };
        let columns: String = self.columns.iter().map(column).collect();
        vec![
            format!(
                "create table {table} (device_id text not null, ts timestamptz not null, \
                 {columns}created_at timestamptz not null default now(), unique (device_id, ts))"
            ),
            format!("create index on {table} (ts)"),
            format!("create index on {table} using brin (created_at)"),
        ]
    }
}

/// There is no cast between doubles and booleans.
fn retype(table: &str, name: &str, from: &str, to: Kind) -> String {
    let sql = to.sql();
    let by = match (from, to) {
        ("boolean", Kind::Float) => format!("{name}::int::{sql}"),
        ("double precision", Kind::Bool) => format!("({name} <> 0)"),
        (_, Kind::Json) => format!("to_jsonb({name})"),
        _ => format!("{name}::{sql}"),
    };
    format!("alter table {table} alter column {name} type {sql} using {by}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sqlx::postgres::types::Oid;

    use super::super::look::FoundColumn;
    use super::*;
    use crate::base::settings::Sources;

    fn needs(toml: &str) -> BTreeMap<String, Need> {
        let mut from = Sources::new(BTreeMap::new(), toml);
        let mappings = Mappings::read(&mut from);
        from.finish().unwrap();
        of_mappings(&mappings)
    }

    fn mapping(name: &str, more: &str) -> String {
        format!(
            "[[default.mapping]]\nname = \"{name}\"\ntopic = \"{name}/{{d}}\"\ndevice = \"{{d}}\"\n\
             time = {{ path = \"t\" }}\n{more}\n"
        )
    }

    fn found(columns: &[(&str, &str, bool)]) -> Found {
        let column = |(name, sql, is_required): &(&str, &str, bool)| {
            let (sql, is_required) = ((*sql).to_owned(), *is_required);
            ((*name).to_owned(), FoundColumn { sql, is_required })
        };
        let own = [("device_id", "text", true), ("ts", "timestamp with time zone", true)];
        let columns = own.iter().chain(columns).map(column).collect();
        Found { columns, key: Some(Oid(1)) }
    }

    #[test]
    fn a_table_that_is_not_there_is_made_with_the_columns_that_mappings_fill() {
        let needs = needs(&mapping(
            "m",
            "table = \"order\"\nfields = { user = {}, n = { type = \"int\" }, on = { type = \"bool\" } }",
        ));
        let made = needs["order"].mend("order", None);
        assert_eq!(made.operators, [""; 0]);
        assert_eq!(
            made.ours,
            [
                "create table \"order\" (device_id text not null, ts timestamptz not null, \
                 \"n\" bigint, \"on\" boolean, \"user\" double precision, \
                 created_at timestamptz not null default now(), unique (device_id, ts))",
                "create index on \"order\" (ts)",
                "create index on \"order\" using brin (created_at)",
            ]
        );
    }

    #[test]
    fn a_table_that_fits_needs_nothing_and_one_that_lacks_columns_gets_them() {
        let needs = needs(&mapping("m", "table = \"t\"\nfields = [\"a\", \"b\"]"));
        let need = &needs["t"];
        let fits = found(&[
            ("a", "double precision", false),
            ("b", "double precision", true),
            ("c", "uuid", false),
        ]);
        assert_eq!(need.mend("t", Some(&fits)), Mend::default());
        let lacks = need.mend("t", Some(&found(&[("b", "double precision", false)])));
        assert_eq!(
            lacks.ours,
            ["alter table \"t\" add column if not exists \"a\" double precision"]
        );
    }

    #[test]
    fn what_is_of_another_type_or_has_no_key_is_the_operators_to_change() {
        let needs = needs(&mapping("m", "table = \"t\"\nfields = [\"a\"]"));
        let other = Found { key: None, ..found(&[("a", "boolean", false)]) };
        let mend = needs["t"].mend("t", Some(&other));
        assert_eq!(mend.ours, [""; 0]);
        assert_eq!(
            mend.operators,
            [
                "alter table \"t\" alter column \"a\" type double precision using \"a\"::int::double precision",
                "alter table \"t\" add unique (device_id, ts)",
            ]
        );
    }

    #[test]
    fn null_is_allowed_in_a_built_in_column_only_where_a_mapping_may_leave_it_out() {
        let table = found(&[
            ("temperature", "double precision", true),
            ("humidity", "real", true),
            ("battery", "double precision", true),
        ]);
        let all = "fields = { temperature = { required = true }, humidity = { default = 1 }, battery = { required = true } }";
        let full = needs(&mapping("m", all));
        assert_eq!(full["telemetry"].mend("telemetry", Some(&table)), Mend::default());
        let some = needs(&(mapping("m", all) + &mapping("n", "fields = [\"humidity\", \"co2\"]")));
        assert_eq!(
            some["telemetry"].mend("telemetry", Some(&table)).ours,
            [
                "alter table \"telemetry\" add column if not exists \"co2\" double precision",
                "alter table \"telemetry\" alter column \"battery\" drop not null",
                "alter table \"telemetry\" alter column \"humidity\" drop not null",
                "alter table \"telemetry\" alter column \"temperature\" drop not null",
            ]
        );
    }

    #[test]
    fn what_the_configuration_says_goes_before_what_waits_in_the_log() {
        let mut needs = needs(&mapping("m", "table = \"t\"\nfields = [\"a\"]"));
        let need = needs.get_mut("t").unwrap();
        let of_log = |kind| NeededColumn { kind, is_configured: false };
        let columns =
            [("a".to_owned(), of_log(Kind::Int)), ("old".to_owned(), of_log(Kind::Bool))].into();
        need.add(Need { columns, ..Need::default() });
        // A column that only the log knows may be of any kind.
        let table = found(&[("a", "double precision", false), ("old", "text", false)]);
        assert_eq!(need.mend("t", Some(&table)), Mend::default());
        let made = need.mend("t", None);
        assert!(made.ours[0].contains("\"a\" double precision, \"old\" boolean"), "{made:?}");
    }
}
