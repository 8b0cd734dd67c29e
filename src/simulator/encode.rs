//! Samples as payloads: good ones quickly, and spoilt ones in every way that devices find.

use crate::base::time::Timestamp;
use crate::telemetry::fields::FIELDS;

use super::device::{Hundredths, Sample};

/// Ways in which a message is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    TooHot,
    TooDamp,
    BatteryNegative,
    FieldMissing,
    FieldTwice,
    TextForNumber,
    CutShort,
    NotUtf8,
    NotAnObject,
    NoReading,
    ImpossibleDate,
    FarFuture,
    LongAgo,
    NoDevice,
}

impl Flaw {
    pub(super) const ALL: [Self; 14] = [
        Self::TooHot,
        Self::TooDamp,
        Self::BatteryNegative,
        Self::FieldMissing,
        Self::FieldTwice,
        Self::TextForNumber,
        Self::CutShort,
        Self::NotUtf8,
        Self::NotAnObject,
        Self::NoReading,
        Self::ImpossibleDate,
        Self::FarFuture,
        Self::LongAgo,
        Self::NoDevice,
    ];
}

/// Writes payloads; remembers the current second's text, which most timestamps share.
pub(super) struct Encoder {
    second: i64,
    second_text: String,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { second: i64::MIN, second_text: String::new() }
    }

    /// The contract's JSON object.
    pub(super) fn encode(&mut self, device_id: &str, sample: Sample) -> Vec<u8> {
        let mut out = Vec::with_capacity(device_id.len() + 128);
        out.extend_from_slice(b"{\"device_id\":\"");
        out.extend_from_slice(device_id.as_bytes());
        out.extend_from_slice(b"\",\"timestamp\":\"");
        self.push_timestamp(&mut out, sample.timestamp);
        out.push(b'"');
        for (field, value) in FIELDS.iter().zip(sample.values) {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b"\":");
            push_hundredths(&mut out, value);
        }
        out.push(b'}');
        out
    }

    /// `sample` with `flaw`.
    pub(super) fn spoil(&mut self, device_id: &str, sample: Sample, flaw: Flaw) -> Vec<u8> {
        let spoilt = match flaw {
            Flaw::TooHot => sample.with(0, 85_000),
            Flaw::TooDamp => sample.with(1, 10_001),
            Flaw::BatteryNegative => sample.with(2, -100),
            _ => sample,
        };
        let device_id = if flaw == Flaw::NoDevice { "" } else { device_id };
        let mut good = self.encode(device_id, spoilt);
        match flaw {
            Flaw::TooHot | Flaw::TooDamp | Flaw::BatteryNegative | Flaw::NoDevice => good,
            Flaw::FieldMissing => replace(&good, "\"battery\"", "\"bat\""),
            Flaw::FieldTwice => replace(&good, "{", "{\"humidity\":50,"),
            Flaw::TextForNumber => {
                replace(&good, "\"temperature\":", "\"temperature\":\"n/a\",\"t\":")
            }
            Flaw::CutShort => {
                good.truncate(good.len() / 2);
                good
            }
            Flaw::NotUtf8 => {
                good.extend_from_slice(b"\xff\xfe");
                good
            }
            Flaw::NotAnObject => b"\"sensor failure\"".to_vec(),
            Flaw::NoReading => b"[]".to_vec(),
            Flaw::ImpossibleDate => replace(&good, "\"timestamp\":\"", "\"timestamp\":\"99"),
            Flaw::FarFuture => replace(&good, "\"timestamp\":\"2", "\"timestamp\":\"9"),
            Flaw::LongAgo => replace(&good, "\"timestamp\":\"2", "\"timestamp\":\"1"),
        }
    }

    /// RFC 3339 in UTC, always with six decimals.
    fn push_timestamp(&mut self, out: &mut Vec<u8>, timestamp: Timestamp) {
        let micros = timestamp.as_micros();
        let second = micros.div_euclid(1_000_000);
        if second != self.second {
            let whole = Timestamp::from_micros(second * 1_000_000).unwrap_or(timestamp);
            let text = whole.to_string();
            text.trim_end_matches('Z').clone_into(&mut self.second_text);
            self.second = second;
        }
        out.extend_from_slice(self.second_text.as_bytes());
        out.push(b'.');
        push_digits::<6>(out, micros.rem_euclid(1_000_000).unsigned_abs());
        out.push(b'Z');
    }
}

