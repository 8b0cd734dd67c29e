//! What was seen: topic by topic, what its messages carry.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::samples::Sample;
use crate::base::time::Timestamp;
use crate::telemetry::mapping::{path_key, recognize, recognize_time};

/// More topics are counted and not looked at.
const MOST_TOPICS: usize = 5_000;

/// More values of a topic are not looked at.
const MOST_LEAVES: usize = 500;

/// Deeper than this nothing is looked at; and of an array these elements.
const MOST_LEVELS: usize = 8;
const MOST_ELEMENTS: usize = 4;

/// Words that devices send for a value that is not there.
const NOT_THERE: [&str; 7] = ["unknown", "unavailable", "NULL", "null", "nan", "NaN", "none"];

/// How a topic's messages are made; topics that differ in it go into different mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) format: &'static str,
    /// The path of `each`, where it has to be said.
    pub(super) each: Option<String>,
    /// Of elements that are one value with a name: the keys of both.
    pub(super) named: Option<(&'static str, &'static str)>,
    pub(super) csv: Option<(Vec<String>, char)>,
}

/// What stands at a path, or is called by a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    /// In how many readings it was.
    pub(super) seen: u64,
    pub(super) numbers: u64,
    pub(super) flags: u64,
    pub(super) texts: u64,
    pub(super) example: Value,
    /// How it could be read as a time, and in how many readings.
    pub(super) times: BTreeMap<&'static str, u64>,
}

/// A topic, and what came there.
#[derive(Clone, Debug, Default)]
pub(super) struct Topic {
    pub(super) messages: u64,
    /// Messages and elements that leaves were found in.
    pub(super) readings: u64,
    pub(super) retained: u64,
    pub(super) qos: BTreeSet<u8>,
    pub(super) shape: Shape,
    /// By path; where values have names, by their name, and by `.path` what else is in an element. By
    /// `$.path` what stands beside the elements.
    pub(super) leaves: BTreeMap<String, Leaf>,
    pub(super) missing: BTreeSet<&'static str>,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) messages: u64,
    /// Topics, and how many messages of theirs, that are of no known format.
    pub(super) unknown: BTreeMap<String, u64>,
    /// Messages of topics beyond those that are looked at.
    pub(super) unseen: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Observed {
    pub(super) fn add(&mut self, sample: &Sample, now: Timestamp) {
        if sample.payload.is_empty() {
            return;
        }
        self.messages += 1;
        if let Some(at) = sample.received_at {
            self.first = Some(self.first.map_or(at, |first| first.min(at)));
            self.last = Some(self.last.map_or(at, |last| last.max(at)));
        }
        let known = self.topics.len() + self.unknown.len();
        let is_known =
            self.topics.contains_key(&sample.topic) || self.unknown.contains_key(&sample.topic);
        if !is_known && known >= MOST_TOPICS {
            self.unseen += 1;
            return;
        }
        let Some(found) = recognize(&sample.payload, now) else {
            *self.unknown.entry(sample.topic.clone()).or_default() += 1;
            return;
        };
        let shape = Shape { format: found.format, csv: found.csv, ..Shape::default() };
        let (shape, elements) = shape.with_elements(&found.value);
        let topic = self.topics.entry(sample.topic.clone()).or_default();
        if topic.messages == 0 {
            topic.shape = shape;
        } else if topic.shape != shape {
            // A topic of two kinds: the first one counts.
            *self.unknown.entry(sample.topic.clone()).or_default() += 1;
            return;
        }
        topic.messages += 1;
        topic.retained += u64::from(sample.is_retained);
        topic.qos.extend(sample.qos);
        for element in elements {
            topic.reading(element, &found.value, now);
        }
    }

    /// Seconds between the first message and the last, where that is known.
    pub(super) fn seconds(&self) -> Option<f64> {
        let (first, last) = (self.first?, self.last?);
        Some(last.seconds_since(first)).filter(|seconds| *seconds > 0.0)
    }
}

/// Keys that name the value beside them, and keys of such values.
const NAMES: [&str; 4] = ["name", "n", "key", "id"];
const VALUES: [&str; 3] = ["value", "v", "val"];

impl Shape {
    /// The shape of `value`, and the elements that are readings.
    fn with_elements(mut self, value: &Value) -> (Self, Vec<&Value>) {
        let objects =
            |value: &Value| value.as_array().is_some_and(|all| all.iter().any(Value::is_object));
        match (self.format, value) {
            ("senml", Value::Array(records)) => {
                self.named = Some(("n", "value"));
                return (self, records.iter().collect());
            }
            ("ndjson" | "csv", Value::Array(all)) => return (self, all.iter().collect()),
            (_, Value::Array(all)) if objects(value) => {
                self.each = Some("[*]".to_owned());
                self.named = named(all);
                return (self, all.iter().collect());
            }
            (_, Value::Object(object)) => {
                for (key, inner) in object {
                    if let Value::Array(all) = inner
                        && let Some(named) = named(all)
                    {
                        self.each = Some(format!("{}[*]", path_key(key)));
                        self.named = Some(named);
                        return (self, all.iter().collect());
                    }
                }
            }
            _ => {}
        }
        (self, vec![value])
    }
}

/// The keys of name and value, if each of `all` is such a pair.
fn named(all: &[Value]) -> Option<(&'static str, &'static str)> {
    let first = all.first()?;
    let name = NAMES.into_iter().find(|key| first.get(key).is_some_and(Value::is_string))?;
    let value = VALUES.into_iter().find(|key| first.get(key).is_some())?;
    let is_pair =
        |one: &Value| one.get(name).is_some_and(Value::is_string) && one.get(value).is_some();
    all.iter().all(is_pair).then_some((name, value))
}

impl Topic {
    fn reading(&mut self, element: &Value, message: &Value, now: Timestamp) {
        if self.shape.format == "text" {
            self.readings += 1;
            self.leaf(String::new(), element, now);
            return;
        }
        if !element.is_object() {
            return;
        }
        self.readings += 1;
        match self.shape.named {
            Some((name, value)) => {
                let name = element.get(name).and_then(Value::as_str).unwrap_or_default();
                if let Some(value) = element.get(value) {
                    self.leaf(name.to_owned(), value, now);
                }
                if self.shape.format != "senml" {
                    for (key, value) in element.as_object().into_iter().flatten() {
                        if !NAMES.contains(&key.as_str()) && !VALUES.contains(&key.as_str()) {
                            self.walk(&format!(".{}", path_key(key)), value, now, 1);
                        }
                    }
                }
            }
            None => self.walk("", element, now, 0),
        }
        if self.shape.each.is_some() && message.is_object() {
            self.walk("$", message, now, 0);
        }
    }

