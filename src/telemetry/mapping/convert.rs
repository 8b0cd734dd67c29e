//! From a value of a message to one of a column, with no other liberties than those that are stated.

use super::shape::{Cell, Kind};
use super::value::Raw;
use crate::telemetry::rejection::Reason;

/// Why a value does not fit: a rule, and the rest of a sentence about it.
pub(super) type Unfit = (Reason, String);

/// What is done to a number before its bounds are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::telemetry) struct Linear {
    pub(super) scale: f64,
    pub(super) offset: f64,
}

/// A value for a column of `kind`, which is not [`Kind::Json`].
pub(in crate::telemetry) fn convert(
    raw: &Raw<'_>,
    kind: Kind,
    linear: Option<Linear>,
) -> Result<Cell, Unfit> {
    match kind {
        Kind::Float => float(raw, kind).and_then(|value| match linear {
            None => Ok(Cell::Float(value)),
            Some(linear) => linear.apply(value).map(Cell::Float),
        }),
        Kind::Int => match linear {
            None => int(raw).map(Cell::Int),
            Some(linear) => float(raw, kind)
                .and_then(|value| linear.apply(value))
                .and_then(whole)
                .map(Cell::Int),
        },
        Kind::Bool => boolean(raw).map(Cell::Bool),
        Kind::Text | Kind::Json => text(raw).map(|text| Cell::Text(text.to_owned())),
    }
}

impl Linear {
    fn apply(self, value: f64) -> Result<f64, Unfit> {
        let value = value * self.scale + self.offset;
        if value.is_finite() { Ok(value) } else { Err(too_large()) }
    }
}

fn wrong_type(raw: &Raw<'_>, expected: &str) -> Unfit {
    let found = match raw {
        Raw::Text(_) => format!("the string {}", raw.shown()),
        Raw::Bool(_) | Raw::Number(_) => raw.shown(),
        other => other.what().to_owned(),
    };
    (Reason::WrongType, format!("expected {expected}, found {found}"))
}

fn too_large() -> Unfit {
    (Reason::NumberOutOfRange, "the number is too large for a double".to_owned())
}

/// A number as it may be written in a string: no spaces, no words.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    if is_plain && has_digit { text.parse().ok() } else { None }
}

fn float(raw: &Raw<'_>, kind: Kind) -> Result<f64, Unfit> {
    let expected = if kind == Kind::Int { "an integer" } else { "a number" };
    let value = match raw {
        // What JSON takes for one.
        Raw::Number(text) => text.parse().ok(),
        Raw::Text(text) => number(text),
        _ => None,
    };
    match value {
        None => Err(wrong_type(raw, expected)),
        Some(value) if value.is_finite() => Ok(value),
        Some(_) => Err(too_large()),
    }
}

fn int(raw: &Raw<'_>) -> Result<i64, Unfit> {
    let text = match raw {
        Raw::Number(text) => text,
        Raw::Text(text) => &**text,
        _ => return Err(wrong_type(raw, "an integer")),
    };
    let Ok(value) = text.parse::<i64>() else {
        return match number(text) {
            // Without decimals, and yet no digits alone: `1e3`.
            Some(value) if !text.contains('.') && text.contains(['e', 'E']) => whole(value),
            Some(_) if text.contains(['.', 'e', 'E']) => {
                let message = format!("expected an integer, found {text}, which has decimals");
                Err((Reason::WrongType, message))
            }
            Some(_) => Err(not_exact(text)),
            None => Err(wrong_type(raw, "an integer")),
        };
    };
    #[expect(clippy::cast_precision_loss, reason = "whether it is lost is what is asked")]
    let double = value as f64;
    // i128, as the nearest double of the largest i64 lies beyond it.
    #[expect(clippy::cast_possible_truncation, reason = "a double of an i64 fits")]
    let is_exact = double as i128 == i128::from(value);
    if is_exact { Ok(value) } else { Err(not_exact(text)) }
}

fn not_exact(text: &str) -> Unfit {
    let message = format!("{text} is an integer that a double would round");
    (Reason::NumberOutOfRange, message)
}

/// The integer that a computed double stands for.
fn whole(value: f64) -> Result<i64, Unfit> {
    /// Beyond this a double skips integers.
    const EXACT_UP_TO: f64 = 9_007_199_254_740_992.0;
    let rounded = value.round();
    if rounded.abs() > EXACT_UP_TO {
        return Err((Reason::NumberOutOfRange, format!("{value} is too large for an integer")));
    }
    // What scaling adds in the last digits is not a decimal of the device.
    if (value - rounded).abs() > 1e-9 * value.abs().max(1.0) {
        let message = format!("expected an integer, found {value}, which has decimals");
        return Err((Reason::WrongType, message));
    }
    #[expect(clippy::cast_possible_truncation, reason = "its bounds were looked at")]
    Ok(rounded as i64)
}

const TRUE: [&str; 5] = ["true", "on", "online", "yes", "open"];
const FALSE: [&str; 5] = ["false", "off", "offline", "no", "closed"];

