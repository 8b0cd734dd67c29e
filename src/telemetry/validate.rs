//! The bounds a well-formed reading must keep to; pure functions.

use super::fields::{Bounds, COUNT, FIELDS, Field};
use super::reading::Reading;
use super::rejection::{Reason, Rejection};
use crate::base::settings::{Setting, Sources};
use crate::base::time::Timestamp;

/// Longest `device_id`, in characters.
pub(crate) const DEVICE_ID_MAX_CHARS: usize = 128;

/// The rules of the contract's configuration table.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Of each of [`FIELDS`].
    pub bounds: [Bounds; COUNT],
    /// How far ahead of the clock a timestamp may be, in seconds.
    pub(crate) max_future_secs: u32,
    /// The oldest accepted timestamp.
    pub(crate) oldest_timestamp: Timestamp,
}

impl Rules {
    /// Reads them.
    #[must_use]
    pub fn read(from: &mut Sources) -> Self {
        Self {
            bounds: FIELDS.map(|field| read_bounds(from, &field)),
            max_future_secs: from.number("VALIDATE_MAX_FUTURE_SECS", 86_400, 0..=u32::MAX),
            oldest_timestamp: read_oldest_timestamp(from),
        }
    }

    /// What can be set here, and what holds if it is not.
    pub(crate) fn settings() -> Vec<Setting> {
        let bound = |name, value: f64, which, field: &Field| {
            let meaning = format!("{which} {} that is accepted, in {}", field.name, field.unit);
            Setting {
                name,
                default: value.to_string().into(),
                meaning: meaning.into(),
                is_secret: false,
            }
        };
        let of_field = |field: &Field| {
            let Bounds { min, max } = field.bounds;
            [
                bound(field.min_setting, min, "lowest", field),
                bound(field.max_setting, max, "highest", field),
            ]
        };
        let mut all: Vec<_> = FIELDS.iter().flat_map(of_field).collect();
        all.extend([
            Setting::new(
                "VALIDATE_MAX_FUTURE_SECS",
                "86400",
                "how far ahead of the clock a timestamp may be; not applied while the clock is plainly wrong",
            ),
            Setting::new("VALIDATE_OLDEST_TIMESTAMP", "2000-01-01T00:00:00Z", "older readings are rejected"),
        ]);
        all
    }

    /// Every rule as name and value.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        let of_field = |(field, bounds): (&Field, &Bounds)| {
            [
                (field.min_setting, bounds.min.to_string()),
                (field.max_setting, bounds.max.to_string()),
            ]
        };
        let mut all: Vec<_> = FIELDS.iter().zip(&self.bounds).flat_map(of_field).collect();
        all.push(("VALIDATE_MAX_FUTURE_SECS", self.max_future_secs.to_string()));
        all.push(("VALIDATE_OLDEST_TIMESTAMP", self.oldest_timestamp.to_string()));
        all
    }
}

fn read_bounds(from: &mut Sources, field: &Field) -> Bounds {
    let Field { bounds: Bounds { min, max }, min_setting, max_setting, .. } = *field;
    let bounds = Bounds { min: from.finite(min_setting, min), max: from.finite(max_setting, max) };
    if bounds.min > bounds.max {
        from.mistake(format!("{min_setting} is above {max_setting}"));
    }
    bounds
}

fn read_oldest_timestamp(from: &mut Sources) -> Timestamp {
    let text =
        from.value("VALIDATE_OLDEST_TIMESTAMP", "2000-01-01T00:00:00Z".to_owned(), "RFC 3339");
    Timestamp::from_rfc3339(&text).unwrap_or_else(|| {
        from.mistake("VALIDATE_OLDEST_TIMESTAMP: expected RFC 3339, such as 2000-01-01T00:00:00Z");
        Timestamp::UNIX_EPOCH
    })
}

/// What the clock of this machine reads, and whether it can be right.
#[derive(Clone, Copy, Debug)]
pub struct TimeOfDay {
    now: Timestamp,
    plausible: bool,
}

impl TimeOfDay {
    /// A clock that reads `now`. It is plainly wrong while that is before the binary was built, as on a
    /// box without a battery that has not reached a time server yet.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { now, plausible: now >= built_at() }
    }

    /// Whether rules about the future can be applied.
    #[must_use]
    pub(crate) fn is_plausible(self) -> bool {
        self.plausible
    }

    /// What the clock reads.
    #[must_use]
    pub(crate) fn now(self) -> Timestamp {
        self.now
    }
}

