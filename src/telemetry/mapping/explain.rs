//! What the mappings make of a message, told in full: for whoever writes them, with the service's own
//! decoder.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::compiled::{Mapping, Time};
use super::decide::{Fate, Mapped, Message, Refusal};
use super::entries::Entries;
use super::format;
use super::path::{Path, Step, quoted};
use super::read::{Made, Source, Surroundings};
use super::set::Mappings;
use super::shape::Cell;
use crate::telemetry::rejection::Rejection;
use crate::telemetry::validate::{Rules, TimeOfDay};

/// More paths that nothing looks at are not listed.
const MOST_LISTED: usize = 100;

/// What became of a message, and why.
#[derive(Debug)]
pub struct Explanation {
    /// As the service decides.
    pub(crate) fate: Fate,
    /// The mappings that were asked before, by name, and why they did not take it.
    pub(crate) refused: Vec<(String, String)>,
    /// What the mapping that has taken it made of it.
    pub readings: Vec<Explained>,
    /// Paths of values that nothing of the mapping looks at.
    pub(crate) ignored: Vec<String>,
}

/// A reading, or why there is none.
#[derive(Debug)]
pub struct Explained {
    /// Of the element it was made of, from 0.
    pub(crate) index: Option<usize>,
    /// What it is.
    pub(crate) outcome: Result<Mapped, Rejection>,
    /// The columns that have a value, and where it came from; of the device, the template that made it.
    pub(crate) sources: Vec<(String, String)>,
}

impl Mappings {
    /// As [`Self::decide`], with the reasons.
    #[must_use]
    pub fn tell(&self, message: Message<'_>, rules: &Rules, clock: TimeOfDay) -> Explanation {
        let candidates = self.dispatch.find(message.topic);
        let received_at = message.received_at;
        let around = Surroundings { rules, clock, received_at, notes_sources: true };
        let mut refusals: Vec<(usize, Refusal)> = Vec::new();
        let mut readings = Vec::new();
        let mut used = Vec::new();
        let mut taken_by = None;
        let mut text = String::new();
        for candidate in candidates {
            let mapping = &self.list[candidate.mapping];
            text = format::read(&mapping.format, message.payload, message.received_at)
                .map(|document| document.text.into_owned())
                .unwrap_or_default();
            let outcome = self.ask(candidate, message, around, |index, outcome| {
                used.extend(used_by(mapping, index, &text));
                readings.push(explained(mapping, index, outcome));
            });
            match outcome {
                Ok(()) => {
                    taken_by = Some(candidate.mapping);
                    break;
                }
                Err(refusal) => refusals.push((candidate.mapping, refusal)),
            }
        }
        let refused = refusals
            .iter()
            .map(|(at, refusal)| (self.list[*at].name.clone(), refusal.to_string()))
            .collect();
        let ignored = match taken_by.map(|at| &self.list[at]) {
            Some(mapping) if !mapping.format.is_text() => unused(&text, &used),
            _ => Vec::new(),
        };
        let fate = match taken_by {
            Some(mapping) => Fate::Taken(mapping),
            None if refusals.is_empty() => Fate::NoTopic,
            None => self.untaken(refusals),
        };
        Explanation { fate, refused, readings, ignored }
    }
}

fn explained(
    mapping: &Mapping,
    index: Option<usize>,
    outcome: Result<Made<'_>, Rejection>,
) -> Explained {
    let mut sources = Vec::new();
    let outcome = outcome.map(|made| {
        for (field, source) in &made.sources {
            let from = match source {
                Source::Path(path) => path.to_string(),
                Source::Named(name) => format!("the value called {name}"),
                Source::Default => "its default".to_owned(),
            };
            sources.push((mapping.fields[*field].name.clone(), from));
        }
        if let Some(extra) = &mapping.extra {
            let of_extra = made.reading.cells.iter().find(|(column, _)| *column == extra.column);
            let is_full = of_extra.is_some_and(|(_, cell)| entries_of(cell) >= extra.max);
            let from = extra.from.as_ref().map_or("the value", |(_, path)| path.text());
            if of_extra.is_some() {
                let end = if is_full {
                    format!(", up to `max`, {} values", extra.max)
                } else {
                    String::new()
                };
                sources.push(("extra".to_owned(), format!("what is left of {from}{end}")));
            }
        }
        sources.sort();
        let time = made.time_path.map_or_else(|| "its arrival".to_owned(), Path::to_string);
        let device = mapping.device.text.clone();
        sources.splice(..0, [("device_id".to_owned(), device), ("timestamp".to_owned(), time)]);
        Mapped { reading: made.reading, by_arrival: made.by_arrival }
    });
    Explained { index, outcome, sources }
}

