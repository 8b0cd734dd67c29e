//! Times as devices write them.

use chrono::{NaiveDate, NaiveDateTime};
use jiff::tz::TimeZone;

use super::value::Raw;
use crate::base::time::Timestamp;

/// How a device writes a time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Format {
    /// A date, a time of day and an offset from UTC; a space for the `T` too.
    Rfc3339,
    /// The same without an offset, in this zone.
    Local(Zone),
    /// A number since the Unix epoch.
    Since(Unit),
}

/// Where a local time holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Zone {
    /// Seconds east of UTC.
    Fixed(i64),
    /// By the rules of a place, or of this machine.
    Rules(TimeZone),
}

/// What is counted since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Zone {
    /// Reads `UTC`, `+01:00`, `system` or a name of the IANA database.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "UTC" | "Z" => Ok(Self::Fixed(0)),
            "system" => Ok(Self::Rules(TimeZone::system())),
            text if text.starts_with(['+', '-']) => match offset(text) {
                Some(seconds) => Ok(Self::Fixed(seconds)),
                None => Err(format!("`{text}` is no offset, which is written +01:00")),
            },
            name => TimeZone::get(name).map(Self::Rules).map_err(|_| {
                format!("`{name}` is no zone: there are UTC, +01:00, system, and names such as Europe/Berlin")
            }),
        }
    }

    /// What the clocks there show as `local`, in microseconds since the Unix epoch. Of an hour that they
    /// show twice the first is meant, and of one that they leave out, what they would show without.
    fn micros(&self, local: NaiveDateTime) -> Option<i64> {
        let micros = local.and_utc().timestamp_micros();
        match self {
            Self::Fixed(seconds) => micros.checked_sub(seconds * 1_000_000),
            Self::Rules(rules) => {
                let as_utc = jiff::Timestamp::from_microsecond(micros).ok()?;
                let local = TimeZone::UTC.to_datetime(as_utc);
                rules.to_timestamp(local).ok().map(jiff::Timestamp::as_microsecond)
            }
        }
    }
}

impl Unit {
    /// By which power of ten it becomes microseconds.
    fn shift(self) -> i64 {
        match self {
            Self::Seconds => 6,
            Self::Millis => 3,
            Self::Micros => 0,
            Self::Nanos => -3,
        }
    }
}

impl Format {
    /// The time that `raw` is.
    ///
    /// # Errors
    /// The end of a sentence about it.
    pub(super) fn read(&self, raw: &Raw<'_>) -> Result<Timestamp, String> {
        let (micros, expected) = match self {
            Self::Rfc3339 => (text(raw).and_then(rfc3339), "an RFC 3339 time"),
            Self::Local(zone) => (
                text(raw).and_then(local).and_then(|at| zone.micros(at)),
                "a time such as 2025-10-05T12:34:56, without a zone",
            ),
            Self::Since(unit) => {
                (number(raw).and_then(|text| since_epoch(text, *unit)), "a number since 1970")
            }
        };
        micros
            .and_then(Timestamp::from_micros)
            .ok_or_else(|| format!("expected {expected}, found {}", raw.shown()))
    }
}

fn text<'r>(raw: &'r Raw<'_>) -> Option<&'r str> {
    match raw {
        Raw::Text(text) => Some(text),
        _ => None,
    }
}

fn number<'r>(raw: &'r Raw<'_>) -> Option<&'r str> {
    match raw {
        Raw::Number(text) => Some(text),
        Raw::Text(text) => Some(text),
        _ => None,
    }
}

fn rfc3339(text: &str) -> Option<i64> {
    let (local, rest) = date_and_time(text)?;
    let seconds = match rest.strip_prefix(' ').unwrap_or(rest) {
        "Z" | "z" | "UTC" => 0,
        rest => offset(rest)?,
    };
    local.and_utc().timestamp_micros().checked_sub(seconds * 1_000_000)
}

