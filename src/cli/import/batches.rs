//! Cuts a file into bodies of about what a service commits as one group: lines of NDJSON, or records of CSV behind
//! their header.

use std::io::{self, BufRead, Read as _};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A JSON object a line, as `ingestor wal export` writes it
    Ndjson,
    /// With a header, as `GET /api/v1/telemetry?format=csv` answers
    Csv,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }
}

/// Records of a body: about what the service puts into its log in one go.
const RECORDS: usize = 2_000;
/// Bytes of a body, likewise, but for its last record.
const BYTES: usize = 768 * 1024;
/// Bytes of one that is a message: half of what the service takes, where nothing else is set.
const MESSAGE_BYTES: usize = 32 * 1024;

/// Bytes of a line; the service takes none that is nearly as long.
const LINE_MAX_BYTES: u64 = 16 * 1024 * 1024;
const TOO_LONG: &str =
    "a line of it has more than 16 MiB, which no reading has; is it NDJSON or CSV?";

/// The bodies of a file.
pub(super) struct Batches<R> {
    input: R,
    format: Format,
    /// Stands before the records of each body.
    header: Vec<u8>,
    /// Bytes of a body, but for its last record.
    most: usize,
    /// Bytes of the file that were read.
    pub(super) read: u64,
}

impl<R: BufRead> Batches<R> {
    /// Of a file whose kind is told by `format`, or by its first character.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn new(mut input: R, format: Option<Format>) -> io::Result<Self> {
        let format = match format {
            Some(format) => format,
            None => guess(input.fill_buf()?),
        };
        let mut batches = Self { input, format, header: Vec::new(), most: BYTES, read: 0 };
        if format == Format::Csv {
            let mut header = Vec::new();
            while batches.read_record(&mut header)? > 0 && header.trim_ascii().is_empty() {
                header.clear();
            }
            batches.header = header;
        }
        Ok(batches)
    }

    /// For mappings, to which a body of CSV is one message.
    pub(super) fn into_messages(self) -> Self {
        let most = if self.format == Format::Csv { MESSAGE_BYTES } else { self.most };
        Self { most, ..self }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// The next body; `None` at the end of the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut body = self.header.clone();
        let mut records = 0;
        while records < RECORDS && body.len() < self.most {
            let before = body.len();
            if self.read_record(&mut body)? == 0 {
                break;
            }
            if body[before..].trim_ascii().is_empty() {
                body.truncate(before);
            } else {
                records += 1;
            }
        }
        Ok((records > 0).then_some(body))
    }

    /// Appends the next record with its line end; how many bytes that are, 0 at the end.
    fn read_record(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        let before = out.len();
        let mut quotes = Quotes::default();
        loop {
            let from = out.len();
            let read = (&mut self.input).take(LINE_MAX_BYTES).read_until(b'\n', out)?;
            self.read += read as u64;
            if read as u64 == LINE_MAX_BYTES && !out.ends_with(b"\n") {
                return Err(io::Error::new(io::ErrorKind::InvalidData, TOO_LONG));
            }
            let is_open = self.format == Format::Csv && quotes.are_open_behind(&out[from..]);
            // A quote that is never closed would swallow the whole file: the service says so then.
            if read == 0 || !is_open || out.len() - before > BYTES {
                return Ok(out.len() - before);
            }
        }
    }
}

fn guess(beginning: &[u8]) -> Format {
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    if matches!(text.first(), Some(b'{' | b'[')) { Format::Ndjson } else { Format::Csv }
}

/// Whether a line ends within quotes, so that the record goes on in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Quotes {
    /// At the beginning of a cell.
    #[default]
    Cell,
    /// In one without quotes, in which a quote is a character like others.
    Bare,
    Open,
    /// Behind a quote in quotes: it was the end, or stands for one.
    Closing,
}

