//! What a set of mappings asks of the broker and of the database, for whoever starts or checks it.

use std::collections::HashSet;
use std::sync::Arc;

use super::compiled::Mapping;
use super::dispatch::{Candidate, Dispatch, covers, is_within, shared_topic};
use super::set::Mappings;
use super::shape::{Column, Kind, TableShape};
use super::topic::{Filter, without_group};

/// More pairs of filters that overlap are counted, and not named.
const MOST_WARNINGS: usize = 100;

impl Mappings {
    /// What to subscribe to: `own` and the mappings' topics, less what another one covers.
    #[must_use]
    pub(crate) fn subscriptions(&self, own: &[String]) -> Vec<String> {
        let mut wanted: Vec<String> = own.to_vec();
        if self.is_empty() {
            return wanted;
        }
        let mut known: HashSet<&str> = own.iter().map(String::as_str).collect();
        for topic in self.list.iter().flat_map(Mapping::subscriptions) {
            if known.insert(topic) {
                wanted.push(topic.to_owned());
            }
        }
        let wanted = Wanted::new(wanted);
        let is_left = |at: &usize| !wanted.is_covered(*at);
        (0..wanted.texts.len()).filter(is_left).map(|at| wanted.texts[at].clone()).collect()
    }

    /// One line for each two subscriptions that overlap and of which neither is left out: some brokers
    /// deliver a message of such a topic once for each, and every broker does to one that is shared and
    /// one that is not. Of many some are named.
    #[must_use]
    pub(crate) fn warnings(&self, own: &[String]) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        let wanted = Wanted::new(self.subscriptions(own));
        let mut warnings = Vec::new();
        let mut others = 0_u64;
        for at in 0..wanted.texts.len() {
            for other in wanted.overlapping(at).into_iter().filter(|other| *other > at) {
                if warnings.len() < MOST_WARNINGS {
                    warnings.extend(wanted.warning(at, other));
                } else {
                    others += u64::from(wanted.come_twice(at, other));
                }
            }
        }
        if others > 0 {
            warnings
                .push(format!("{others} more pairs of topic filters overlap, and are not shown"));
        }
        warnings
    }

    /// The tables that they fill, in the order of their names.
    #[must_use]
    pub(crate) fn outlines(&self) -> Vec<TableOutline> {
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
pub(crate) struct TableOutline {
    /// Its name.
    pub(crate) name: String,
    /// Those that mappings fill, in the order of their names.
    pub(crate) columns: Vec<ColumnOutline>,
    /// Which mappings fill it, in the order of the file.
    pub(crate) mappings: Vec<String>,
}

/// A column that mappings fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnOutline {
    /// Its name.
    pub(crate) name: String,
    /// What it holds.
    pub(crate) kind: Kind,
    /// What its values are in, as the first mapping has it that says so.
    pub(crate) unit: Option<String>,
    /// Which mappings fill it, in the order of the file.
    pub(crate) mappings: Vec<String>,
}

/// What is subscribed to, each parsed once; by their levels those are found that have to do with each other.
struct Wanted {
    texts: Vec<String>,
    /// Whether it is shared; `None` if it is no filter.
    filters: Vec<Option<(bool, Filter)>>,
    dispatch: Dispatch,
}

impl Wanted {
    fn new(texts: Vec<String>) -> Self {
        let parse = |text: &String| {
            let (group, filter) = without_group(text).unwrap_or(("", text));
            Some((!group.is_empty(), Filter::parse(filter).ok()?))
        };
        let filters: Vec<_> = texts.iter().map(parse).collect();
        let mut dispatch = Dispatch::default();
        for (at, filter) in filters.iter().enumerate() {
            if let Some((_, filter)) = filter {
                dispatch.add(filter, Candidate { mapping: at, filter: 0 });
            }
        }
        Self { texts, filters, dispatch }
    }

    /// Those that share a topic with it, itself among them, in their order.
    fn overlapping(&self, at: usize) -> Vec<usize> {
        let mut all = Vec::new();
        if let Some((_, filter)) = &self.filters[at] {
            self.dispatch.overlapping(filter, &mut |other| all.push(other.mapping));
            all.sort_unstable();
        }
        all
    }

    /// Whether another one brings all that it would, and is not left out for it in turn.
    fn is_covered(&self, at: usize) -> bool {
        // What is shared brings a part of the messages, so it covers nothing.
        let Some((false, small)) = &self.filters[at] else { return false };
        self.overlapping(at).into_iter().filter(|other| *other != at).any(|other| {
            let Some((false, large)) = &self.filters[other] else { return false };
            covers(&large.levels, &small.levels)
                && (other < at || !covers(&small.levels, &large.levels))
        })
    }

    /// Whether a message that both match comes once for each of two that overlap.
    fn come_twice(&self, one: usize, other: usize) -> bool {
        match (&self.filters[one], &self.filters[other]) {
            (Some((false, one)), Some((false, other))) => !is_within(one, other),
            (one, other) => one.is_some() && other.is_some(),
        }
    }

    fn warning(&self, one: usize, other: usize) -> Option<String> {
        let both = self.filters[one].as_ref().zip(self.filters[other].as_ref());
        let ((one_shared, a), (other_shared, b)) = both.filter(|_| self.come_twice(one, other))?;
        let topic = shared_topic(a, b)?;
        let is_shared = *one_shared || *other_shared;
        let who = if is_shared { "the broker delivers" } else { "some brokers deliver" };
        let (one, other) = (&self.texts[one], &self.texts[other]);
        Some(format!(
            "the topic filters `{one}` and `{other}` both match `{topic}`: {who} such a message twice"
        ))
    }
}