fn local(text: &str) -> Option<NaiveDateTime> {
    let (local, rest) = date_and_time(text)?;
    rest.is_empty().then_some(local)
}

/// `+01:00`, `+0100` or `+01`, in seconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = digits::<2>(rest)?;
    let minutes = match rest.strip_prefix(':').unwrap_or(rest) {
        "" if rest.is_empty() => 0,
        rest => match digits::<2>(rest)? {
            (minutes, "") => minutes,
            _ => return None,
        },
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// What `text` begins with, and what is left. What is finer than a microsecond is cut off.
fn date_and_time(text: &str) -> Option<(NaiveDateTime, &str)> {
    let (year, rest) = digits::<4>(text)?;
    let (month, rest) = digits::<2>(rest.strip_prefix('-')?)?;
    let (day, rest) = digits::<2>(rest.strip_prefix('-')?)?;
    let (hour, rest) = digits::<2>(rest.strip_prefix(['T', 't', ' '])?)?;
    let (minute, rest) = digits::<2>(rest.strip_prefix(':')?)?;
    let (second, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits::<2>(rest)?,
        None => (0, rest),
    };
    let (micros, rest) = match rest.strip_prefix(['.', ',']) {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    // A leap second is the one behind it, as for PostgreSQL.
    let (whole, leap) = if second == 60 { (59, 1) } else { (second, 0) };
    let small = |number: i64| u32::try_from(number).ok();
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, small(month)?, small(day)?)?;
    let at = date.and_hms_micro_opt(small(hour)?, small(minute)?, small(whole)?, micros)?;
    Some((at.checked_add_signed(chrono::TimeDelta::seconds(leap))?, rest))
}

fn digits<const N: usize>(text: &str) -> Option<(i64, &str)> {
    let (digits, rest) = text.split_at_checked(N)?;
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if are_digits { Some((digits.parse().ok()?, rest)) } else { None }
}

fn fraction(text: &str) -> Option<(u32, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let micros = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some((micros.fold(0, |all, digit| all * 10 + u32::from(digit - b'0')), rest))
}

/// Microseconds, read from the digits: a double has too few of them for a time in seconds with
/// decimals. What is finer is cut off.
pub(super) fn since_epoch(text: &str, unit: Unit) -> Option<i64> {
    /// More digits than any time has.
    const MOST_DIGITS: i64 = 40;
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || !are_digits(whole) || !are_digits(decimals) {
        return None;
    }
    // How many of the digits stand before the point, counted in microseconds.
    let before =
        i64::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(unit.shift())?;
    let all = || whole.bytes().chain(decimals.bytes());
    let mut micros = 0_i64;
    let leading = i64::try_from(all().take_while(|digit| *digit == b'0').count()).ok()?;
    if before - leading > MOST_DIGITS && all().any(|digit| digit != b'0') {
        return None;
    }
    if all().all(|digit| digit == b'0') {
        return Some(0);
    }
    for digit in all().chain(std::iter::repeat(b'0')).take(usize::try_from(before.max(0)).ok()?) {
        micros = micros.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(if is_negative { -micros } else { micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, format: &Format) -> Option<String> {
        format.read(&Raw::of_json(json)).ok().map(|at| at.to_string())
    }

    #[test]
    fn an_rfc_3339_time_may_have_a_space_and_any_offset() {
        for (text, expected) in [
            ("2025-10-05T12:34:56Z", "2025-10-05T12:34:56Z"),
            ("2025-10-05 14:34:56.1234569+02:00", "2025-10-05T12:34:56.123456Z"),
            ("2025-10-05t12:34:56z", "2025-10-05T12:34:56Z"),
            ("2020-08-26T10:57:23.105+0200", "2020-08-26T08:57:23.105Z"),
            ("2025-10-05 12:34:56 -05", "2025-10-05T17:34:56Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ] {
            assert_eq!(read(&format!("\"{text}\""), &Format::Rfc3339).as_deref(), Some(expected));
        }
        for text in [
            "",
            "2025-10-05",
            "2025-10-05T12:34:56",
            "2025-13-05T12:34:56Z",
            "2025-10-05T25:00:00Z",
            "2025-10-05T12:34:56.Z",
            "2025-10-05T12:34:56+25:00",
            "2025-10-05T12:34:56Zx",
            "yesterday",
            "２０２５-10-05T12:34:56Z",
        ] {
            assert_eq!(read(&format!("\"{text}\""), &Format::Rfc3339), None, "{text}");
        }
        assert_eq!(read("1759667696", &Format::Rfc3339), None);
    }

    #[test]
    fn a_local_time_holds_in_its_zone_and_has_none_itself() {
        let local = |zone| Format::Local(Zone::parse(zone).unwrap());
        for (zone, text, expected) in [
            ("UTC", "2025-10-05T12:34:56", "2025-10-05T12:34:56Z"),
            ("+01:00", "2025-10-05 12:34:56.5", "2025-10-05T11:34:56.500Z"),
            ("-03:30", "2025-10-05T12:34", "2025-10-05T16:04:00Z"),
            ("Europe/Berlin", "2025-07-01T12:00:00", "2025-07-01T10:00:00Z"),
            ("Europe/Berlin", "2025-01-01T12:00:00", "2025-01-01T11:00:00Z"),
            // Shown twice, and not at all.
            ("Europe/Berlin", "2025-10-26T02:30:00", "2025-10-26T00:30:00Z"),
            ("Europe/Berlin", "2025-03-30T02:30:00", "2025-03-30T01:30:00Z"),
        ] {
            let quoted = format!("\"{text}\"");
            assert_eq!(read(&quoted, &local(zone)).as_deref(), Some(expected), "{zone} {text}");
        }
        assert_eq!(read("\"2025-10-05T12:34:56Z\"", &local("UTC")), None);
        for zone in ["", "+1", "+25:00", "Europe/Nowhere", "utc+1"] {
            assert!(Zone::parse(zone).is_err(), "{zone}");
        }
        assert!(Zone::parse("system").is_ok());
    }

    #[test]
    fn a_number_is_read_from_its_digits() {
        let since = |unit| Format::Since(unit);
        for (json, unit, expected) in [
            ("1654511972.77", Unit::Seconds, Some("2022-06-06T10:39:32.770Z")),
            ("1759667696.1234569", Unit::Seconds, Some("2025-10-05T12:34:56.123456Z")),
            ("\"1759667696\"", Unit::Seconds, Some("2025-10-05T12:34:56Z")),
            ("1.759667696e9", Unit::Seconds, Some("2025-10-05T12:34:56Z")),
            ("1759667696123", Unit::Millis, Some("2025-10-05T12:34:56.123Z")),
            ("1759667696123.456", Unit::Millis, Some("2025-10-05T12:34:56.123456Z")),
            ("1759667696123456", Unit::Micros, Some("2025-10-05T12:34:56.123456Z")),
            ("1759667696123456789", Unit::Nanos, Some("2025-10-05T12:34:56.123456Z")),
            ("-1.5", Unit::Seconds, Some("1969-12-31T23:59:58.500Z")),
            ("0", Unit::Seconds, Some("1970-01-01T00:00:00Z")),
            ("0e999999999", Unit::Seconds, Some("1970-01-01T00:00:00Z")),
            ("1e-9999", Unit::Seconds, Some("1970-01-01T00:00:00Z")),
            ("1e99", Unit::Seconds, None),
            ("1e9999999999999999999", Unit::Seconds, None),
            ("99999999999999999999", Unit::Micros, None),
            ("\"\"", Unit::Seconds, None),
            ("\".\"", Unit::Seconds, None),
            ("\"1 \"", Unit::Seconds, None),
            ("\"0x1\"", Unit::Seconds, None),
            ("true", Unit::Seconds, None),
        ] {
            assert_eq!(read(json, &since(unit)).as_deref(), expected, "{json}");
        }
    }
}
