//! What a message seems to be, for whoever has no mapping for it yet.

use serde_json::Value;

use super::super::time::{self, Unit, Zone};
use super::super::value::Raw;
use super::cells::Cells;
use super::unpack::unpack;
use super::{binary, lines, senml};
use crate::base::time::Timestamp;

/// A message whose format is none that was declared.
#[derive(Debug)]
pub(crate) struct Recognized {
    /// As `format` names it.
    pub(crate) format: &'static str,
    /// What is in it; lines, rows and records are the elements of an array.
    pub(crate) value: Value,
    /// What the cells of CSV are to be called, and what stands between them.
    pub(crate) csv: Option<(Vec<String>, char)>,
}

/// Recognizes a message; `None` for one of no format, or without a word.
#[must_use]
pub(crate) fn recognize(payload: &[u8], received_at: Timestamp) -> Option<Recognized> {
    let unpacked = unpack(payload).ok()?;
    let bytes = unpacked.as_deref().unwrap_or(payload);
    let Ok(text) = std::str::from_utf8(bytes) else { return binary(bytes) };
    let text = text.trim();
    let found = |format, value| Some(Recognized { format, value, csv: None });
    if text.starts_with(['{', '[']) {
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            if value.as_array().is_some_and(|records| is_senml(records))
                && let Ok(document) = senml::read(text, received_at)
            {
                return found("senml", serde_json::from_str(&document.text).ok()?);
            }
            return found("json", value);
        }
        let document = lines::read(text.as_bytes()).ok()?;
        let is_read = document.faults().next().is_none();
        return if is_read {
            found("ndjson", serde_json::from_str(&document.text).ok()?)
        } else {
            None
        };
    }
    if let Some(csv) = csv(text) {
        return Some(csv);
    }
    if text.is_empty() { None } else { found("text", text.into()) }
}

fn is_senml(records: &[Value]) -> bool {
    let has =
        |record: &Value, labels: &[&str]| labels.iter().any(|label| record.get(label).is_some());
    let is_record =
        |record: &Value| record.is_object() && has(record, &["n", "bn", "v", "vs", "vb"]);
    records.iter().all(is_record)
        && records.iter().any(|record| has(record, &["n", "bn"]) && has(record, &["v", "vs", "vb"]))
}

/// An object, or an array of such, in one of the two formats without text.
fn binary(bytes: &[u8]) -> Option<Recognized> {
    let of = |format, text: Result<String, _>| {
        let value: Value = serde_json::from_str(&text.ok()?).ok()?;
        let has_names = |value: &Value| value.as_object().is_some_and(|object| !object.is_empty());
        let is_good =
            has_names(&value) || value.as_array().is_some_and(|all| all.iter().any(has_names));
        is_good.then_some(Recognized { format, value, csv: None })
    };
    of("cbor", binary::cbor(bytes)).or_else(|| of("msgpack", binary::msgpack(bytes)))
}

/// Rows of as many cells each, some of them numbers.
fn csv(text: &str) -> Option<Recognized> {
    let rows: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = rows.first()?;
    let is_number = |cell: &str| cell.trim().trim_matches('"').parse::<f64>().is_ok();
    for delimiter in [';', '\t', ','] {
        let count = split(first, delimiter).len();
        let is_even = rows.iter().all(|row| split(row, delimiter).len() == count);
        let has_number = rows.iter().any(|row| split(row, delimiter).into_iter().any(is_number));
        if count < 2 || (count == 2 && rows.len() < 2) || !is_even || !has_number {
            continue;
        }
        let cells: Vec<&str> =
            split(first, delimiter).into_iter().map(|cell| cell.trim().trim_matches('"')).collect();
        let are_names = rows.len() > 1
            && cells.iter().all(|cell| !cell.is_empty() && !is_number(cell))
            && (1..cells.len()).all(|at| !cells[..at].contains(&cells[at]));
        let columns: Vec<String> = if are_names {
            cells.into_iter().map(str::to_owned).collect()
        } else {
            (1..=count).map(|at| format!("c{at}")).collect()
        };
        let document = Cells::new(columns.clone(), delimiter).read_rows(text.as_bytes()).ok()?;
        let value = serde_json::from_str(&document.text).ok()?;
        return Some(Recognized { format: "csv", value, csv: Some((columns, delimiter)) });
    }
    None
}

