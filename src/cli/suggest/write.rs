//! The suggestion as text: TOML, with what was seen as comments.

use std::fmt::Write as _;

use serde_json::Value;

use super::group::Group;
use super::observe::Observed;
use super::plan::{Field, Plan, Time, snake};

/// Topics that are shown of a group.
const SHOWN_TOPICS: usize = 4;

/// All of `groups`, and what is in none.
pub(super) fn toml(observed: &Observed, groups: &[Group], seconds: Option<f64>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let (messages, topics) = (observed.messages, observed.topics.len() + observed.unknown.len());
    let span = seconds.map_or_else(String::new, |seconds| format!(" in {seconds:.0} s"));
    writeln!(text, "# Suggested from {messages} messages of {topics} topics{span}. Types, names and devices are guesses from").ok();
    writeln!(text, "# what was seen: look at them, try them with `ingestor check-mapping`, put them into Rocket.toml.").ok();
    let mut names: Vec<String> = Vec::new();
    for group in groups {
        let name = name_of(group, &names);
        writeln!(text).ok();
        mapping(&mut text, group, &name, seconds);
        names.push(name);
    }
    if !observed.unknown.is_empty() {
        writeln!(text, "\n# Of no format that a mapping reads, or of two:").ok();
        for (topic, count) in observed.unknown.iter().take(50) {
            writeln!(text, "#   {} ({count} messages)", shown(topic)).ok();
        }
    }
    if observed.unseen > 0 {
        writeln!(text, "\n# {} messages of further topics were not looked at.", observed.unseen)
            .ok();
    }
    text
}

fn mapping(text: &mut String, group: &Group, name: &str, seconds: Option<f64>) {
    let plan = Plan::of(group);
    about(text, group, seconds);
    if plan.fields.is_empty() {
        writeln!(text, "# no mapping: there is no number in it, and nothing that is on or off")
            .ok();
        list_others(text, &plan.others);
        return;
    }
    let shape = &group.all.shape;
    writeln!(text, "[[default.mapping]]").ok();
    writeln!(text, "name   = {}", quoted(name)).ok();
    writeln!(text, "topic  = {}", quoted(&group.filter())).ok();
    if shape.format != "json" {
        writeln!(text, "format = {}", quoted(shape.format)).ok();
    }
    if let Some((columns, delimiter)) = &shape.csv {
        let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        writeln!(text, "columns = [{}]", columns.join(", ")).ok();
        if *delimiter != ',' {
            writeln!(text, "delimiter = {}", quoted(&delimiter.to_string())).ok();
        }
    }
    if let Some(each) = &shape.each {
        writeln!(text, "each   = {}", quoted(each)).ok();
    }
    if let Some(device) = &plan.device {
        let guess = if group.is_guess {
            "    # a guess: look whether it tells the devices apart"
        } else {
            ""
        };
        writeln!(text, "device = {}{guess}", quoted(device)).ok();
    }
    match (&plan.time, shape.format) {
        (Some(time), _) => time_line(text, time),
        (None, "senml") => {}
        (None, _) => {
            writeln!(text, "time   = \"received\"    # none was found in the payload").ok();
        }
    }
    if shape.format == "text" && group.field.is_none() {
        writeln!(text, "field  = \"{{field}}\"").ok();
    }
    if let Some((name, value)) = shape.named.filter(|_| shape.format != "senml") {
        writeln!(text, "field  = \"{{.{name}}}\"\nvalue  = \"{value}\"").ok();
    }
    if !group.all.missing.is_empty() {
        let words: Vec<String> = group.all.missing.iter().map(|word| quoted(word)).collect();
        writeln!(text, "missing = [{}]", words.join(", ")).ok();
    }
    writeln!(text, "table  = {}", quoted(name)).ok();
    writeln!(text, "[default.mapping.fields]").ok();
    for field in &plan.fields {
        writeln!(text, "{}", line(field)).ok();
    }
    list_others(text, &plan.others);
}

/// Fields that nobody may want, to be taken in by taking a character away.
fn list_others(text: &mut String, others: &[Field<'_>]) {
    for field in others.iter().take(60) {
        writeln!(text, "#{}", line(field)).ok();
    }
}

fn about(text: &mut String, group: &Group, seconds: Option<f64>) {
    let all = &group.all;
    let rate = seconds.map_or_else(String::new, |seconds| {
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let rate = all.messages as f64 / seconds;
        if rate >= 0.1 { format!(", {rate:.1}/s") } else { format!(", {:.1}/min", rate * 60.0) }
    });
    let qos: Vec<String> = all.qos.iter().map(ToString::to_string).collect();
    let qos = if qos.is_empty() { String::new() } else { format!(", QoS {}", qos.join(" and ")) };
    let retained =
        if all.retained > 0 { format!(", {} retained", all.retained) } else { String::new() };
    let (messages, count) = (all.messages, group.topics.len());
    writeln!(text, "# {messages} messages of {count} topics{rate}{qos}{retained}").ok();
    for topic in group.topics.iter().take(SHOWN_TOPICS) {
        writeln!(text, "#   {}", shown(topic)).ok();
    }
    if count > SHOWN_TOPICS {
        writeln!(text, "#   and {} more", count - SHOWN_TOPICS).ok();
    }
}

fn time_line(text: &mut String, time: &Time) {
    let format = match time.format {
        "rfc3339" => String::new(),
        "local" => ", format = \"local\", zone = \"UTC\"".to_owned(),
        format => format!(", format = \"{format}\""),
    };
    let fallback = if time.is_always { "" } else { ", fallback = \"received\"" };
    let remark = if time.format == "local" {
        "    # say in which zone: UTC, +01:00, Europe/Berlin, system"
    } else {
        ""
    };
    writeln!(text, "time   = {{ path = {}{format}{fallback} }}{remark}", quoted(&time.path)).ok();
}

fn line(field: &Field<'_>) -> String {
    let mut options = Vec::new();
    if field.path != field.column {
        options.push(format!("path = {}", quoted(field.path)));
    }
    if field.kind != "float" {
        options.push(format!("type = \"{}\"", field.kind));
    }
    let options =
        if options.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", options.join(", ")) };
    format!("{} = {options}    # {}", field.column, example(&field.leaf.example))
}

fn example(value: &Value) -> String {
    let text = match value {
        Value::String(text) => quoted(text),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        plain => plain.to_string(),
    };
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A topic in a comment.
fn shown(topic: &str) -> String {
    if topic.chars().any(char::is_control) { quoted(topic) } else { topic.to_owned() }
}

/// A string of TOML; those of JSON are such.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A name for the mapping and its table that none of `taken` has.
fn name_of(group: &Group, taken: &[String]) -> String {
    let filter = group.filter();
    let words: Vec<&str> = filter.split('/').filter(|level| !level.contains(['{', '+'])).collect();
    let mut name = snake(&words.join("_"));
    name.truncate(40);
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.starts_with("pg_") {
        name = format!("m_{name}");
    }
    // A table of the service's own, or one that could be taken for a part of it.
    if name.starts_with("telemetry") {
        name.insert_str(0, "mapped_");
    }
    let name = name.trim_end_matches('_').to_owned();
    let mut unique = name.clone();
    let mut count = 1;
    while taken.contains(&unique) {
        count += 1;
        unique = format!("{name}_{count}");
    }
    unique
}
