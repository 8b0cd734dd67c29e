//! All mappings of a configuration, and the tables that they need together.

use std::collections::BTreeMap;
use std::sync::Arc;

use rocket::figment::value::{Dict, Value};

use super::compile::compile;
use super::compiled::Mapping;
use super::dispatch::{Candidate, Dispatch};
use super::shape::{BUILT_IN_TABLE, Column, EXTRA_COLUMN, Kind, MOST_COLUMNS, TableShape};
use crate::base::settings::Sources;
use crate::telemetry::fields::FIELDS;

/// The keys of the file that are read here.
const KEYS: [&str; 3] = ["mapping", "builtin_mapping", "unmatched"];

/// More mappings are in no configuration.
const MOST_MAPPINGS: usize = 1_000;

/// What becomes of a message that no mapping takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unmatched {
    /// It is kept, with the reason.
    #[default]
    DeadLetter,
    /// It is acknowledged and counted.
    Drop,
}

/// All mappings, compiled.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// In the order of the file.
    pub(crate) list: Vec<Mapping>,
    pub(super) dispatch: Dispatch,
    /// Of each mapping, its table.
    pub(super) tables: Vec<Arc<TableShape>>,
    /// Whether the built-in shape is taken, last, of what `MQTT_TOPIC` brings.
    pub(crate) takes_built_in: bool,
    /// What becomes of a message that no mapping takes.
    pub(crate) unmatched: Unmatched,
}

impl PartialEq for Mappings {
    /// By name; two configurations are compared in tests alone.
    fn eq(&self, other: &Self) -> bool {
        let names = |mappings: &Self| -> Vec<String> {
            mappings.list.iter().map(|mapping| mapping.name.clone()).collect()
        };
        (names(self), self.takes_built_in, self.unmatched)
            == (names(other), other.takes_built_in, other.unmatched)
    }
}

impl Mappings {
    /// Reads them, and notes everything that is wrong with them.
    #[must_use]
    pub fn read(from: &mut Sources) -> Self {
        let entries = from.entries(&KEYS);
        let mut mistakes = Vec::new();
        let read = Self::of(&entries, &mut mistakes);
        for mistake in mistakes {
            from.mistake(mistake);
        }
        read
    }

    fn of(entries: &Dict, mistakes: &mut Vec<String>) -> Self {
        let takes_built_in = match entries.get("builtin_mapping") {
            None => true,
            Some(Value::Bool(_, flag)) => *flag,
            Some(_) => {
                mistakes.push("builtin_mapping in Rocket.toml: expected true or false".to_owned());
                true
            }
        };
        let unmatched = match entries.get("unmatched") {
            None => Unmatched::DeadLetter,
            Some(Value::String(_, word)) if word == "dead-letter" => Unmatched::DeadLetter,
            Some(Value::String(_, word)) if word == "drop" => Unmatched::Drop,
            Some(_) => {
                let what = "unmatched in Rocket.toml: expected \"dead-letter\" or \"drop\"";
                mistakes.push(what.to_owned());
                Unmatched::DeadLetter
            }
        };
        let list = match entries.get("mapping") {
            None => Vec::new(),
            Some(Value::Array(_, tables)) => compile_all(tables, mistakes),
            Some(_) => {
                let what = "mapping in Rocket.toml: each stands under [[default.mapping]], in two pairs of brackets";
                mistakes.push(what.to_owned());
                Vec::new()
            }
        };
        if list.is_empty() {
            for key in ["builtin_mapping", "unmatched"] {
                if entries.contains_key(key) && !entries.contains_key("mapping") {
                    mistakes
                        .push(format!("{key} in Rocket.toml: without a mapping it means nothing"));
                }
            }
        }
        check_names(&list, mistakes);
        Self { takes_built_in, unmatched, ..Self::with_tables(list, mistakes) }
    }

