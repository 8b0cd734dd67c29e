//! The place of a row in "newest first", as text.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::base::time::Timestamp;
use crate::postgres::instant::Instant;

/// Names a row by what the order goes by. Shown as `<microseconds since the Unix epoch>.<device id in
/// URL-safe base64>`; for clients it is opaque.
///
/// It names a place and not a page: rows that arrive or go meanwhile move nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(super) ts: Instant,
    pub(super) device_id: String,
}

impl Cursor {
    /// The place before everything of an earlier time, and behind everything of this and a later one.
    #[must_use]
    pub(crate) fn before(at: Timestamp) -> Self {
        Self { ts: at.into(), device_id: String::new() }
    }

    /// The time that it names in microseconds since the Unix epoch, the nearest there is, and the device.
    #[must_use]
    pub(crate) fn place(&self) -> (i64, &str) {
        let micros = match self.ts.unix_micros() {
            Some(micros) => {
                i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX })
            }
            None if self.ts == Instant::INFINITY => i64::MAX,
            None => i64::MIN,
        };
        (micros, &self.device_id)
    }
}

const INFINITY: &str = "infinity";
const MINUS_INFINITY: &str = "-infinity";

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device_id = URL_SAFE_NO_PAD.encode(&self.device_id);
        match (self.ts.unix_micros(), self.ts) {
            (Some(micros), _) => write!(f, "{micros}.{device_id}"),
            (None, Instant::INFINITY) => write!(f, "{INFINITY}.{device_id}"),
            (None, _) => write!(f, "{MINUS_INFINITY}.{device_id}"),
        }
    }
}

/// The text is not a cursor that was given out by this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidCursor {
    /// By none: it has to be an unchanged one.
    #[error("not a cursor")]
    Foreign,
    /// By an earlier release, which named rows by a serial number: begin anew without a cursor.
    #[error("a cursor of an earlier release")]
    Outdated,
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let parse = || {
            let (micros, device_id) = text.split_once('.')?;
            let ts = instant(micros)?;
            let device_id = String::from_utf8(URL_SAFE_NO_PAD.decode(device_id).ok()?).ok()?;
            // PostgreSQL's text has none.
            let is_text = !device_id.contains('\0');
            let cursor = Self { ts, device_id };
            // Numbers have other spellings, a cursor has one.
            (is_text && cursor.to_string() == text).then_some(cursor)
        };
        parse().ok_or_else(|| {
            if is_outdated(text) { InvalidCursor::Outdated } else { InvalidCursor::Foreign }
        })
    }
}

fn instant(micros: &str) -> Option<Instant> {
    match micros {
        INFINITY => Some(Instant::INFINITY),
        MINUS_INFINITY => Some(Instant::MINUS_INFINITY),
        micros => Instant::from_unix_micros(micros.parse().ok()?),
    }
}

fn is_outdated(text: &str) -> bool {
    let parts = text.split_once('_');
    parts.is_some_and(|(micros, id)| instant(micros).is_some() && id.parse::<i64>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::properties::seeded;

    fn cursor(micros: i128, device_id: &str) -> Cursor {
        let ts = Instant::from_unix_micros(micros).unwrap();
        Cursor { ts, device_id: device_id.to_owned() }
    }

    #[test]
    fn a_cursor_survives_the_way_to_the_client_and_back() {
        let infinite = |ts| Cursor { ts, device_id: "a".to_owned() };
        for cursor in [
            cursor(1_759_667_696_123_456, "sensor-001"),
            cursor(-1, "größe 1.2_3&x=%41"),
            cursor(0, ""),
            infinite(Instant::INFINITY),
            infinite(Instant::MINUS_INFINITY),
        ] {
            let text = cursor.to_string();
            assert_eq!(text.parse(), Ok(cursor), "{text}");
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(text.chars().all(is_plain), "{text} needs no encoding in a URL");
        }
    }

    #[test]
    fn the_cursor_of_the_longest_name_is_short_enough() {
        let longest = cursor(-210_866_803_200_000_000, &"\u{10ffff}".repeat(128));
        assert!(longest.to_string().len() <= 1_024);
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn any_device_is_named_again(name in "[^\0]{0,128}", micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
            let cursor = cursor(micros.into(), &name);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn whatever_is_taken_is_spelt_as_it_was_given_out(text in "\\PC{0,40}|-?[0-9]{1,18}\\.[A-Za-z0-9_-]{0,12}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn a_cursor_of_the_first_release_is_told_from_a_foreign_one() {
        for text in ["1759667696123456_42", "-1_9223372036854775807", "infinity_7", "0_-3"] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor::Outdated), "{text:?}");
        }
    }

    #[test]
    fn whatever_was_not_given_out_is_refused() {
        let foreign = [
            "",
            ".",
            "1",
            ".YQ",
            "1_2_3",
            "+1.YQ",
            "01.YQ",
            "1.YQ==",
            "1.YR",
            "1. YQ",
            " 1.YQ",
            "1.YQ\n",
            "-0.YQ",
            "1.AA",
            "1.gA",
            "x_1",
            "1_x",
            "99999999999999999999.YQ",
            "9224318016000000000.YQ",
            "-210866803200000001.YQ",
        ];
        for text in foreign {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor::Foreign), "{text:?}");
        }
    }
}