/// The cells of a row as they stand there.
fn split(row: &str, delimiter: char) -> Vec<&str> {
    let mut is_quoted = false;
    let ends_cell = |char: char| {
        is_quoted ^= char == '"';
        char == delimiter && !is_quoted
    };
    row.split(ends_cell).collect()
}

/// Times of our days: since 2010, and by a day ahead.
const EARLIEST_MICROS: i64 = 1_262_304_000_000_000;
const AHEAD_MICROS: i64 = 86_400_000_000;

/// How `value` would be written as a time, in the words of `time`; `None` if it is none of our days.
#[must_use]
pub(crate) fn recognize_time(value: &Value, now: Timestamp) -> Option<&'static str> {
    let text = value.to_string();
    let raw = Raw::of_json(&text);
    let since = |unit| time::Format::Since(unit);
    let formats = [
        ("rfc3339", time::Format::Rfc3339),
        ("local", time::Format::Local(Zone::parse("UTC").ok()?)),
        ("s", since(Unit::Seconds)),
        ("ms", since(Unit::Millis)),
        ("us", since(Unit::Micros)),
        ("ns", since(Unit::Nanos)),
    ];
    let is_ours =
        |at: Timestamp| (EARLIEST_MICROS..now.as_micros() + AHEAD_MICROS).contains(&at.as_micros());
    let is_it = |format: &time::Format| format.read(&raw).is_ok_and(is_ours);
    formats.iter().find(|(_, format)| is_it(format)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_rfc3339("2030-01-01T00:00:00Z").unwrap()
    }

    #[test]
    fn a_message_is_recognized_by_what_it_can_be_read_as() {
        let cases: [(&[u8], Option<&str>); 13] = [
            (b"{\"a\":1}", Some("json")),
            (b"[1]", Some("json")),
            (b"{\"a\":1}\n{\"a\":2}\n", Some("ndjson")),
            (b"{\"a\":1}\n{", None),
            (b"[{\"bn\":\"d\",\"n\":\"a\",\"v\":1}]", Some("senml")),
            (b"21.5\n", Some("text")),
            (b"21,5", Some("text")),
            (b"1;2\n3;4", Some("csv")),
            (b"1;\"a;\"\"b\"\"\"\n3;4", Some("csv")),
            (b"\xa1\x61a\x01", Some("cbor")),
            (b"\x81\xa1a\x01", Some("msgpack")),
            (b"\xff\xff", None),
            (b" ", None),
        ];
        for (payload, format) in cases {
            let found = recognize(payload, now()).map(|found| found.format);
            assert_eq!(found, format, "{}", String::from_utf8_lossy(payload));
        }
        let csv = recognize(b"t,\"x y\"\n1,2", now()).unwrap();
        assert_eq!(csv.csv, Some((vec!["t".to_owned(), "x y".to_owned()], ',')));
        assert_eq!(csv.value, serde_json::json!([null, {"t": "1", "x y": "2"}]));
    }

    #[test]
    fn a_time_is_recognized_by_its_digits_and_its_days() {
        for (value, format) in [
            (serde_json::json!("2025-10-05T12:34:56+02:00"), Some("rfc3339")),
            (serde_json::json!("2025-10-05 12:34:56"), Some("local")),
            (serde_json::json!(1_759_667_696.5), Some("s")),
            (serde_json::json!("1759667696"), Some("s")),
            (serde_json::json!(1_759_667_696_123_i64), Some("ms")),
            (serde_json::json!(1_759_667_696_123_456_i64), Some("us")),
            (serde_json::json!(1_759_667_696_123_456_789_i64), Some("ns")),
            (serde_json::json!("2045-10-05T12:34:56Z"), None),
            (serde_json::json!(21.5), None),
            (serde_json::json!(true), None),
        ] {
            assert_eq!(recognize_time(&value, now()), format, "{value}");
        }
    }
}
