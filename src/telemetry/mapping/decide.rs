//! Which mapping takes a message, and what becomes of it.
//!
//! The first one in the order of the file whose topic and conditions allow it, and that finds one of its
//! fields or more. Where none does, a mapping may still know what the message is: one that it cannot read is
//! rejected, also if another leaves it alone; one that it leaves alone is ignored. What is left is unmatched,
//! and each candidate says why.

use std::fmt;

use super::compiled::{Mapping, Retained};
use super::dispatch::Candidate;
use super::format::{self, Document, Fault};
use super::found::{Found, View};
use super::read::{Made, Pass, Reader, Surroundings};
use super::scan::{one_value, scan};
use super::set::Mappings;
use super::shape::MappedReading;
use crate::base::text::{cut, share_out};
use crate::base::time::Timestamp;
use crate::telemetry::rejection::{Reason, Rejection, SENTENCE_MAX_BYTES};
use crate::telemetry::validate::{Rules, TimeOfDay};

/// A message, as mappings see it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'p> {
    /// Where it was published.
    pub topic: &'p str,
    /// What was published.
    pub payload: &'p [u8],
    /// Whether the broker had kept it for whoever subscribes.
    pub is_retained: bool,
    /// When it came in.
    pub received_at: Timestamp,
}

/// A reading that a mapping has made.
#[derive(Debug, PartialEq)]
pub struct Mapped {
    /// What is to be stored.
    pub reading: MappedReading,
    /// Whether its time is that of its arrival.
    pub by_arrival: bool,
}

/// What became of a message.
#[derive(Debug)]
pub enum Fate {
    /// Mapping of this index has taken it; its readings were handed on.
    Taken(usize),
    /// Mapping of this index leaves it alone.
    Ignored(usize, Ignored),
    /// Mapping of this index could not read it, and no other has taken it.
    Unreadable(usize, Rejection),
    /// No topic of a mapping matches it.
    NoTopic,
    /// No mapping takes it; why each candidate does not.
    Unmatched(Vec<(usize, Refusal)>),
}

/// Why a mapping leaves a message alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// `except` matches its topic.
    Except,
    /// The broker had kept it.
    Retained,
    /// The broker had kept it, and no time of its own is in it.
    RetainedWithoutTime,
    /// It has no bytes: a retained message was cleared.
    Empty,
    /// It is a value that has no column.
    UnknownName,
}

/// Why a mapping does not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It leaves it alone.
    Ignored(Ignored),
    /// It cannot read it.
    Unreadable(Reason, String),
    /// A condition does not hold, or nothing of its own is in it.
    NotIts(String),
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Except => "`except` matches the topic",
            Self::Retained => "it is a retained message, which this mapping skips",
            Self::RetainedWithoutTime => {
                "it is a retained message without a time of its own, and when it arrives says nothing"
            }
            Self::Empty => "it is empty, as a retained message that was cleared",
            Self::UnknownName => "it is a value that none of the fields is called after",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored(why) => why.fmt(f),
            Self::Unreadable(_, what) | Self::NotIts(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::When(path, found) => write!(f, "`when` does not hold: {path} is {found}"),
            Self::Has(path) => write!(f, "`has` does not hold: {path} is not there"),
            Self::NoContainer(each) => write!(f, "`each` finds nothing: {each} is not there"),
            Self::NoField => f.write_str("none of its fields is there"),
            Self::RetainedWithoutTime => f.write_str("it is retained, and has no time of its own"),
            Self::UnknownName(name) => write!(f, "no field is called after {name:?}"),
        }
    }
}

impl Mappings {
    /// Decides about `message`. Calls `each` with every reading of the mapping that takes it, in their
    /// order, and with the index of the element that it was made of, if there is one.
    pub fn decide(
        &self,
        message: Message<'_>,
        rules: &Rules,
        clock: TimeOfDay,
        mut each: impl FnMut(Option<usize>, Result<Mapped, Rejection>),
    ) -> Fate {
        let candidates = self.dispatch.find(message.topic);
        if candidates.is_empty() {
            return Fate::NoTopic;
        }
        let around =
            Surroundings { rules, clock, received_at: message.received_at, notes_sources: false };
        let mut refusals = Vec::new();
        for candidate in candidates {
            let outcome = self.ask(candidate, message, around, |index, outcome| {
                each(
                    index,
                    outcome
                        .map(|made| Mapped { reading: made.reading, by_arrival: made.by_arrival }),
                );
            });
            match outcome {
                Ok(()) => return Fate::Taken(candidate.mapping),
                Err(refusal) => refusals.push((candidate.mapping, refusal)),
            }
        }
        self.untaken(refusals)
    }

    /// What becomes of a message that every candidate has refused.
    pub(super) fn untaken(&self, refusals: Vec<(usize, Refusal)>) -> Fate {
        let unreadable = refusals.iter().find_map(|(mapping, refusal)| match refusal {
            Refusal::Unreadable(reason, what) => {
                let message = format!("mapping \"{}\": {what}", self.list[*mapping].name);
                Some(Fate::Unreadable(*mapping, Rejection::new(*reason, message)))
            }
            _ => None,
        });
        let ignored = || {
            refusals.iter().find_map(|(mapping, refusal)| match refusal {
                Refusal::Ignored(why) => Some(Fate::Ignored(*mapping, *why)),
                _ => None,
            })
        };
        match unreadable.or_else(ignored) {
            Some(fate) => fate,
            None => Fate::Unmatched(refusals),
        }
    }