fn boolean(raw: &Raw<'_>) -> Result<bool, Unfit> {
    let is_one_of =
        |words: [&str; 5], text: &str| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    let value = match raw {
        Raw::Bool(value) => Some(*value),
        Raw::Number(text) => match number(text) {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Raw::Text(text) => match &**text {
            "0" => Some(false),
            "1" => Some(true),
            text if is_one_of(TRUE, text) => Some(true),
            text if is_one_of(FALSE, text) => Some(false),
            _ => None,
        },
        _ => None,
    };
    value.ok_or_else(|| {
        let expected =
            "true or false, 0 or 1, on or off, online or offline, yes or no, open or closed";
        wrong_type(raw, expected)
    })
}

fn text<'r>(raw: &'r Raw<'_>) -> Result<&'r str, Unfit> {
    match raw {
        Raw::Number(text) => Ok(text),
        Raw::Text(text) if text.contains('\0') => {
            Err((Reason::WrongType, "the text holds a null character".to_owned()))
        }
        Raw::Text(text) => Ok(text),
        _ => Err(wrong_type(raw, "a string or a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str, kind: Kind) -> Result<Cell, Reason> {
        convert(&Raw::of_json(text), kind, None).map_err(|(reason, _)| reason)
    }

    #[test]
    fn each_type_takes_exactly_what_is_stated() {
        let table = [
            ("23.5", Kind::Float, Ok(Cell::Float(23.5))),
            ("\"23.5\"", Kind::Float, Ok(Cell::Float(23.5))),
            ("\"-1e3\"", Kind::Float, Ok(Cell::Float(-1_000.0))),
            ("\"+1\"", Kind::Float, Ok(Cell::Float(1.0))),
            ("\" 1\"", Kind::Float, Err(Reason::WrongType)),
            ("\"1 C\"", Kind::Float, Err(Reason::WrongType)),
            ("\"\"", Kind::Float, Err(Reason::WrongType)),
            ("\"nan\"", Kind::Float, Err(Reason::WrongType)),
            ("\"inf\"", Kind::Float, Err(Reason::WrongType)),
            ("\"1,5\"", Kind::Float, Err(Reason::WrongType)),
            ("true", Kind::Float, Err(Reason::WrongType)),
            ("[1]", Kind::Float, Err(Reason::WrongType)),
            ("{}", Kind::Float, Err(Reason::WrongType)),
            ("1e999", Kind::Float, Err(Reason::NumberOutOfRange)),
            ("-97", Kind::Int, Ok(Cell::Int(-97))),
            ("\"12\"", Kind::Int, Ok(Cell::Int(12))),
            ("1e3", Kind::Int, Ok(Cell::Int(1_000))),
            ("23.5", Kind::Int, Err(Reason::WrongType)),
            ("23.0", Kind::Int, Err(Reason::WrongType)),
            ("\"23.0\"", Kind::Int, Err(Reason::WrongType)),
            ("9007199254740992", Kind::Int, Ok(Cell::Int(9_007_199_254_740_992))),
            ("9007199254740993", Kind::Int, Err(Reason::NumberOutOfRange)),
            ("9223372036854775807", Kind::Int, Err(Reason::NumberOutOfRange)),
            ("-9223372036854775808", Kind::Int, Ok(Cell::Int(i64::MIN))),
            ("9223372036854775808", Kind::Int, Err(Reason::NumberOutOfRange)),
            ("99999999999999999999", Kind::Int, Err(Reason::NumberOutOfRange)),
            ("\"x\"", Kind::Int, Err(Reason::WrongType)),
            ("true", Kind::Bool, Ok(Cell::Bool(true))),
            ("0", Kind::Bool, Ok(Cell::Bool(false))),
            ("\"1\"", Kind::Bool, Ok(Cell::Bool(true))),
            ("\"oNLine\"", Kind::Bool, Ok(Cell::Bool(true))),
            ("\"Closed\"", Kind::Bool, Ok(Cell::Bool(false))),
            ("\"NO\"", Kind::Bool, Ok(Cell::Bool(false))),
            ("2", Kind::Bool, Err(Reason::WrongType)),
            ("\"maybe\"", Kind::Bool, Err(Reason::WrongType)),
            ("\"ü\"", Kind::Text, Ok(Cell::Text("ü".to_owned()))),
            ("1.50", Kind::Text, Ok(Cell::Text("1.50".to_owned()))),
            ("1E+2", Kind::Text, Ok(Cell::Text("1E+2".to_owned()))),
            ("true", Kind::Text, Err(Reason::WrongType)),
            (r#""a\u0000""#, Kind::Text, Err(Reason::WrongType)),
        ];
        for (text, kind, expected) in table {
            assert_eq!(json(text, kind), expected, "{text} as {}", kind.as_str());
        }
    }

    #[test]
    fn a_number_is_scaled_before_it_is_judged() {
        let scaled = |text, kind, scale, offset| {
            convert(&Raw::of_json(text), kind, Some(Linear { scale, offset })).ok()
        };
        assert_eq!(scaled("235", Kind::Float, 0.1, -40.0), Some(Cell::Float(235.0 * 0.1 - 40.0)));
        assert_eq!(scaled("1.1", Kind::Int, 10.0, 0.0), Some(Cell::Int(11)));
        assert_eq!(scaled("1", Kind::Int, 0.5, 0.0), None);
        assert_eq!(scaled("1e308", Kind::Float, 1e10, 0.0), None);
    }
}
