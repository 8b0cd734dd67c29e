//! ISO 8601 as `start` and `end` take it.
//!
//! | form | meaning |
//! |---|---|
//! | `2025-10-05T12:34:56.789+02:00` | that instant, with up to nine decimals; `Z`, `+02`, `+0200` |
//! | `2025-10-05T12:34:56`, `2025-10-05T12:34` | in UTC |
//! | `2025-10-05` | as `start` the day's first, as `end` its last microsecond, in UTC |
//!
//! A space may stand for the `T`, as many tools print it, and for the `+` of an offset: that is
//! what an unescaped `+` in a query string turns into.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::base::time::Timestamp;

/// Which end of a range an instant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// Inclusive.
    Start,
    /// Inclusive.
    End,
}

/// The instant that `text` names; `None` if it is none of the forms above.
pub(super) fn parse(text: &str, edge: Edge) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = (shape(date) == "0000-00-00")
        .then(|| NaiveDate::parse_from_str(date, "%Y-%m-%d").ok())
        .flatten()?;
    if rest.is_empty() {
        let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN).and_utc();
        return Some(match edge {
            Edge::Start => midnight(date).into(),
            Edge::End => {
                (midnight(date.checked_add_days(Days::new(1))?) - TimeDelta::microseconds(1)).into()
            }
        });
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-', ' ']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone_at);
    let local = date.and_time(time_of_day(clock)?).and_utc();
    let at: DateTime<Utc> = local.checked_sub_signed(offset(zone)?)?;
    Some(at.into())
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    let (clock, decimals) = text.split_once(['.', ',']).unwrap_or((text, "0"));
    let format = match shape(clock).as_str() {
        "00:00:00" => "%H:%M:%S%.f",
        "00:00" if clock.len() == text.len() => {
            return NaiveTime::parse_from_str(text, "%H:%M").ok();
        }
        _ => return None,
    };
    let are_decimals =
        (1..=9).contains(&decimals.len()) && shape(decimals).bytes().all(|b| b == b'0');
    are_decimals.then(|| NaiveTime::parse_from_str(&text.replace(',', "."), format).ok()).flatten()
}

/// How far local time is ahead of UTC.
fn offset(text: &str) -> Option<TimeDelta> {
    let sign = match text.bytes().next() {
        None => return Some(TimeDelta::zero()),
        Some(b'Z' | b'z') => return (text.len() == 1).then_some(TimeDelta::zero()),
        Some(b'-') => -1,
        Some(_) => 1,
    };
    let digits = &text[1..];
    let (hours, minutes) = match shape(digits).as_str() {
        "00" => (digits, "0"),
        "0000" => digits.split_at(2),
        "00:00" => digits.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then(|| TimeDelta::minutes(sign * (hours * 60 + minutes)))
}

/// `text` with a `0` for each digit: the parser of dates is more lenient than ISO 8601.
fn shape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        parse(text, Edge::Start).map_or_else(|| format!("refused {text:?}"), |at| at.to_string())
    }

    #[test]
    fn an_offset_is_honoured_and_none_means_utc() {
        let noon = [
            "2025-10-05T12:00:00Z",
            "2025-10-05t12:00:00z",
            "2025-10-05T12:00:00",
            "2025-10-05 12:00:00",
            "2025-10-05T12:00",
            "2025-10-05T12:00Z",
            "2025-10-05T14:00:00+02:00",
            "2025-10-05T14:00:00+0200",
            "2025-10-05T14:00+02",
            "2025-10-05T06:30:00-05:30",
        ];
        for text in noon {
            assert_eq!(parsed(text), "2025-10-05T12:00:00Z", "{text}");
        }
    }

    #[test]
    fn a_plus_that_became_a_space_is_still_an_offset() {
        assert_eq!(parsed("2025-10-05T14:00:00 02:00"), "2025-10-05T12:00:00Z");
        assert_eq!(parsed("2025-10-05 14:00:00.5 02:00"), "2025-10-05T12:00:00.500Z");
    }

    #[test]
    fn microseconds_are_kept() {
        assert_eq!(parsed("2025-10-05T12:34:56.123456Z"), "2025-10-05T12:34:56.123456Z");
        assert_eq!(parsed("2025-10-05T12:34:56,123456789Z"), "2025-10-05T12:34:56.123456Z");
    }

    #[test]
    fn a_date_is_the_whole_day() {
        let day = |edge| parse("2024-02-29", edge).unwrap().to_string();
        assert_eq!(day(Edge::Start), "2024-02-29T00:00:00Z");
        assert_eq!(day(Edge::End), "2024-02-29T23:59:59.999999Z");
    }

    #[test]
    fn anything_else_is_refused() {
        let wrong = [
            "",
            "now",
            "0",
            "1759667696000",
            "2025",
            "2025-10",
            "2025-10-5",
            "2025-13-01",
            "2025-02-29",
            "20251005",
            "+2025-10-05",
            "2025-10-05T",
            "2025-10-05T12",
            "2025-10-05T25:00:00Z",
            "2025-10-05T24:00:00Z",
            "2025-10-05T12:60:00Z",
            "2025-10-05T12:00:00.Z",
            "2025-10-05T12:00.5",
            "2025-10-05T12:00:00.1234567890Z",
            "2025-10-05T1:2:3",
            "2025-10-05T12:00:00Zx",
            "2025-10-05T12:00:00+",
            "2025-10-05T12:00:00+2",
            "2025-10-05T12:00:00+24:00",
            "2025-10-05T12:00:00+02:60",
            "2025-10-05T12:00:00 UTC",
            "2025-10-05X12:00:00",
            " 2025-10-05",
            "2025-10-05 ",
            "2025-10-0५",
            "infinity",
        ];
        for text in wrong {
            assert_eq!(parse(text, Edge::Start), None, "{text:?}");
        }
    }
}
