//! Which topics go into one mapping: those that carry the same and differ in some of their levels, which
//! become captures.

use std::collections::{BTreeMap, BTreeSet};

use super::observe::{Observed, Shape, Topic};

/// Levels that say what is done or meant, and not whose it is.
const GENERIC: [&str; 24] = [
    "sensor",
    "sensors",
    "state",
    "status",
    "tele",
    "stat",
    "value",
    "values",
    "data",
    "device",
    "devices",
    "event",
    "events",
    "up",
    "uplink",
    "rpc",
    "binary_sensor",
    "info",
    "telemetry",
    "get",
    "json",
    "raw",
    "rx",
    "application",
];

/// A level of a topic filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Exactly(String),
    /// A level that is none that a filter can name.
    Any,
    /// Part of what the device is called.
    Device,
    /// What the value is called.
    Field,
}

/// Topics that go into one mapping.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) levels: Vec<Level>,
    pub(super) topics: Vec<String>,
    /// Of all of them.
    pub(super) all: Topic,
    /// What a single field is called where no level says it.
    pub(super) field: Option<String>,
    /// Whether no topic has shown which level is the device.
    pub(super) is_guess: bool,
}

/// Topics of one shape and of as many levels each, level by level.
type Cluster<'o> = Vec<(&'o str, Vec<&'o str>, &'o Topic)>;

/// The groups, those that take the least first.
pub(super) fn groups(observed: &Observed) -> Vec<Group> {
    let mut alike: BTreeMap<(usize, &Shape), Vec<Cluster<'_>>> = BTreeMap::new();
    for (name, topic) in &observed.topics {
        let levels: Vec<&str> = name.split('/').collect();
        let clusters = alike.entry((levels.len(), &topic.shape)).or_default();
        let one = (name.as_str(), levels, topic);
        let is_near = |cluster: &&mut Cluster<'_>| {
            cluster.iter().any(|(_, _, other)| carries_alike(topic, other))
        };
        match clusters.iter_mut().find(is_near) {
            Some(cluster) => cluster.push(one),
            None => clusters.push(vec![one]),
        }
    }
    let mut groups = Vec::new();
    for cluster in alike.into_values().flatten() {
        split(&cluster, &mut groups);
    }
    let mut merged: Vec<Group> = Vec::new();
    // The general ones first, so that each finds the one that it is part of.
    groups.sort_by_key(|group: &Group| (group.literals(), group.topics.clone()));
    for group in groups {
        match merged.iter_mut().find(|other| other.takes(&group)) {
            Some(other) => other.merge(group),
            None => merged.push(group),
        }
    }
    merged.sort_by_key(|group| (std::cmp::Reverse(group.literals()), group.topics.clone()));
    merged
}

/// Whether half of what the one carries is in the other; single values are always alike.
fn carries_alike(one: &Topic, other: &Topic) -> bool {
    if one.shape.format == "text" {
        return true;
    }
    let common = one.leaves.keys().filter(|path| other.leaves.contains_key(*path)).count();
    2 * common >= one.leaves.len().min(other.leaves.len())
}

/// Splits a cluster until its topics have a level in common.
fn split(cluster: &Cluster<'_>, groups: &mut Vec<Group>) {
    let count = cluster.first().map_or(0, |(_, levels, _)| levels.len());
    let values =
        |at: usize| -> BTreeSet<&str> { cluster.iter().map(|(_, levels, _)| levels[at]).collect() };
    let varies: Vec<usize> = (0..count).map(|at| values(at).len()).collect();
    if cluster.len() == 1 || (count > 1 && varies.contains(&1)) {
        groups.push(group(cluster, &varies));
        return;
    }
    let Some(at) = (0..count).min_by_key(|at| varies[*at]) else { return };
    for value in values(at) {
        let part = cluster.iter().filter(|(_, levels, _)| levels[at] == value).cloned().collect();
        split(&part, groups);
    }
}

