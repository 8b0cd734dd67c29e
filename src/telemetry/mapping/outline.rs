//! What a set of mappings asks of the broker and of the database, for whoever starts or checks it.

use std::sync::Arc;

use super::compiled::Mapping;
use super::dispatch::{covers, overlap};
use super::set::Mappings;
use super::shape::{Column, TableShape};
use super::topic::{Filter, without_group};

impl Mappings {
    /// What to subscribe to: `own` and the mappings' topics, less what another one covers.
    #[must_use]
    pub fn subscriptions(&self, own: &[String]) -> Vec<String> {
        let mut wanted: Vec<String> = own.to_vec();
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

    /// One line for each two subscriptions that overlap in part.
    #[must_use]
    pub fn warnings(&self, own: &[String]) -> Vec<String> {
        if self.is_empty() {
            return Vec::new();
        }
        let wanted = self.subscriptions(own);
        let mut warnings = Vec::new();
        for (at, one) in wanted.iter().enumerate() {
            for other in &wanted[at + 1..] {
                let (Some(a), Some(b)) = (parse_subscription(one).1, parse_subscription(other).1)
                else {
                    continue;
                };
                if let Some(topic) = overlap(&a, &b) {
                    warnings.push(format!(
                        "the topic filters `{one}` and `{other}` both match `{topic}`: some brokers deliver such a message twice"
                    ));
                }
            }
        }
        warnings
    }

    /// One line for each table and its columns, in the order of their names.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let line = |table: &Arc<TableShape>| {
            let unit = |column: &Column| {
                let fields = self.filling(&table.name).flat_map(|mapping| &mapping.fields);
                let unit = fields
                    .filter(|field| field.name == column.name)
                    .find_map(|field| field.unit.as_deref());
                unit.map_or_else(String::new, |unit| format!(" ({unit})"))
            };
            let columns: Vec<String> = table
                .columns
                .iter()
                .map(|column| format!("{} {}{}", column.name, column.kind.sql(), unit(column)))
                .collect();
            let by: Vec<&str> =
                self.filling(&table.name).map(|mapping| mapping.name.as_str()).collect();
            format!("table {}: {} [mappings: {}]", table.name, columns.join(", "), by.join(", "))
        };
        self.tables().into_iter().map(line).collect()
    }
}

/// A subscription, and whether it is shared; `None` if it is no filter.
fn parse_subscription(text: &str) -> (bool, Option<Filter>) {
    let (group, filter) = without_group(text).unwrap_or(("", text));
    (!group.is_empty(), Filter::parse(filter).ok())
}
