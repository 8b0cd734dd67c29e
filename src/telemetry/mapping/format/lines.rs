//! NDJSON: a JSON value on each line.

use serde::de::IgnoredAny;

use super::document::{Document, Elements, Fault};
use crate::telemetry::rejection::Reason;

/// The array of the lines' values. Lines without anything are passed over.
pub(super) fn read(payload: &[u8]) -> Result<Document<'static>, Fault> {
    let mut elements = Elements::with_room(payload.len());
    for (number, line) in (1..).zip(payload.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match value(line) {
            Ok(line) => {
                elements.begin()?;
                elements.text.push_str(line);
            }
            Err((reason, what)) => {
                elements.set_aside(Some((reason, format!("line {number}: {what}").into())))?;
            }
        }
    }
    Ok(elements.finish())
}

fn value(line: &[u8]) -> Result<&str, (Reason, String)> {
    let text = std::str::from_utf8(line).map_err(|error| {
        (Reason::NotUtf8, format!("not UTF-8 from its byte {}", error.valid_up_to()))
    })?;
    // What is less or more than one value would shift those behind it.
    serde_json::from_str::<IgnoredAny>(text)
        .map(|_| text)
        .map_err(|error| (Reason::InvalidJson, format!("not valid JSON: {error}")))
}