fn group(cluster: &Cluster<'_>, varies: &[usize]) -> Group {
    let mut all = Topic { shape: cluster[0].2.shape.clone(), ..Topic::default() };
    let is_text = all.shape.format == "text";
    for (_, levels, topic) in cluster {
        let name = field_level(levels, varies).filter(|_| is_text).map(|at| levels[at]);
        all.merge(topic, name);
    }
    let first = &cluster[0].1;
    let mut levels: Vec<Level> = first.iter().map(|level| exactly(level)).collect();
    let field_at = if is_text { field_level(first, varies) } else { None };
    let is_field = |at: usize| field_at == Some(at);
    let mut device: Vec<usize> =
        (0..first.len()).filter(|at| varies[*at] > 1 && !is_field(*at)).collect();
    let is_guess = device.is_empty();
    if is_guess {
        device = candidates(first).into_iter().filter(|at| !is_field(*at)).collect();
        if device.len() > 1 {
            device.remove(0);
        }
        // Something has to stay that tells these topics from all others.
        if device.len() + usize::from(field_at.is_some()) >= first.len() {
            device.clear();
        }
    }
    for at in device {
        levels[at] = Level::Device;
    }
    let mut field = None;
    if let Some(at) = field_at {
        if first.len() > 1
            && levels
                .iter()
                .enumerate()
                .any(|(other, level)| other != at && *level != Level::Device)
        {
            levels[at] = Level::Field;
        } else {
            field = Some(first[at].to_owned());
        }
    }
    let topics = cluster.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    Group { levels, topics, all, field, is_guess }
}

fn exactly(level: &str) -> Level {
    if level.contains(['{', '}']) || level == "..." {
        Level::Any
    } else {
        Level::Exactly(level.to_owned())
    }
}

/// Levels that may say whose it is.
fn candidates(levels: &[&str]) -> Vec<usize> {
    let is_generic =
        |level: &str| GENERIC.contains(&level.to_lowercase().as_str()) || level.is_empty();
    (0..levels.len()).filter(|at| !is_generic(levels[*at])).collect()
}

/// Which level of a topic of one value says what the value is.
fn field_level(levels: &[&str], varies: &[usize]) -> Option<usize> {
    let named = candidates(levels);
    let last_named = named.last().copied();
    let varying: Vec<usize> = (0..levels.len()).filter(|at| varies[*at] > 1).collect();
    match varying.as_slice() {
        // One device after the other, and behind them what they all measure.
        [at] if last_named.is_some_and(|last| last > *at) => last_named,
        [.., at] => Some(*at),
        [] => last_named.or(levels.len().checked_sub(1)),
    }
}

impl Group {
    fn literals(&self) -> usize {
        self.levels.iter().filter(|level| matches!(level, Level::Exactly(_))).count()
    }

    /// Whether its filter brings all that of `other` brings, in the same shape.
    fn takes(&self, other: &Self) -> bool {
        let is_within = |(one, other): (&Level, &Level)| match one {
            Level::Exactly(_) => one == other,
            Level::Field => *other == Level::Field,
            Level::Any | Level::Device => *other != Level::Field,
        };
        self.all.shape == other.all.shape
            && self.levels.len() == other.levels.len()
            && self.field == other.field
            && self.levels.iter().zip(&other.levels).all(is_within)
    }

    fn merge(&mut self, other: Self) {
        self.all.merge(&other.all, None);
        self.topics.extend(other.topics);
        self.topics.sort();
        let is_seen_to_differ = |at: usize| {
            let values: BTreeSet<_> =
                self.topics.iter().map(|topic| topic.split('/').nth(at)).collect();
            self.levels[at] == Level::Device && values.len() > 1
        };
        self.is_guess &= !(0..self.levels.len()).any(is_seen_to_differ);
    }

    /// The filter as a mapping has it.
    pub(super) fn filter(&self) -> String {
        let mut count = 0;
        let level = |level: &Level| match level {
            Level::Exactly(text) => text.clone(),
            Level::Any => "+".to_owned(),
            Level::Field => "{field}".to_owned(),
            Level::Device => {
                count += 1;
                format!("{{{}}}", capture(count))
            }
        };
        let levels: Vec<String> = self.levels.iter().map(level).collect();
        levels.join("/")
    }

    /// What the levels call the device; `None` if none does.
    pub(super) fn device(&self) -> Option<String> {
        let count = self.levels.iter().filter(|level| **level == Level::Device).count();
        let names: Vec<String> = (1..=count).map(|at| format!("{{{}}}", capture(at))).collect();
        if names.is_empty() { None } else { Some(names.join("/")) }
    }
}

fn capture(at: usize) -> String {
    if at == 1 { "device".to_owned() } else { format!("part{at}") }
}

impl Topic {
    /// Adds what came to `other`; `name` is what its one value is called.
    fn merge(&mut self, other: &Self, name: Option<&str>) {
        self.messages += other.messages;
        self.readings += other.readings;
        self.retained += other.retained;
        self.qos.extend(&other.qos);
        self.missing.extend(&other.missing);
        for (path, leaf) in &other.leaves {
            self.leaves.entry(name.unwrap_or(path).to_owned()).or_default().merge(leaf);
        }
    }
}