    fn with_tables(mut list: Vec<Mapping>, mistakes: &mut Vec<String>) -> Self {
        let mut columns: BTreeMap<String, BTreeMap<String, (Kind, String)>> = BTreeMap::new();
        for mapping in &list {
            let table = columns.entry(mapping.table.clone()).or_default();
            for (name, kind) in columns_of(mapping) {
                let place = format!("mapping \"{}\", field \"{name}\"", mapping.name);
                if let Some(fault) = built_in_fault(&mapping.table, &name, kind) {
                    mistakes.push(format!("{place}: {fault}"));
                }
                let (known, by) =
                    table.entry(name.clone()).or_insert_with(|| (kind, mapping.name.clone()));
                if *known != kind {
                    mistakes.push(format!(
                        "{place}: it is {} here and {} in mapping \"{by}\", which fills the same column of table \"{}\"",
                        kind.as_str(), known.as_str(), mapping.table
                    ));
                }
            }
        }
        let mut shapes = BTreeMap::new();
        for (name, columns) in columns {
            if columns.len() > MOST_COLUMNS {
                mistakes.push(format!(
                    "table \"{name}\": the mappings give it {} columns, {MOST_COLUMNS} are allowed",
                    columns.len()
                ));
            }
            let columns =
                columns.into_iter().map(|(name, (kind, _))| Column { name, kind }).collect();
            shapes.insert(name.clone(), Arc::new(TableShape { name, columns }));
        }
        let mut dispatch = Dispatch::default();
        let mut tables = Vec::new();
        for (at, mapping) in list.iter_mut().enumerate() {
            let Some(shape) = shapes.get(&mapping.table) else { continue };
            tables.push(Arc::clone(shape));
            let column = |name: &str| {
                let at = shape.columns.iter().position(|column| column.name == name);
                at.and_then(|at| u16::try_from(at).ok()).unwrap_or(u16::MAX)
            };
            for field in &mut mapping.fields {
                field.column = column(&field.name);
            }
            if let Some(extra) = &mut mapping.extra {
                extra.column = column(EXTRA_COLUMN);
            }
            for (index, filter) in mapping.filters.iter().enumerate() {
                dispatch.add(filter, Candidate { mapping: at, filter: index });
            }
        }
        Self { list, dispatch, tables, ..Self::default() }
    }

    /// Whether there are none, so that everything is as if there were no such thing.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a reading of one of them can get the time of its arrival.
    #[must_use]
    pub(crate) fn use_arrival(&self) -> bool {
        self.list.iter().any(Mapping::uses_arrival)
    }

    /// The tables that they fill, in the order of their names.
    #[must_use]
    pub fn tables(&self) -> Vec<&Arc<TableShape>> {
        let mut tables: Vec<_> = self.tables.iter().collect();
        tables.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        tables.dedup_by(|one, other| one.name == other.name);
        tables
    }

    /// The mappings that fill `table`.
    pub(crate) fn filling<'m>(&'m self, table: &'m str) -> impl Iterator<Item = &'m Mapping> {
        self.list.iter().filter(move |mapping| mapping.table == table)
    }
}

fn compile_all(tables: &[Value], mistakes: &mut Vec<String>) -> Vec<Mapping> {
    if tables.len() > MOST_MAPPINGS {
        mistakes.push(format!("mapping: there are {}, {MOST_MAPPINGS} are allowed", tables.len()));
        return Vec::new();
    }
    let mut list = Vec::new();
    for (at, table) in (1..).zip(tables) {
        match table {
            Value::Dict(_, dict) => list.push(compile(dict, at, mistakes)),
            _ => mistakes.push(format!("mapping {at}: expected a table")),
        }
    }
    list
}

fn check_names(list: &[Mapping], mistakes: &mut Vec<String>) {
    for (at, mapping) in list.iter().enumerate() {
        let is_again = list[..at].iter().any(|other| other.name == mapping.name);
        if is_again && !mapping.name.is_empty() {
            let name = &mapping.name;
            mistakes.push(format!("mapping \"{name}\": name: another mapping is called so"));
        }
    }
}

fn columns_of(mapping: &Mapping) -> Vec<(String, Kind)> {
    let mut columns: Vec<_> =
        mapping.fields.iter().map(|field| (field.name.clone(), field.kind)).collect();
    columns.extend(mapping.extra.iter().map(|_| (EXTRA_COLUMN.to_owned(), Kind::Json)));
    columns
}

/// What is wrong with a column of the table that the built-in shape fills too.
fn built_in_fault(table: &str, column: &str, kind: Kind) -> Option<String> {
    if table != BUILT_IN_TABLE {
        return None;
    }
    if column == "id" {
        return Some(
            "older tables of the service have a column of their own of this name".to_owned(),
        );
    }
    let is_built_in = FIELDS.iter().any(|field| field.name == column);
    (is_built_in && kind != Kind::Float)
        .then(|| format!("in table \"{table}\" this column is a float"))
}
