//! What a mapping of a group says: the device, the time, the fields.

use super::group::Group;
use super::observe::{Leaf, Topic};
use crate::telemetry::mapping::column_fault;

/// More columns are in no suggestion.
const MOST_FIELDS: usize = 150;

/// Keys that say whose a message is, without what is no letter or digit, the surest first.
const IDENTITIES: [&str; 18] = [
    "deviceid",
    "deveui",
    "eui",
    "devid",
    "sensorid",
    "nodeid",
    "meterid",
    "imei",
    "macaddress",
    "mac",
    "serialnumber",
    "serial",
    "sn",
    "id",
    "src",
    "host",
    "sensor",
    "addr",
];

/// Where the time of a reading stands.
pub(super) struct Time {
    pub(super) path: String,
    pub(super) format: &'static str,
    /// Whether each reading had it.
    pub(super) is_always: bool,
}

/// A column.
pub(super) struct Field<'g> {
    pub(super) column: String,
    /// Of the payload, or what the value is called.
    pub(super) path: &'g str,
    /// As `type` names it.
    pub(super) kind: &'static str,
    pub(super) leaf: &'g Leaf,
}

/// What a mapping says.
pub(super) struct Plan<'g> {
    /// `None`: what is so without being said.
    pub(super) device: Option<String>,
    /// `None`: the time of arrival.
    pub(super) time: Option<Time>,
    pub(super) fields: Vec<Field<'g>>,
    /// Values that are text, or of several kinds, or too many.
    pub(super) others: Vec<Field<'g>>,
}

impl<'g> Plan<'g> {
    pub(super) fn of(group: &'g Group) -> Self {
        let all = &group.all;
        let time = time(all);
        let identity = identity(group, time.as_ref());
        let (device, used) = match identity {
            Some((device, used)) => (Some(device), used),
            None => (None, Vec::new()),
        };
        let is_used = |path: &str| {
            time.as_ref().is_some_and(|time| time.path == shown(path))
                || used.contains(&path.to_owned())
        };
        let values: Vec<(&String, &Leaf)> = all
            .leaves
            .iter()
            .filter(|(path, leaf)| leaf.seen > 0 && !is_used(path) && is_value(all, path))
            .filter(|(path, leaf)| !(is_time_named(path) && is_time(leaf)))
            .collect();
        let mut columns: Vec<String> = Vec::new();
        let (mut fields, mut others) = (Vec::new(), Vec::new());
        for (path, leaf) in &values {
            let short = snake(last_key(path));
            let is_one =
                values.iter().filter(|(other, _)| snake(last_key(other)) == short).count() == 1;
            let name = column(if is_one { short } else { snake(path) }, &columns);
            let kind = kind(leaf);
            let list = if kind == "text" || fields.len() >= MOST_FIELDS {
                &mut others
            } else {
                &mut fields
            };
            columns.push(name.clone());
            list.push(Field { column: name, path, kind, leaf });
        }
        Self { device, time, fields, others }
    }
}

/// Whether what stands at `path` is measured, and not beside it.
fn is_value(topic: &Topic, path: &str) -> bool {
    let is_beside = path.starts_with("$.") || path.starts_with("$[");
    match (&topic.shape.named, &topic.shape.each) {
        (Some(_), _) => !is_beside && !path.starts_with('.'),
        (None, Some(_)) => !is_beside,
        (None, None) => true,
    }
}

fn kind(leaf: &Leaf) -> &'static str {
    match (leaf.numbers > 0, leaf.flags > 0, leaf.texts > 0) {
        (true, false, false) => "float",
        (false, true, false) => "bool",
        _ => "text",
    }
}

/// A path as a mapping has it: that of an element needs no dot.
fn shown(path: &str) -> String {
    path.strip_prefix('.').unwrap_or(path).to_owned()
}

/// What a path ends in, but for indexes.
fn last_key(path: &str) -> &str {
    let mut path = path;
    while let Some((before, _)) = path.strip_suffix(']').and_then(|inner| inner.rsplit_once('[')) {
        path = before;
    }
    match path.strip_suffix('"').and_then(|inner| inner.rsplit_once('"')) {
        Some((_, key)) if !key.is_empty() => key,
        _ => path.rsplit_once('.').map_or(path, |(_, key)| if key.is_empty() { path } else { key }),
    }
}

fn is_time_named(path: &str) -> bool {
    let key = last_key(path).to_lowercase();
    key.contains("time")
        || key.contains("date")
        || ["ts", "t", "tst", "last_seen", "lastseen", "received_at", "epoch", "utc"]
            .contains(&key.as_str())
}

fn is_time(leaf: &Leaf) -> bool {
    leaf.times.values().any(|count| *count == leaf.seen)
}

