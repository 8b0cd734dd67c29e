//! The place of a row in "newest first", as text.

use std::fmt;
use std::str::FromStr;

use crate::postgres::instant::Instant;

/// Names a row by what the order goes by. Shown as `<microseconds since the Unix epoch>_<id>`;
/// for clients it is opaque.
///
/// It names a place and not a page: rows that arrive or go meanwhile move nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) ts: Instant,
    pub(super) id: i64,
}

const INFINITY: &str = "infinity";
const MINUS_INFINITY: &str = "-infinity";

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id;
        match (self.ts.unix_micros(), self.ts) {
            (Some(micros), _) => write!(f, "{micros}_{id}"),
            (None, Instant::INFINITY) => write!(f, "{INFINITY}_{id}"),
            (None, _) => write!(f, "{MINUS_INFINITY}_{id}"),
        }
    }
}

/// The text is not a cursor that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let parse = || {
            let (micros, id) = text.split_once('_')?;
            let ts = match micros {
                INFINITY => Instant::INFINITY,
                MINUS_INFINITY => Instant::MINUS_INFINITY,
                micros => Instant::from_unix_micros(micros.parse().ok()?)?,
            };
            let cursor = Self { ts, id: id.parse().ok()? };
            // Numbers have other spellings, a cursor has one.
            (cursor.to_string() == text).then_some(cursor)
        };
        parse().ok_or(InvalidCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_way_to_the_client_and_back() {
        for text in
            ["1759667696123456_42", "-1_9223372036854775807", "0_0", "infinity_7", "-infinity_7"]
        {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn whatever_was_not_given_out_is_refused() {
        let foreign = [
            "",
            "_",
            "1",
            "1_",
            "_1",
            "1_2_3",
            "+1_2",
            "01_2",
            "1_02",
            "1_ 2",
            " 1_2",
            "1_2\n",
            "1_x",
            "-0_1",
            "99999999999999999999_1",
            "1_99999999999999999999",
            "9224318016000000000_1",
            "-210866803200000001_1",
        ];
        for text in foreign {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text:?}");
        }
    }
}
