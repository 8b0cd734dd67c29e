//! Messages in a file, as those have them who have seen them: `mosquitto_sub`, and the dead letters.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::base::output::complain;
use crate::base::time::Timestamp;
use crate::telemetry::rejection::Stage;

/// A message that somebody has seen.
pub(super) struct Sample {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) is_retained: bool,
    /// As it was delivered, if that is known.
    pub(super) qos: Option<u8>,
    pub(super) received_at: Option<Timestamp>,
    /// Whether it is what the database has refused: a reading that was acknowledged, and no message.
    pub(super) is_reading: bool,
}

/// Reads a file of messages, or standard input; returns whether all of it could be understood.
///
/// # Errors
/// If it cannot be read, or what `take` says.
pub(super) fn read_samples(
    name: &str,
    take: &mut impl FnMut(&Sample) -> io::Result<()>,
) -> io::Result<bool> {
    let input: Box<dyn Read> = if name == "-" {
        Box::new(io::stdin().lock())
    } else {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot read {name}: {error}"));
        Box::new(std::fs::File::open(name).map_err(named)?)
    };
    read_all(name, Box::new(BufReader::new(input)), take)
}

fn read_all(
    name: &str,
    mut input: Box<dyn BufRead + '_>,
    take: &mut impl FnMut(&Sample) -> io::Result<()>,
) -> io::Result<bool> {
    let mut are_all_read = true;
    let mut number = 0_u64;
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(are_all_read);
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let mut read = samples(&line);
        if number == 1 && read.as_ref().is_err_and(|problem| problem.ends_too_early) {
            let mut rest = Vec::new();
            input.read_to_end(&mut rest)?;
            let whole = samples(&[&*line, &*rest].concat());
            let goes_on = rest.split(|byte| *byte == b'\n').any(|line| samples(line).is_ok());
            if whole.is_ok() || !goes_on {
                // A document over several lines, such as an answer that was made readable.
                read = whole;
            } else {
                input = Box::new(Cursor::new(rest));
            }
        }
        match read {
            Ok(samples) => samples.iter().try_for_each(&mut *take)?,
            Err(Problem { what, .. }) => {
                complain(&format!("ingestor: {name}, line {number}: {what}"));
                are_all_read = false;
            }
        }
    }
}

/// Why something holds no messages.
#[derive(Debug)]
struct Problem {
    what: String,
    /// Whether more of it might.
    ends_too_early: bool,
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self { what, ends_too_early: false }
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        let what = format!(
            "expected {{\"topic\",\"payload\"}} or an answer of GET /admin/dead-letters: {error}"
        );
        Self { what, ends_too_early: error.is_eof() }
    }
}

/// The messages in a line, or in a document.
fn samples(text: &[u8]) -> Result<Vec<Sample>, Problem> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
    let lines: Vec<Line<'_>> = if let Ok(Letters { dead_letters }) = serde_json::from_str(text) {
        dead_letters
    } else if text.trim_start().starts_with('[') {
        serde_json::from_str(text)?
    } else {
        vec![serde_json::from_str(text)?]
    };
    Ok(lines.into_iter().map(Line::sample).collect::<Result<_, _>>()?)
}

/// An answer of `GET /admin/dead-letters`.
#[derive(Deserialize)]
struct Letters<'d> {
    #[serde(borrow)]
    dead_letters: Vec<Line<'d>>,
}

/// A message as `mosquitto_sub` or a dead letter has it.
#[derive(Deserialize)]
struct Line<'d> {
    topic: String,
    #[serde(borrow)]
    payload: Option<&'d RawValue>,
    #[serde(default)]
    payload_encoding: Option<String>,
    #[serde(default)]
    retain: u8,
    qos: Option<u8>,
    #[serde(default, alias = "tst")]
    received_at: Option<String>,
    #[serde(default)]
    stage: Option<String>,
}

impl Line<'_> {
    fn sample(self) -> Result<Sample, String> {
        let text = self.payload.map_or("null", RawValue::get);
        let payload = match serde_json::from_str::<String>(text) {
            Ok(text) if self.payload_encoding.as_deref() == Some("base64") => {
                STANDARD.decode(text).map_err(|error| format!("payload is no base64: {error}"))?
            }
            Ok(text) => text.into_bytes(),
            // `%J` prints a payload that is JSON as such.
            Err(_) if self.payload.is_some() && text != "null" => text.as_bytes().to_vec(),
            Err(_) => Vec::new(),
        };
        Ok(Sample {
            topic: self.topic,
            payload,
            is_retained: self.retain == 1,
            qos: self.qos,
            received_at: self.received_at.as_deref().and_then(time),
            is_reading: self.stage.as_deref() == Some(Stage::Database.as_str()),
        })
    }
}

/// A time as letters have it, or as `mosquitto_sub` prints it: `2025-10-05T14:34:56.123456Z+0200`.
fn time(text: &str) -> Option<Timestamp> {
    let plain = Timestamp::from_rfc3339(text);
    plain.or_else(|| {
        let (local, minutes) = text.split_at_checked(text.len().checked_sub(2)?)?;
        let (local, hours) = local.split_at_checked(local.len().checked_sub(3)?)?;
        Timestamp::from_rfc3339(&format!("{}{hours}:{minutes}", local.trim_end_matches('Z')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The topics, and whether all could be understood.
    fn topics(input: &str) -> (Vec<String>, bool) {
        let mut topics = Vec::new();
        let mut take = |sample: &Sample| {
            topics.push(sample.topic.clone());
            Ok(())
        };
        let are_all_read = read_all("-", Box::new(input.as_bytes()), &mut take).unwrap();
        (topics, are_all_read)
    }

    #[test]
    fn what_is_wrong_with_a_line_costs_none_of_the_others_be_it_the_first() {
        let (a, b) = (r#"{"topic":"a","payload":"1"}"#, r#"{"topic":"b","payload":"2"}"#);
        let both = vec!["a".to_owned(), "b".to_owned()];
        for bad in
            ["not a line", r#"{"topic":"c","payl"#, r#"{"topic":1}"#, "{", "[", "\u{feff}", "1"]
        {
            for lines in [[bad, a, b], [a, bad, b], [a, b, bad]] {
                assert_eq!(topics(&lines.join("\n")), (both.clone(), false), "{lines:?}");
            }
        }
    }

    #[test]
    fn a_document_over_several_lines_is_read_as_one() {
        let all = serde_json::json!([{"topic": "a", "payload": {"topic": 1}}, {"topic": "b"}]);
        let letters = serde_json::json!({"dead_letters": all});
        for document in [all, letters] {
            let pretty = serde_json::to_string_pretty(&document).unwrap();
            assert_eq!(topics(&pretty), (vec!["a".to_owned(), "b".to_owned()], true));
            assert_eq!(topics(&pretty[..pretty.len() - 1]), (Vec::new(), false));
        }
        let one = "{\n  \"topic\": \"a\"\n}\n";
        assert_eq!(topics(one), (vec!["a".to_owned()], true));
    }

    #[test]
    fn a_time_of_mosquitto_sub_is_read_in_its_zone() {
        let utc = Timestamp::from_rfc3339("2025-10-05T12:34:56.5Z");
        for text in [
            "2025-10-05T14:34:56.500000Z+0200",
            "2025-10-05T14:34:56.5+0200",
            "2025-10-05T12:34:56.5Z",
        ] {
            assert_eq!(time(text), utc, "{text}");
        }
        for text in ["", "ü", "now", "12345"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
