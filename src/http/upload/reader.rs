//! What a body is, and how readings come out of it.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::collections::HashMap;

use super::feed::{Feed, is_of_syntax};
use super::piece::{Malformed, Piece, Text};
use super::records::{Cut, Records};
use super::split::Splitter;
use super::values::Values;
use crate::base::time::Timestamp;
use crate::http::catalog::Table;
use crate::http::error::ApiError;
use crate::http::query::bad;
use crate::http::state::AppState;
use crate::telemetry::admit::{Admission, Admitted, Part, Recipient};
use crate::telemetry::mapping::{BUILT_IN_TABLE, Column, Message};
use crate::telemetry::rejection::{Reason, Rejection};
use crate::telemetry::topic::Topic;
use crate::telemetry::validate::TimeOfDay;
use crate::telemetry::{GivenTable, Record};

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Ndjson,
    Csv,
    /// A message, for the mappings to read.
    Message,
}

/// Takes readings out of a body.
pub(super) struct Reader<'s> {
    state: &'s AppState,
    kind: Kind,
    body: Body,
    target: Target,
    /// Those that were looked up by the lines that name them.
    tables: HashMap<String, GivenTable>,
}

enum Body {
    Texts(Splitter),
    Records(Box<Records>),
}

/// Where readings belong.
enum Target {
    /// Where each says itself, or into the table of the built-in shape.
    Any,
    Table(GivenTable),
    Topic(Topic),
}

impl<'s> Reader<'s> {
    pub(super) fn new(
        state: &'s AppState,
        kind: Kind,
        table: Option<&str>,
        topic: Option<String>,
    ) -> Result<Self, ApiError> {
        let most = state.inlet.admission.max_payload_bytes;
        let body = match kind {
            Kind::Json => Body::Texts(Splitter::Values(Values::new(most))),
            Kind::Ndjson => Body::Texts(Splitter::Lines(Text::new(most, true))),
            Kind::Message => Body::Texts(Splitter::Whole(Text::new(most, false))),
            Kind::Csv => Body::Records(Box::new(Records::new(most))),
        };
        let find = |name: &str| {
            state.tables.find(name).map(given).ok_or_else(|| {
                let all = state.tables.all().iter().map(|table| table.name.as_str());
                let all: Vec<&str> = all.collect();
                bad(
                    "table",
                    &format!("must be a table of the configuration: `{}`", all.join("`, `")),
                )
            })
        };
        let target = match (table, topic) {
            (_, Some(text)) => {
                let topic = Topic::from(text.as_str());
                if let Some(fault) = topic.fault() {
                    return Err(bad("topic", &format!("is none: {fault}")));
                }
                Target::Topic(topic)
            }
            (Some(name), None) => Target::Table(find(name)?),
            (None, None) if kind == Kind::Csv => Target::Table(find(BUILT_IN_TABLE)?),
            (None, None) => Target::Any,
        };
        Ok(Self { state, kind, body, target, tables: HashMap::new() })
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], feed: &mut Feed<'_>) -> Result<(), ApiError> {
        self.read(Some(bytes), feed)
    }

    /// There are no more bytes.
    pub(super) fn finish(&mut self, feed: &mut Feed<'_>) -> Result<(), ApiError> {
        self.read(None, feed)?;
        match feed.is_no_json() {
            Some(reason) if self.kind == Kind::Ndjson => {
                Err(ApiError::BadRequest(format!("the body is no NDJSON: {reason}")))
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self, bytes: Option<&[u8]>, feed: &mut Feed<'_>) -> Result<(), ApiError> {
        let clock = TimeOfDay::at(Timestamp::now());
        let Self { state, kind, body, target, tables } = self;
        let admission = &state.inlet.admission;
        let mut refused = None;
        let outcome = match body {
            Body::Records(records) => {
                let Target::Table(table) = target else {
                    return Err(ApiError::internal(&"CSV without a table"));
                };
                records.push(bytes.unwrap_or_default(), table, &mut |cut| match cut {
                    Cut::Record(places, cells) => {
                        let cells = cells.into_iter();
                        feed.take(table.of_cells(places, cells, &admission.rules, clock));
                    }
                    Cut::Bad(what) => feed.take(Err(Rejection::new(Reason::WrongType, what))),
                })
            }
            Body::Texts(splitter) => {
                let mut each = |piece: Piece<'_>| {
                    let mut take = |outcome: Result<Record, Rejection>| {
                        // Of JSON that is none, nothing behind the fault can be relied on.
                        if let Err(rejection) = &outcome
                            && *kind == Kind::Json
                            && is_of_syntax(rejection.reason)
                        {
                            refused.get_or_insert_with(|| not_json(&rejection.message));
                        }
                        feed.take(outcome);
                    };
                    match (piece, &*target) {
                        (Piece::TooLong { is_part: false, .. }, _) => {
                            refused = Some(too_large(admission.max_payload_bytes));
                        }
                        (Piece::TooLong { bytes, .. }, _) => {
                            if let Some(rejection) = admission.too_long(bytes) {
                                take(Err(rejection));
                            }
                        }
                        (Piece::Text(text), Target::Table(table)) => {
                            take(table.of_json(text, &admission.rules, clock));
                        }
                        (Piece::Text(text), Target::Topic(topic)) => {
                            receive(admission, topic, text, clock, feed);
                        }
                        (Piece::Text(text), Target::Any) => {
                            if let Some(name) = table_named_in(text) {
                                if let Some(table) = state.tables.find(&name)
                                    && !tables.contains_key(&name)
                                {
                                    tables.insert(name.clone(), given(table));
                                }
                                return take(match tables.get(&name) {
                                    Some(table) => table.of_json(text, &admission.rules, clock),
                                    None => Err(unknown_table()),
                                });
                            }
                            if *kind == Kind::Json && text.starts_with(b"[") {
                                let what = "a reading is a JSON object, this is an array";
                                return take(Err(Rejection::new(Reason::NotAnObject, what)));
                            }
                            admission
                                .admit(text, clock, |_, outcome| take(outcome.map(Record::from)));
                        }
                    }
                };
                match bytes {
                    Some(bytes) => splitter.push(bytes, &mut each),
                    None => splitter.finish(&mut each),
                }
            }
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
        outcome.map_err(|Malformed(what)| match kind {
            Kind::Csv => ApiError::BadRequest(format!("the body cannot be read as CSV: {what}")),
            _ => not_json(&what),
        })
    }
}

fn not_json(what: &str) -> ApiError {
    let what = what.strip_prefix("not valid JSON: ").unwrap_or(what);
    ApiError::BadRequest(format!("the body is not valid JSON: {what}"))
}

fn too_large(most: usize) -> ApiError {
    let advice = "send an array, or lines of NDJSON";
    ApiError::TooLarge(format!("the one reading of the body has more than {most} bytes; {advice}"))
}

fn unknown_table() -> Rejection {
    Rejection::new(Reason::UnknownName, "`table` is none of the configuration")
}

/// What rows can be given for a table that can be asked for.
fn given(table: &Table) -> GivenTable {
    let column = |column: &crate::telemetry::mapping::ColumnOutline| Column {
        name: column.name.clone(),
        kind: column.kind,
    };
    GivenTable::new(&table.name, table.columns.iter().map(column).collect(), table.is_built_in())
}

/// The table that a line says it belongs into.
fn table_named_in(text: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        table: String,
    }
    memchr::memmem::find(text, b"\"table\"")?;
    let named: Named = serde_json::from_slice(text).ok()?;
    Some(named.table)
}