impl Quotes {
    fn are_open_behind(&mut self, line: &[u8]) -> bool {
        for byte in line {
            *self = match (*self, byte) {
                (Self::Open, b'"') => Self::Closing,
                (Self::Open, _) | (Self::Cell | Self::Closing, b'"') => Self::Open,
                (_, b',' | b'\n') => Self::Cell,
                (Self::Closing | Self::Cell | Self::Bare, _) => Self::Bare,
            };
        }
        *self == Self::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, format: Option<Format>) -> (Format, Vec<String>) {
        let mut batches = Batches::new(text.as_bytes(), format).unwrap();
        let mut all = Vec::new();
        while let Some(body) = batches.next().unwrap() {
            all.push(String::from_utf8(body).unwrap());
        }
        assert_eq!(batches.read, text.len() as u64);
        (batches.format(), all)
    }

    #[test]
    fn lines_come_in_bodies_of_a_group_each_and_empty_ones_not_at_all() {
        let lines: Vec<String> =
            (0..4_500).map(|number| format!("{{\"n\":{number}}}\n\n")).collect();
        let (format, bodies) = all(&lines.concat(), None);
        assert_eq!(format, Format::Ndjson);
        let counts: Vec<_> = bodies.iter().map(|body| body.lines().count()).collect();
        assert_eq!(counts, [2_000, 2_000, 500]);
        assert_eq!(all("", None).1, [""; 0]);
        let long = format!("{{\"x\":\"{}\"}}\n", "x".repeat(BYTES / 2));
        assert_eq!(all(&long.repeat(3), None).1.len(), 2);
    }

    #[test]
    fn each_body_of_csv_has_the_header_and_no_record_is_cut() {
        let records: Vec<String> =
            (0..2_001).map(|n| format!("\"a\r\n,\"\"{n}\",2\",x\r\nb\"c,\"\"\r\n")).collect();
        let text = format!("\u{feff}device_id,timestamp\r\n{}", records.concat());
        let (format, bodies) = all(&text, None);
        assert_eq!((format, bodies.len()), (Format::Csv, 3));
        let mut read = Vec::new();
        for body in &bodies {
            let body = body.strip_prefix("\u{feff}device_id,timestamp\r\n").unwrap();
            let reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .from_reader(body.as_bytes());
            read.extend(reader.into_records().map(|record| record.unwrap().len()));
        }
        let whole = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let whole: Vec<_> = whole.into_records().map(|record| record.unwrap().len()).collect();
        assert_eq!(read, whole);
        assert_eq!(all("a,b\n", None).1, [""; 0]);
        assert_eq!(all("\r\n \na,b\n1,2\n", None).1, ["a,b\n1,2\n"]);
    }

    #[test]
    fn a_body_of_csv_that_is_a_message_is_no_longer_than_one_may_be() {
        let text = format!("a,b\n{}", "1,2\n".repeat(20_000));
        let mut batches = Batches::new(text.as_bytes(), None).unwrap().into_messages();
        let mut records = 0;
        while let Some(body) = batches.next().unwrap() {
            assert!(body.len() <= MESSAGE_BYTES + 4, "{}", body.len());
            records += String::from_utf8(body).unwrap().lines().count() - 1;
        }
        assert_eq!(records, 20_000);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let endless = io::BufReader::new(io::repeat(b'x'));
        let error = Batches::new(endless, Some(Format::Ndjson)).unwrap().next().unwrap_err();
        assert!(error.to_string().contains("16 MiB"), "{error}");
        let endless = io::BufReader::new(io::repeat(b','));
        assert!(Batches::new(endless, Some(Format::Csv)).is_err());
    }

    #[test]
    fn the_kind_of_a_file_is_told_by_its_first_character() {
        for (beginning, format) in [
            ("{\"a\":1}", Format::Ndjson),
            ("\n [1]", Format::Ndjson),
            ("device_id,timestamp\n", Format::Csv),
            ("\u{feff}\"device_id\"\n", Format::Csv),
        ] {
            assert_eq!(guess(beginning.as_bytes()), format, "{beginning}");
        }
    }
}