    /// Looks at all that is below `path`.
    fn walk(&mut self, path: &str, value: &Value, now: Timestamp, level: usize) {
        if level > MOST_LEVELS {
            return;
        }
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    let dot = if path.is_empty() { "" } else { "." };
                    self.walk(&format!("{path}{dot}{}", path_key(key)), value, now, level + 1);
                }
            }
            Value::Array(all) => {
                for (at, value) in all.iter().take(MOST_ELEMENTS).enumerate() {
                    self.walk(&format!("{path}[{at}]"), value, now, level + 1);
                }
            }
            plain => self.leaf(path.to_owned(), plain, now),
        }
    }

    fn leaf(&mut self, path: String, value: &Value, now: Timestamp) {
        if !self.leaves.contains_key(&path) && self.leaves.len() >= MOST_LEAVES {
            return;
        }
        if let Some(word) = value.as_str().and_then(not_there) {
            self.missing.insert(word);
            self.leaves.entry(path).or_default();
            return;
        }
        let leaf = self.leaves.entry(path).or_default();
        match value {
            Value::Null => return,
            Value::Bool(_) => leaf.flags += 1,
            Value::Number(_) => leaf.numbers += 1,
            Value::String(text) if is_number(text) => leaf.numbers += 1,
            Value::String(text) if is_flag(text) => leaf.flags += 1,
            _ => leaf.texts += 1,
        }
        leaf.seen += 1;
        if let Some(format) = recognize_time(value, now) {
            *leaf.times.entry(format).or_default() += 1;
        }
        if leaf.example.is_null() {
            leaf.example = value.clone();
        }
    }
}

fn not_there(text: &str) -> Option<&'static str> {
    NOT_THERE.into_iter().find(|word| *word == text)
}

/// A number as mappings take it from a string.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_flag(text: &str) -> bool {
    ["on", "off", "true", "false", "online", "offline", "yes", "no", "open", "closed"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text))
}

impl Leaf {
    pub(super) fn merge(&mut self, other: &Self) {
        self.seen += other.seen;
        self.numbers += other.numbers;
        self.flags += other.flags;
        self.texts += other.texts;
        for (format, count) in &other.times {
            *self.times.entry(format).or_default() += count;
        }
        if self.example.is_null() {
            self.example = other.example.clone();
        }
    }
}
