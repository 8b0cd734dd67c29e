//! Rows as the text of a file.

use std::io;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::format::Format;
use crate::base::time::Timestamp;
use crate::http::measured::{Keyed, Shown};
use crate::postgres::StoredReading;
use crate::telemetry::fields::FIELDS;

/// Rows of a piece: about 64 KiB of text.
const ROWS_A_PIECE: usize = 1_024;

/// How rows are written.
pub(super) struct Rows {
    format: Format,
    /// What the time of a row is called.
    time: &'static str,
    /// `None`: a row is a reading of the built-in shape.
    shown: Option<Arc<[Shown]>>,
}

impl Rows {
    pub(super) fn new(format: Format, time: &'static str, shown: Option<Arc<[Shown]>>) -> Self {
        Self { format, time, shown }
    }

    /// What stands before the first row.
    pub(super) fn header(&self) -> io::Result<Vec<u8>> {
        if self.format == Format::Ndjson {
            return Ok(Vec::new());
        }
        let mut out = csv_writer();
        out.write_field("device_id")?;
        out.write_field(self.time)?;
        match &self.shown {
            Some(shown) => shown.iter().try_for_each(|column| out.write_field(column.name()))?,
            None => FIELDS.iter().try_for_each(|field| out.write_field(field.name))?,
        }
        out.write_record(None::<&[u8]>)?;
        finish(out)
    }

    /// `readings` in pieces, each made when it is asked for.
    pub(super) fn pieces(
        &self,
        readings: Vec<StoredReading>,
    ) -> impl Iterator<Item = io::Result<Vec<u8>>> {
        let mut readings = readings.into_iter();
        std::iter::from_fn(move || {
            let piece: Vec<StoredReading> = readings.by_ref().take(ROWS_A_PIECE).collect();
            (!piece.is_empty()).then(|| match self.format {
                Format::Csv => self.csv(piece),
                Format::Ndjson => self.ndjson(piece),
            })
        })
    }

    fn csv(&self, readings: Vec<StoredReading>) -> io::Result<Vec<u8>> {
        let mut out = csv_writer();
        let mut text = Vec::new();
        for reading in readings {
            out.write_field(&reading.device_id)?;
            let at = reading.timestamp.map(|at| at.to_string());
            out.write_field(at.unwrap_or_default())?;
            let values = Keyed::stored(reading.values, self.shown.as_ref());
            for at in 0..values.len() {
                text.clear();
                values.write_plain(at, &mut text)?;
                out.write_field(&text)?;
            }
            out.write_record(None::<&[u8]>)?;
        }
        finish(out)
    }

    fn ndjson(&self, readings: Vec<StoredReading>) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(readings.len() * 128);
        for reading in readings {
            let note = reading.note();
            let StoredReading { device_id, timestamp, values, .. } = reading;
            let values = Keyed::stored(values, self.shown.as_ref());
            let line = Line { device_id, time: self.time, timestamp, note, values };
            serde_json::to_writer(&mut out, &line)?;
            out.push(b'\n');
        }
        Ok(out)
    }
}

fn csv_writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new())
}

fn finish(out: csv::Writer<Vec<u8>>) -> io::Result<Vec<u8>> {
    out.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// A row as an item of a page has it.
struct Line {
    device_id: String,
    time: &'static str,
    timestamp: Option<Timestamp>,
    note: Option<&'static str>,
    values: Keyed,
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("device_id", &self.device_id)?;
        object.serialize_entry(self.time, &self.timestamp)?;
        if let Some(note) = self.note {
            object.serialize_entry("note", note)?;
        }
        self.values.serialize_entries(&mut object)?;
        object.end()
    }
}
