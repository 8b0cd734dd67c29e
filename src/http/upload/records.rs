//! A body of CSV, record by record, in bounded memory. The first record names the columns.

use csv_core::{ReadRecordResult, Reader};

use super::piece::Malformed;
use crate::telemetry::{GivenTable, Place};

/// Most columns of a record: more than a table has.
const CELLS_MAX: usize = 512;

/// Records of CSV, as they come in.
pub(super) struct Records {
    reader: Reader,
    cells: Vec<u8>,
    filled: usize,
    ends: Vec<usize>,
    ended: usize,
    /// What the cells of a record are, once the first one has said it.
    places: Option<Vec<Place>>,
    count: u64,
}

/// A record, or how it is none.
pub(super) enum Cut<'c> {
    /// What its cells are, and the cells.
    Record(&'c [Place], Vec<&'c str>),
    /// A sentence.
    Bad(String),
}

impl Records {
    /// Of which none is to have more than `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            reader: Reader::new(),
            cells: vec![0; most],
            filled: 0,
            ends: vec![0; CELLS_MAX],
            ended: 0,
            places: None,
            count: 0,
        }
    }

    /// Takes the next bytes, none at the end, and hands on the records that end in them.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        table: &GivenTable,
        each: &mut impl FnMut(Cut<'_>),
    ) -> Result<(), Malformed> {
        let is_end = bytes.is_empty();
        loop {
            let (result, read, written, ended) = self.reader.read_record(
                bytes,
                &mut self.cells[self.filled..],
                &mut self.ends[self.ended..],
            );
            bytes = &bytes[read..];
            self.filled += written;
            self.ended += ended;
            match result {
                ReadRecordResult::InputEmpty if is_end => {}
                ReadRecordResult::InputEmpty => return Ok(()),
                ReadRecordResult::End => return self.finished(),
                ReadRecordResult::Record => {
                    self.record(table, each)?;
                    (self.filled, self.ended) = (0, 0);
                }
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    let (most, cells) = (self.cells.len(), CELLS_MAX);
                    return Err(Malformed(format!(
                        "record {} has more than {most} bytes or {cells} cells; a quote before it may be open",
                        self.count
                    )));
                }
            }
        }
    }

    fn finished(&self) -> Result<(), Malformed> {
        let missing = || Malformed("it has no header, which names the columns".to_owned());
        self.places.as_ref().map(drop).ok_or_else(missing)
    }

    fn record(
        &mut self,
        table: &GivenTable,
        each: &mut impl FnMut(Cut<'_>),
    ) -> Result<(), Malformed> {
        self.count += 1;
        let ends = &self.ends[..self.ended];
        let Ok(text) = std::str::from_utf8(&self.cells[..self.filled]) else {
            if self.places.is_none() {
                return Err(Malformed("its header is not UTF-8".to_owned()));
            }
            each(Cut::Bad("not UTF-8".to_owned()));
            return Ok(());
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let mut cells: Vec<&str> =
            starts.zip(ends).filter_map(|(from, to)| text.get(from..*to)).collect();
        let Some(places) = &self.places else {
            // The reader takes the mark of a byte order away only if it comes in one piece.
            if let Some(first) = cells.first_mut() {
                *first = first.trim_start_matches('\u{feff}');
            }
            self.places = Some(header(&cells, table)?);
            return Ok(());
        };
        if cells.len() == places.len() {
            each(Cut::Record(places, cells));
        } else {
            let (found, named) = (cells.len(), places.len());
            each(Cut::Bad(format!("the record has {found} cells, the header names {named}")));
        }
        Ok(())
    }
}

fn header(names: &[&str], table: &GivenTable) -> Result<Vec<Place>, Malformed> {
    for required in table.required() {
        if !names.contains(&required) {
            return Err(Malformed(format!("its header does not name `{required}`")));
        }
    }
    let mut places = Vec::new();
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(Malformed(format!("its header names `{name}` twice")));
        }
        places.push(table.place(name).map_err(|rejection| Malformed(rejection.to_string()))?);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::mapping::{Column, Kind};

    fn cut(body: &str, size: usize) -> Result<Vec<String>, Malformed> {
        let column = |name: &str| Column { name: name.to_owned(), kind: Kind::Float };
        let table = GivenTable::new("power", vec![column("power"), column("site")], false);
        let mut records = Records::new(64);
        let mut all = Vec::new();
        let mut each = |cut: Cut<'_>| {
            all.push(match cut {
                Cut::Record(_, cells) => cells.join("|"),
                Cut::Bad(what) => what,
            });
        };
        for bytes in body.as_bytes().chunks(size) {
            records.push(bytes, &table, &mut each)?;
        }
        records.push(b"", &table, &mut each)?;
        Ok(all)
    }

    #[test]
    fn records_are_those_of_rfc_4180_wherever_the_body_is_cut() {
        let body = "\u{feff}device_id,timestamp,power\r\n\"a, \"\"b\"\"\",\"1\r\n2\",3\r\nü,,\nx,y\nlast,1,2";
        for size in [1, 5, 1_000] {
            let expected = [
                "a, \"b\"|1\r\n2|3",
                "ü||",
                "the record has 2 cells, the header names 3",
                "last|1|2",
            ];
            assert_eq!(cut(body, size).unwrap(), expected, "{size}");
        }
        assert_eq!(cut("device_id,timestamp\n", 7).unwrap(), [""; 0]);
    }

    #[test]
    fn a_header_that_does_not_fit_the_table_and_a_quote_that_stays_open_are_malformed() {
        let open = format!("device_id,timestamp\n\"{}", "a,b\n".repeat(100));
        for body in [
            "",
            "device_id,power\n",
            "device_id,timestamp,voltage\n",
            "device_id,timestamp,power,power\n",
            &open,
        ] {
            assert!(cut(body, 1_000).is_err(), "{body}");
        }
    }
}