/// How many entries an object has.
fn entries_of(cell: &Cell) -> usize {
    let Cell::Json(text) = cell else { return 0 };
    serde_json::from_str::<Entries<'_>>(text).map_or(0, |Entries(entries)| entries.len())
}

/// Where the values stand that a mapping looks at for a reading, from the message on.
fn used_by(mapping: &Mapping, index: Option<usize>, text: &str) -> Vec<Vec<Step>> {
    let mut element = Vec::new();
    if let (Some((path, _)), Some(index)) = (&mapping.each, index) {
        element.clone_from(&path.steps);
        element.extend(step_to(text, &path.steps, index));
    }
    let from_message = |path: &Path| {
        let mut steps = if path.is_of_message { Vec::new() } else { element.clone() };
        steps.extend(path.steps.iter().cloned());
        steps
    };
    let mut paths: Vec<&Path> = Vec::new();
    match &mapping.one {
        Some(one) => paths.extend(&one.path),
        None => paths.extend(mapping.fields.iter().flat_map(|field| &field.paths)),
    }
    if let Time::Payload { paths: of_time, .. } = &mapping.time {
        paths.extend(of_time);
    }
    paths.extend(mapping.when.iter().map(|condition| &condition.path));
    paths.extend(mapping.has.iter().map(|(path, _)| path));
    paths.extend(mapping.extra.iter().filter_map(|extra| extra.from.as_ref()).map(|from| &from.1));
    let names = mapping.one.iter().flat_map(|one| one.name.paths());
    paths.extend(mapping.device.paths().chain(names));
    let mut all: Vec<Vec<Step>> = paths.into_iter().map(from_message).collect();
    if mapping.one.as_ref().is_some_and(|one| one.path.is_none()) {
        all.push(element);
    }
    all
}

/// The step to the element `index` of the container at `steps`.
fn step_to(text: &str, steps: &[Step], index: usize) -> Option<Step> {
    let mut value: &RawValue = serde_json::from_str(text).ok()?;
    for step in steps {
        value = children(value)?.into_iter().find(|(other, _)| other == step)?.1;
    }
    children(value)?.into_iter().nth(index).map(|(step, _)| step)
}

/// What an array or an object holds.
fn children(value: &RawValue) -> Option<Vec<(Step, &RawValue)>> {
    let text = value.get();
    if text.starts_with('[') {
        let all: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        return Some(all.into_iter().enumerate().map(|(at, v)| (Step::Index(at), v)).collect());
    }
    if text.starts_with('{') {
        let Entries(entries) = serde_json::from_str(text).ok()?;
        return Some(entries.into_iter().map(|(key, value)| (Step::Key(key), value)).collect());
    }
    None
}

/// The paths of plain values that none of `used` leads to.
fn unused(text: &str, used: &[Vec<Step>]) -> Vec<String> {
    let mut listed = Vec::new();
    if let Ok(value) = serde_json::from_str::<&RawValue>(text) {
        list_unused(value, &mut Vec::new(), used, &mut listed);
    }
    listed
}

fn list_unused(
    value: &RawValue,
    place: &mut Vec<Step>,
    used: &[Vec<Step>],
    listed: &mut Vec<String>,
) {
    let is_used = used.iter().any(|path| place.starts_with(path));
    if is_used || listed.len() >= MOST_LISTED || place.len() > 32 {
        return;
    }
    match children(value) {
        Some(children) => {
            for (step, value) in children {
                place.push(step);
                list_unused(value, place, used, listed);
                place.pop();
            }
        }
        None => listed.push(show(place)),
    }
}

/// A path as it would be written in a mapping.
fn show(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let dot = if text.is_empty() { "" } else { "." };
        // Writing to a string does not fail.
        match step {
            Step::Index(at) => write!(text, "[{at}]"),
            Step::Key(key) => write!(text, "{dot}{}", quoted(key)),
        }
        .ok();
    }
    if text.is_empty() { "$".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_looks_at_is_listed_as_a_mapping_would_write_it() {
        let key = |text: &str| Step::Key(text.to_owned());
        let payload = r#"{"a":{"b":1,"c d":[1,{"e":2}]},"switch:0":3,"x.y":4,"u":5}"#;
        let used = [vec![key("a"), key("b")], vec![key("u")]];
        let expected = ["a.c d[0]", "a.c d[1].e", "switch:0", "\"x.y\""];
        assert_eq!(unused(payload, &used), expected);
        assert_eq!(unused("7", &[]), ["$"]);
        assert_eq!(step_to(payload, &[key("a")], 1), Some(key("c d")));
    }
}