/// When this binary was built; `SOURCE_DATE_EPOCH` if that was set.
#[must_use]
pub(crate) fn built_at() -> Timestamp {
    let seconds = env!("BUILD_UNIX_SECONDS").parse::<i64>().unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1_000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Checks `reading` against `rules`.
///
/// # Errors
/// The first rule it breaks, identity before time before values.
pub(crate) fn validate(
    reading: &Reading,
    rules: &Rules,
    clock: TimeOfDay,
) -> Result<(), Rejection> {
    check_device_id(&reading.device_id)?;
    check_timestamp(reading.timestamp, rules, clock)?;
    let mut values = rules.bounds.into_iter().zip(reading.values).enumerate();
    match values.find(|(_, (bounds, value))| !bounds.contain(*value)) {
        None => Ok(()),
        Some((at, (Bounds { min, max }, value))) => {
            let name = FIELDS[at].name;
            let message = format!("{name} {value} is outside {min} to {max}");
            Err(Rejection::new(Reason::OutOfRange(at), message))
        }
    }
}

/// Checks the name of a device.
pub(super) fn check_device_id(id: &str) -> Result<(), Rejection> {
    if id.is_empty() {
        return Err(Rejection::new(Reason::DeviceIdEmpty, "device_id is empty"));
    }
    // A character has at least one byte, so most ids need no counting.
    if id.len() > DEVICE_ID_MAX_CHARS && id.chars().count() > DEVICE_ID_MAX_CHARS {
        let message = format!("device_id is longer than {DEVICE_ID_MAX_CHARS} characters");
        return Err(Rejection::new(Reason::DeviceIdTooLong, message));
    }
    if id.chars().any(char::is_control) {
        let message = "device_id holds a control character";
        return Err(Rejection::new(Reason::DeviceIdControlCharacter, message));
    }
    Ok(())
}

/// Checks the time of a reading.
pub(super) fn check_timestamp(
    at: Timestamp,
    rules: &Rules,
    clock: TimeOfDay,
) -> Result<(), Rejection> {
    if at < rules.oldest_timestamp {
        let message = format!("timestamp {at} is before {}", rules.oldest_timestamp);
        return Err(Rejection::new(Reason::TimestampTooOld, message));
    }
    if clock.plausible && at.seconds_since(clock.now) > f64::from(rules.max_future_secs) {
        let message = format!(
            "timestamp {at} is more than {} s ahead of the clock ({})",
            rules.max_future_secs, clock.now
        );
        return Err(Rejection::new(Reason::TimestampInFuture, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            bounds: FIELDS.map(|field| field.bounds),
            max_future_secs: 60,
            oldest_timestamp: Timestamp::from_rfc3339("2000-01-01T00:00:00Z").unwrap(),
        }
    }

    /// Long after the build.
    fn now() -> Timestamp {
        Timestamp::from_rfc3339("2100-01-01T00:00:00Z").unwrap()
    }

    fn good() -> Reading {
        Reading {
            device_id: "a".to_owned(),
            timestamp: Timestamp::from_rfc3339("2025-10-05T12:34:56Z").unwrap(),
            values: [20.0, 50.0, 50.0],
        }
    }

    fn reason(change: impl FnOnce(&mut Reading)) -> Option<Reason> {
        let mut reading = good();
        change(&mut reading);
        validate(&reading, &rules(), TimeOfDay::at(now())).err().map(|rejection| rejection.reason)
    }

    #[test]
    fn both_ends_of_a_range_are_inside() {
        for value in [-50.0, 100.0] {
            assert_eq!(reason(|r| r.values[0] = value), None);
        }
        assert_eq!(reason(|r| r.values[0] = -50.000_001), Some(Reason::OutOfRange(0)));
        assert_eq!(reason(|r| r.values[1] = 100.1), Some(Reason::OutOfRange(1)));
        assert_eq!(reason(|r| r.values[2] = -0.1), Some(Reason::OutOfRange(2)));
    }

    #[test]
    fn a_value_that_is_not_a_number_is_outside_every_range() {
        assert_eq!(reason(|r| r.values[2] = f64::NAN), Some(Reason::OutOfRange(2)));
    }

    #[test]
    fn a_device_id_is_counted_in_characters() {
        assert_eq!(reason(|r| r.device_id = "é".repeat(128)), None);
        assert_eq!(reason(|r| r.device_id = "é".repeat(129)), Some(Reason::DeviceIdTooLong));
        assert_eq!(reason(|r| r.device_id.clear()), Some(Reason::DeviceIdEmpty));
        let control = |r: &mut Reading| r.device_id = "a\u{0}b".to_owned();
        assert_eq!(reason(control), Some(Reason::DeviceIdControlCharacter));
    }

    #[test]
    fn a_timestamp_may_lead_the_clock_by_the_configured_seconds_only() {
        let ahead = |secs: i64| {
            move |r: &mut Reading| {
                r.timestamp = Timestamp::from_micros(now().as_micros() + secs * 1_000_000).unwrap();
            }
        };
        assert_eq!(reason(ahead(50)), None);
        assert_eq!(reason(ahead(70)), Some(Reason::TimestampInFuture));
    }

    #[test]
    fn the_future_is_not_judged_by_a_clock_that_reads_a_time_before_the_build() {
        let clock = TimeOfDay::at(Timestamp::from_millis(0).unwrap());
        assert!(!clock.is_plausible());
        assert_eq!(validate(&good(), &rules(), clock), Ok(()));
    }

    #[test]
    fn the_oldest_timestamp_itself_is_accepted() {
        assert_eq!(reason(|r| r.timestamp = rules().oldest_timestamp), None);
        let older = |r: &mut Reading| {
            r.timestamp = Timestamp::from_rfc3339("1999-12-31T23:59:59.999999Z").unwrap();
        };
        assert_eq!(reason(older), Some(Reason::TimestampTooOld));
    }
}
