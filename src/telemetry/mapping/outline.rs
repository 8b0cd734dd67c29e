//! What a set of mappings asks of the broker and of the database, for whoever starts or checks it.

use std::sync::Arc;

use super::compiled::Mapping;
use super::dispatch::{covers, is_within, shared_topic};
use super::set::Mappings;
use super::shape::{Column, Kind, TableShape};
use super::topic::{Filter, without_group};

impl Mappings {
    /// What to subscribe to: `own` and the mappings' topics, less what another one covers.
    #[must_use]
    pub fn subscriptions(&self, own: &[String]) -> Vec<String> {
        let mut wanted: Vec<String> = own.to_vec();
        if self.is_empty() {
            return wanted;
        }
        for topic in self.list.iter().flat_map(Mapping::subscriptions) {
            if !wanted.iter().any(|other| other == topic) {
                wanted.push(topic.to_owned());
            }
        }
        let filters: Vec<(bool, Option<Filter>)> =
            wanted.iter().map(|text| parse_subscription(text)).collect();
        let is_covered = |at: usize| {
            let (is_shared, Some(small)) = &filters[at] else { return false };
            filters.iter().enumerate().any(|(other, (other_shared, large))| {
                // What is shared brings a part of the messages, so it covers nothing.
                let Some(large) = large.as_ref().filter(|_| !other_shared && !is_shared) else {
                    return false;
                };
                let is_same = covers(&small.levels, &large.levels);
                other != at && covers(&large.levels, &small.levels) && (!is_same || other < at)
            })
        };
        (0..wanted.len()).filter(|at| !is_covered(*at)).map(|at| wanted[at].clone()).collect()
    }

    /// One line for each two subscriptions that overlap and of which neither is left out: some brokers
    /// deliver a message of such a topic once for each, and every broker does to one that is shared and
    /// one that is not.
    #[must_use]
    pub fn warnings(&self, own: &[String]) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        let wanted = self.subscriptions(own);
        let mut warnings = Vec::new();
        for (at, one) in wanted.iter().enumerate() {
            for other in &wanted[at + 1..] {
                let ((one_shared, Some(a)), (other_shared, Some(b))) =
                    (parse_subscription(one), parse_subscription(other))
                else {
                    continue;
                };
                let is_shared = one_shared || other_shared;
                let topic = shared_topic(&a, &b).filter(|_| is_shared || !is_within(&a, &b));
                let Some(topic) = topic else { continue };
                let who = if is_shared { "the broker delivers" } else { "some brokers deliver" };
                warnings.push(format!(
                    "the topic filters `{one}` and `{other}` both match `{topic}`: {who} such a message twice"
                ));
            }
        }
        warnings
    }

    /// The tables that they fill, in the order of their names.
    #[must_use]
    pub fn outlines(&self) -> Vec<TableOutline> {
        let outline = |table: &Arc<TableShape>| TableOutline {
            name: table.name.clone(),
            columns: table.columns.iter().map(|column| self.outline(&table.name, column)).collect(),
            mappings: self.filling(&table.name).map(|mapping| mapping.name.clone()).collect(),
        };
        self.tables().into_iter().map(outline).collect()
    }

    fn outline(&self, table: &str, column: &Column) -> ColumnOutline {
        let is_filled_by = |mapping: &&Mapping| match column.kind {
            Kind::Json => mapping.extra.is_some(),
            _ => mapping.fields.iter().any(|field| field.name == column.name),
        };
        let fields = self.filling(table).flat_map(|mapping| &mapping.fields);
        let mut units = fields.filter(|field| field.name == column.name);
        ColumnOutline {
            name: column.name.clone(),
            kind: column.kind,
            unit: units.find_map(|field| field.unit.clone()),
            mappings: self
                .filling(table)
                .filter(is_filled_by)
                .map(|mapping| mapping.name.clone())
                .collect(),
        }
    }

    /// One line for each table and its columns, in the order of their names.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let column = |column: &ColumnOutline| {
            let unit = column.unit.as_ref().map_or_else(String::new, |unit| format!(" ({unit})"));
            format!("{} {}{unit}", column.name, column.kind.sql())
        };
        let line = |table: TableOutline| {
            let columns: Vec<String> = table.columns.iter().map(column).collect();
            let (columns, by) = (columns.join(", "), table.mappings.join(", "));
            format!("table {}: {columns} [mappings: {by}]", table.name)
        };
        self.outlines().into_iter().map(line).collect()
    }
}

/// A table that mappings fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOutline {
    /// Its name.
    pub name: String,
    /// Those that mappings fill, in the order of their names.
    pub columns: Vec<ColumnOutline>,
    /// Which mappings fill it, in the order of the file.
    pub mappings: Vec<String>,
}

/// A column that mappings fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnOutline {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// What its values are in, as the first mapping has it that says so.
    pub unit: Option<String>,
    /// Which mappings fill it, in the order of the file.
    pub mappings: Vec<String>,
}

/// A subscription, and whether it is shared; `None` if it is no filter.
fn parse_subscription(text: &str) -> (bool, Option<Filter>) {
    let (group, filter) = without_group(text).unwrap_or(("", text));
    (!group.is_empty(), Filter::parse(filter).ok())
}