/// The likeliest time: in each reading, named like one, near the beginning.
fn time(topic: &Topic) -> Option<Time> {
    if matches!(topic.shape.format, "text" | "senml") {
        return None;
    }
    let is_reachable = |path: &str| topic.shape.named.is_none() || path.starts_with(['.', '$']);
    let written = |leaf: &Leaf| {
        leaf.times.iter().find(|(_, count)| **count == leaf.seen).map(|(format, _)| *format)
    };
    let candidates =
        topic.leaves.iter().filter(|(path, _)| is_reachable(path)).filter_map(|(path, leaf)| {
            let format = written(leaf)?;
            // A number alone is none: a counter may look like one.
            (is_time_named(path) || matches!(format, "rfc3339" | "local"))
                .then_some((path, leaf, format))
        });
    let best = candidates.min_by_key(|(path, leaf, _)| {
        let depth = path.matches(['.', '[']).count();
        (leaf.seen < topic.readings, !is_time_named(path), depth, path.len())
    });
    best.map(|(path, leaf, format)| Time {
        path: shown(path),
        format,
        is_always: leaf.seen == topic.readings,
    })
}

/// What the device is called, and which paths say so; `None` where that goes without saying.
fn identity(group: &Group, time: Option<&Time>) -> Option<(String, Vec<String>)> {
    let all = &group.all;
    let by_topic = group.device();
    let is_always = |path: &str| all.leaves.get(path).is_some_and(|leaf| leaf.seen == all.readings);
    if all.shape.format == "senml" && is_always(".bn") {
        return None;
    }
    let has_elements = all.shape.each.is_some() || matches!(all.shape.format, "ndjson" | "csv");
    let is_sure = by_topic.is_some() && !group.is_guess;
    let inside = if is_sure && !has_elements { None } else { identity_inside(group, time) };
    Some(match (by_topic, inside) {
        (Some(topic), Some((path, used))) if is_sure => (format!("{topic}/{path}"), used),
        (_, Some(inside)) => inside,
        (Some(topic), None) => (topic, Vec::new()),
        (None, None) => (plain(&group.topics[0]), Vec::new()),
    })
}

/// The template of what the payload says of the device.
fn identity_inside(group: &Group, time: Option<&Time>) -> Option<(String, Vec<String>)> {
    let all = &group.all;
    if all.shape.format == "text" {
        return None;
    }
    let is_reachable = |path: &str| all.shape.named.is_none() || path.starts_with(['.', '$']);
    let rank = |path: &str| {
        let key: String =
            last_key(path).to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        IDENTITIES.iter().position(|name| *name == key)
    };
    let best = all
        .leaves
        .iter()
        .filter(|(path, leaf)| {
            leaf.seen == all.readings
                && leaf.flags == 0
                && !path.contains('[')
                && path.matches('.').count() <= 2
                && is_reachable(path)
                && time.is_none_or(|time| time.path != shown(path))
        })
        .filter_map(|(path, _)| Some((rank(path)?, path)))
        .min_by_key(|(rank, path)| (path.matches('.').count(), *rank))?;
    let template = |path: &str| match path {
        path if path.starts_with(['.', '$']) => format!("{{{path}}}"),
        path => format!("{{.{path}}}"),
    };
    let path = best.1;
    let model = all.leaves.get("model").filter(|leaf| leaf.seen == all.readings && path == "id");
    let device = match model {
        Some(_) => format!("{{.model}}-{}", template(path)),
        None => template(path),
    };
    Some((device, vec![path.clone(), "model".to_owned()]))
}

/// Text that is no template.
fn plain(topic: &str) -> String {
    let text: String =
        topic.chars().filter(|c| !c.is_control() && !"{}".contains(*c)).take(100).collect();
    let text = text.trim_matches('/').to_owned();
    if text.is_empty() { "device".to_owned() } else { text }
}

/// Words in lower case, with `_` between them.
pub(super) fn snake(text: &str) -> String {
    let mut name = String::new();
    let mut is_lower = false;
    for char in text.chars() {
        if char.is_ascii_alphanumeric() {
            if char.is_ascii_uppercase() && is_lower {
                name.push('_');
            }
            name.push(char.to_ascii_lowercase());
            is_lower = char.is_ascii_lowercase() || char.is_ascii_digit();
        } else {
            if !name.is_empty() && !name.ends_with('_') {
                name.push('_');
            }
            is_lower = false;
        }
    }
    name.truncate(50);
    name.trim_end_matches('_').to_owned()
}

/// A name that a column may have and that none of `taken` has.
fn column(name: String, taken: &[String]) -> String {
    let name = if name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name
    } else {
        format!("value_{name}")
    };
    let name = name.trim_end_matches('_').to_owned();
    let name = if column_fault(&name).is_some() { format!("{name}_value") } else { name };
    let mut unique = name.clone();
    let mut count = 1;
    while taken.contains(&unique) {
        count += 1;
        unique = format!("{name}_{count}");
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_called_after_the_end_of_its_path() {
        for (path, name) in [
            ("TempC_SHT", "temp_c_sht"),
            ("params.\"switch:0\".apower", "apower"),
            ("a.\"switch:0\"", "switch_0"),
            ("rx_metadata[0].rssi", "rssi"),
            ("Power[1]", "power"),
            ("[1][0]", ""),
            ("1.7.0", "0"),
        ] {
            assert_eq!(snake(last_key(path)), name, "{path}");
        }
        let taken = ["a".to_owned(), "value_7".to_owned()];
        assert_eq!(column("a".to_owned(), &taken), "a_2");
        assert_eq!(column("7".to_owned(), &taken), "value_7_2");
        assert_eq!(column("timestamp".to_owned(), &taken), "timestamp_value");
        assert_eq!(column(String::new(), &taken), "value");
    }
}
