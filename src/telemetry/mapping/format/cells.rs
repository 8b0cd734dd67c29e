//! CSV: rows of cells, whose names the mapping has. Quotes are those of RFC 4180.
//!
//! Blanks around a cell without quotes are not of it, whatever the RFC says: devices align their columns.
//! A cell with nothing in it is not there, nor is one that a row ends before. A row of more cells than
//! there are columns is shifted, most likely by a decimal comma, and is not guessed at. A first row of
//! nothing but the names of the columns is no reading.

use csv_core::{ReadFieldResult, ReaderBuilder};

use super::super::keys::{Keys, texts};
use super::super::shape::MOST_COLUMNS;
use super::super::value::push_quoted;
use super::document::{Document, Elements, Fault};
use crate::telemetry::rejection::Reason;

/// The columns, and how cells are told from each other.
#[derive(Clone, Debug)]
pub(in super::super) struct Cells {
    /// Empty: nobody looks at it.
    columns: Vec<String>,
    delimiter: u8,
}

/// A cell of a row.
struct Cell {
    /// Up to where the row's text goes then.
    end: usize,
    is_quoted: bool,
}

impl Cells {
    /// Reads `columns` and `delimiter`, which only CSV has.
    pub(super) fn read(keys: &mut Keys<'_, '_>, is_csv: bool) -> Self {
        let columns = read_columns(keys, is_csv);
        let delimiter = match keys.text("delimiter") {
            Some(_) if !is_csv => {
                keys.mistake("delimiter: only csv has it");
                b','
            }
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && !b"\"\r\n\0".contains(byte) => *byte,
                _ => {
                    keys.mistake(
                        "delimiter: it is one character of ASCII, such as \";\" or \"\\t\"",
                    );
                    b','
                }
            },
            None => b',',
        };
        Self::with(columns, delimiter)
    }

    /// Cells of these columns, with a character of ASCII between them.
    pub(super) fn new(columns: Vec<String>, delimiter: char) -> Self {
        Self::with(columns, u8::try_from(delimiter).unwrap_or(b','))
    }

    fn with(columns: Vec<String>, delimiter: u8) -> Self {
        Self { columns, delimiter }
    }

    /// The array of the rows, each an object by the names of the columns.
    pub(super) fn read_rows(&self, payload: &[u8]) -> Result<Document<'static>, Fault> {
        // Made for each message: a clone of one reads nothing but ends of rows (csv-core 0.1.13).
        let mut reader = ReaderBuilder::new().delimiter(self.delimiter).build();
        let mut elements = Elements::with_room(2 * payload.len());
        // Cells are never longer than they stand there.
        let mut text = vec![0; payload.len() + 1];
        let mut row: Vec<Cell> = Vec::new();
        let (mut rest, mut end, mut number) = (payload, 0, 0_u64);
        let (mut raw, mut is_open) = (payload, false);
        loop {
            let (result, read, written) = reader.read_field(rest, &mut text[end..]);
            rest = &rest[read..];
            end += written;
            let is_row_end = match result {
                ReadFieldResult::InputEmpty => continue,
                ReadFieldResult::End => return Ok(elements.finish()),
                ReadFieldResult::OutputFull => {
                    return Err((Reason::InvalidFormat, "a row is too long".into()));
                }
                ReadFieldResult::Field { record_end } => record_end,
            };
            // What the row before has ended with stands before it.
            let as_written = raw[..raw.len() - rest.len()].trim_ascii_start();
            let is_quoted = as_written.starts_with(b"\"");
            let quotes = memchr::memchr_iter(b'"', as_written).count();
            is_open |= is_quoted && quotes % 2 == 1;
            row.push(Cell { end, is_quoted });
            raw = rest;
            if is_row_end {
                number += 1;
                let is_first = number == 1;
                match self.row(&row, &text[..end], is_open, is_first) {
                    Ok(Some(object)) => {
                        elements.begin()?;
                        elements.text.push_str(&object);
                    }
                    Ok(None) => elements.set_aside(None)?,
                    Err((reason, what)) => {
                        let what = format!("row {number}: {what}");
                        elements.set_aside(Some((reason, what.into())))?;
                    }
                }
                row.clear();
                (end, is_open) = (0, false);
            }
        }
    }

    /// A row as an object; `None` if it names the columns.
    fn row(
        &self,
        row: &[Cell],
        text: &[u8],
        is_open: bool,
        is_first: bool,
    ) -> Result<Option<String>, (Reason, String)> {
        if is_open {
            return Err((Reason::InvalidFormat, "a quote is not closed".to_owned()));
        }
        let mut start = 0;
        let cells = (1..).zip(row).map(|(at, cell)| {
            let value = std::str::from_utf8(&text[start..cell.end])
                .map_err(|_| (Reason::NotUtf8, format!("cell {at} is not UTF-8")))?;
            start = cell.end;
            Ok(if cell.is_quoted { value } else { value.trim_matches([' ', '\t']) })
        });
        let cells: Vec<&str> = cells.collect::<Result<_, _>>()?;
        if let Some(beyond) = cells.iter().skip(self.columns.len()).find(|cell| !cell.is_empty()) {
            let (found, columns) = (cells.len(), self.columns.len());
            let shown: String = beyond.chars().take(30).collect();
            let what = format!(
                "it has {found} cells, of which `columns` names {columns}; {shown:?} is beyond"
            );
            return Err((Reason::InvalidFormat, what));
        }
        let named = || self.columns.iter().zip(&cells);
        if is_first && cells.len() >= self.columns.len() {
            let is_its_name =
                |(column, cell): (&String, &&str)| column.is_empty() || column == cell;
            if named().all(is_its_name) {
                return Ok(None);
            }
        }
        let mut object = String::from("{");
        for (column, cell) in
            named().filter(|(column, cell)| !column.is_empty() && !cell.is_empty())
        {
            if object.len() > 1 {
                object.push(',');
            }
            push_quoted(column, &mut object);
            object.push(':');
            push_quoted(cell, &mut object);
        }
        object.push('}');
        Ok(Some(object))
    }
}

fn read_columns(keys: &mut Keys<'_, '_>, is_csv: bool) -> Vec<String> {
    let Some(value) = keys.value("columns") else {
        if is_csv {
            keys.mistake("columns: is missing; it names the cells of a row, in their order");
        }
        return Vec::new();
    };
    if !is_csv {
        keys.mistake("columns: only csv has it");
    }
    let Some(names) = texts(value) else {
        return keys.unexpected("columns", "a list of names", value).unwrap_or_default();
    };
    if names.iter().all(|name| name.is_empty()) {
        keys.mistake("columns: there are none");
    }
    if names.len() > MOST_COLUMNS {
        keys.mistake(format_args!(
            "columns: there are {}, {MOST_COLUMNS} are allowed",
            names.len()
        ));
    }
    for (at, name) in names.iter().enumerate() {
        if !name.is_empty() && names[..at].contains(name) {
            keys.mistake(format_args!("columns: \"{name}\" stands there twice"));
        }
    }
    names.into_iter().map(str::to_owned).collect()
}