/// What is posted arrives when somebody posts it, and again when it is posted again: it needs a time of its own.
fn with_own_time(admitted: Admitted) -> Result<Record, Rejection> {
    if admitted.by_arrival {
        let what = "it has no time of its own, and the time at which it is posted is not that of its measurement";
        return Err(Rejection::new(Reason::MissingField, what));
    }
    Ok(admitted.record)
}

/// Has the mappings read a message.
fn receive(
    admission: &Admission,
    topic: &Topic,
    payload: &[u8],
    clock: TimeOfDay,
    feed: &mut Feed<'_>,
) {
    let message = Message { topic, payload, is_retained: false, received_at: clock.now() };
    let (mut stored, mut rejected) = (0, 0);
    let whose = admission.receive(message, clock, |_: Part<'_>, outcome| {
        let outcome = outcome.and_then(with_own_time);
        if outcome.is_ok() {
            stored += 1;
        } else {
            rejected += 1;
        }
        feed.take(outcome);
    });
    match whose {
        Recipient::Mapping(at) => feed.note(at, [stored, rejected, 0]),
        Recipient::LeftAlone(at) => {
            feed.note(at, [0, 0, 1]);
            feed.pass(&format!("mapping \"{}\" leaves it alone", admission.mapping_name(at)));
        }
        Recipient::Dropped => feed.pass("no mapping takes it"),
        Recipient::BuiltIn | Recipient::Unmatched => {}
    }
}