    /// Why no mapping has taken a message, nor the built-in one if it was asked, in a sentence that names each
    /// candidate: where it would be too long what each says is shortened.
    #[must_use]
    pub(crate) fn explain(
        &self,
        refusals: &[(usize, Refusal)],
        built_in: Option<&Rejection>,
    ) -> Rejection {
        const LEAD: &str = "no mapping takes it; ";
        let of_mapping = |(mapping, refusal): &(usize, Refusal)| {
            (format!("mapping \"{}\"", self.list[*mapping].name), refusal.to_string())
        };
        let of_built_in = built_in.map(|why| ("the built-in one".to_owned(), why.to_string()));
        let all: Vec<_> = refusals.iter().map(of_mapping).chain(of_built_in).collect();
        let told = share_out(
            &all,
            0,
            SENTENCE_MAX_BYTES - LEAD.len(),
            |(name, _)| name.len() + '…'.len_utf8(),
            |(name, why), room| cut(&format!("{name}: {why}"), room).into_owned(),
        );
        Rejection::new(Reason::NoMapping, format!("{LEAD}{told}"))
    }

    /// Asks one mapping; calls `each` if it takes the message.
    pub(super) fn ask<'m>(
        &'m self,
        candidate: Candidate,
        message: Message<'m>,
        around: Surroundings<'m>,
        each: impl FnMut(Option<usize>, Result<Made<'m>, Rejection>),
    ) -> Result<(), Refusal> {
        let mapping = &self.list[candidate.mapping];
        if let Some(why) = left_alone(mapping, message) {
            return Err(Refusal::Ignored(why));
        }
        let document = format::read(&mapping.format, message.payload, message.received_at)
            .map_err(|(reason, what)| Refusal::Unreadable(reason, what.into_owned()))?;
        let found = read_along(mapping, &document.text)?;
        let reader = Reader {
            mapping,
            table: &self.tables[candidate.mapping],
            filter: candidate.filter,
            topic: message.topic,
            wants_time: message.is_retained && mapping.retained == Retained::StoreTimed,
            around,
            is_by_arrival: document.is_by_arrival,
        };
        take(&reader, &document, &found, each).map_err(|pass| {
            match (document.faults().next(), pass) {
                // What cannot be read may well have been the mapping's.
                (Some((_, (reason, what))), _) => Refusal::Unreadable(*reason, what.to_string()),
                (None, Pass::UnknownName(_)) => Refusal::Ignored(Ignored::UnknownName),
                (None, Pass::RetainedWithoutTime) => Refusal::Ignored(Ignored::RetainedWithoutTime),
                (None, pass) => Refusal::NotIts(pass.to_string()),
            }
        })
    }
}

fn left_alone(mapping: &Mapping, message: Message<'_>) -> Option<Ignored> {
    if mapping.except.iter().any(|except| except.matches(message.topic)) {
        Some(Ignored::Except)
    } else if message.payload.is_empty() {
        Some(Ignored::Empty)
    } else if message.is_retained && mapping.retained == Retained::Skip {
        Some(Ignored::Retained)
    } else {
        None
    }
}

fn read_along<'p>(mapping: &Mapping, text: &'p str) -> Result<Found<'p>, Refusal> {
    if mapping.format.is_text() {
        return Ok(one_value(text.trim(), &mapping.tree));
    }
    scan(text, &mapping.tree).map_err(|error| {
        let what = format!("not valid JSON: {error}");
        Refusal::Unreadable(Reason::InvalidJson, what)
    })
}

/// Hands on what a mapping makes of what was found.
fn take<'m>(
    reader: &Reader<'m>,
    document: &Document<'_>,
    found: &Found<'_>,
    mut each: impl FnMut(Option<usize>, Result<Made<'m>, Rejection>),
) -> Result<(), Pass> {
    let twice = |key: &String| {
        let what = format!("the key {key:?} stands twice in an object");
        Err(reader.rejection(Reason::DuplicateField, &what))
    };
    let mut view = View::new(found, &reader.mapping.tree);
    let Some((path, _)) = &reader.mapping.each else {
        let outcome = reader.read(&view)?;
        each(None, found.twice.as_ref().map_or(outcome, twice));
        return Ok(());
    };
    reader.conditions(&view, false)?;
    let mut passed = (!found.has_container).then(|| Pass::NoContainer(path.to_string()));
    let mut is_taken = false;
    let mut faults = document.faults().peekable();
    let unread = |(reason, what): &Fault| Err(reader.rejection(*reason, what));
    for element in &found.elements {
        let index = element.place.index;
        if document.is_aside(index) {
            continue;
        }
        view.look_at(element);
        match reader.read(&view) {
            Ok(outcome) => {
                while let Some((before, fault)) = faults.next_if(|(other, _)| *other < index) {
                    each(Some(before), unread(fault));
                }
                let fault = found.twice.as_ref().or(element.twice.as_ref());
                each(Some(index), fault.map_or(outcome, twice));
                is_taken = true;
            }
            // What holds for a value says more than that it is none of the mapping's.
            Err(pass) if pass != Pass::NoField => {
                passed.get_or_insert(pass);
            }
            Err(_) => {}
        }
    }
    if !is_taken {
        return Err(passed.unwrap_or(Pass::NoField));
    }
    faults.for_each(|(behind, fault)| each(Some(behind), unread(fault)));
    Ok(())
}