fn push_hundredths(out: &mut Vec<u8>, value: Hundredths) {
    if value < 0 {
        out.push(b'-');
    }
    let value = u64::from(value.unsigned_abs());
    match value / 100 {
        whole @ 0..10 => push_digits::<1>(out, whole),
        whole @ 10..100 => push_digits::<2>(out, whole),
        whole => out.extend_from_slice(whole.to_string().as_bytes()),
    }
    out.push(b'.');
    push_digits::<2>(out, value % 100);
}

/// The last `N` decimal digits of `value`.
fn push_digits<const N: usize>(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
    out.extend_from_slice(&digits);
}

fn replace(payload: &[u8], from: &str, to: &str) -> Vec<u8> {
    String::from_utf8_lossy(payload).replacen(from, to, 1).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Reading;
    use crate::telemetry::decode::decode;
    use crate::telemetry::rejection::Reason;
    use crate::telemetry::validate::{Rules, TimeOfDay, validate};

    fn rules() -> Rules {
        Rules {
            bounds: FIELDS.map(|field| field.bounds),
            max_future_secs: 86_400,
            oldest_timestamp: Timestamp::from_rfc3339("2000-01-01T00:00:00Z").unwrap(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "what is made is of now")]
    fn outcome(payload: &[u8]) -> Result<Reading, Reason> {
        let mut outcomes = Vec::new();
        decode(payload, |_, outcome| {
            let valid = outcome.and_then(|reading| {
                validate(&reading, &rules(), TimeOfDay::at(Timestamp::now())).map(|()| reading)
            });
            outcomes.push(valid.map_err(|rejection| rejection.reason));
        });
        assert_eq!(outcomes.len(), 1, "{}", String::from_utf8_lossy(payload));
        outcomes.remove(0)
    }

    fn sample() -> Sample {
        let timestamp = Timestamp::from_micros(1_759_667_696_000_001).unwrap();
        Sample { timestamp, values: [-305, 6_520, 10_000] }
    }

    #[test]
    fn a_payload_is_the_contracts_object_with_two_decimals_and_microseconds() {
        let payload = Encoder::new().encode("sensor-001", sample());
        let expected = r#"{"device_id":"sensor-001","timestamp":"2025-10-05T12:34:56.000001Z","temperature":-3.05,"humidity":65.20,"battery":100.00}"#;
        assert_eq!(String::from_utf8(payload).unwrap(), expected);
    }

    #[test]
    fn what_is_encoded_is_what_the_ingestor_reads() {
        let mut encoder = Encoder::new();
        for step in 0..3_000 {
            let micros = sample().timestamp.as_micros() + i64::from(step) * 777_777;
            let timestamp = Timestamp::from_micros(micros).unwrap();
            let sample = Sample { timestamp, ..sample() }.with(0, step - 1_500);
            let reading = outcome(&encoder.encode("sensor-001", sample)).unwrap();
            assert_eq!(reading.timestamp, timestamp);
            let temperature = f64::from(step - 1_500) / 100.0;
            assert_eq!(reading.values[0].to_bits(), (temperature + 0.0).to_bits());
        }
    }

    #[test]
    fn every_flaw_is_rejected_for_its_own_reason() {
        let reasons = Flaw::ALL
            .map(|flaw| outcome(&Encoder::new().spoil("sensor-001", sample(), flaw)).unwrap_err());
        let expected = [
            Reason::OutOfRange(0),
            Reason::OutOfRange(1),
            Reason::OutOfRange(2),
            Reason::MissingField,
            Reason::DuplicateField,
            Reason::WrongType,
            Reason::InvalidJson,
            Reason::NotUtf8,
            Reason::NotAnObject,
            Reason::EmptyArray,
            Reason::InvalidTimestamp,
            Reason::TimestampInFuture,
            Reason::TimestampTooOld,
            Reason::DeviceIdEmpty,
        ];
        assert_eq!(reasons, expected);
    }
}
