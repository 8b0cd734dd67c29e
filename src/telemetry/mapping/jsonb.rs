//! What PostgreSQL's `jsonb` takes of JSON. It is narrower than JSON: its numbers have an end in both
//! directions, its text holds no null character, and it reads with a stack of its own.

use std::borrow::Cow;

use super::convert::Unfit;
use crate::telemetry::rejection::Reason;

/// `numeric` has at most 131,072 digits before the point and 16,383 behind it. So many characters and a power
/// of ten that is not larger are within both.
const NUMBER_MAX_BYTES: usize = 8_191;

/// Deeper than this an object is not taken, as with every format.
const MOST_LEVELS: usize = 128;

/// Whether a number of JSON is one of `numeric`.
pub(super) fn is_numeric(number: &str) -> bool {
    let exponent = match number.find(['e', 'E']) {
        Some(at) => number[at + 1..].parse::<i64>().ok(),
        None => Some(0),
    };
    let is_bounded = |exponent: i64| exponent.unsigned_abs() <= NUMBER_MAX_BYTES as u64;
    number.len() <= NUMBER_MAX_BYTES && exponent.is_some_and(is_bounded)
}

/// What of `text`, which is JSON, is not taken.
pub(in crate::telemetry) fn fault(text: &str) -> Option<Unfit> {
    let mut rest = text;
    let mut level = 0_usize;
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'"' => string(rest),
            b'-' | b'0'..=b'9' => number(rest),
            _ => 1,
        };
        let (token, behind) = rest.split_at(length);
        rest = behind;
        match first {
            b'"' => match serde_json::from_str::<Cow<'_, str>>(token) {
                Ok(text) if text.contains('\0') => {
                    return Some(wrong("the object holds a null character"));
                }
                Ok(_) => {}
                Err(_) => return Some(wrong("the object holds a string that is not Unicode")),
            },
            b'-' | b'0'..=b'9' if !is_numeric(token) => {
                let what = "the object holds a number with more digits than PostgreSQL keeps";
                return Some((Reason::NumberOutOfRange, what.to_owned()));
            }
            b'[' | b'{' if level == MOST_LEVELS => {
                let what = format!("the object is nested deeper than {MOST_LEVELS} levels");
                return Some((Reason::WrongType, what));
            }
            b'[' | b'{' => level += 1,
            b']' | b'}' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn wrong(what: &str) -> Unfit {
    (Reason::WrongType, what.to_owned())
}

/// How many bytes the string has that `text` begins with.
fn string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        // What is escaped ends nothing. Of `\u` the digits follow.
        at += 1;
    }
    bytes.len()
}

/// How many bytes the number has that `text` begins with.
fn number(text: &str) -> usize {
    let is_of_number = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.bytes().position(|byte| !is_of_number(byte)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_judged_by_its_digits_and_its_power_of_ten() {
        let digits = |count| "1".repeat(count);
        for number in ["0", "-0.0e0", "1e8191", "1E-8191", "1e+0000300", &digits(8_191)] {
            assert!(is_numeric(number), "{number:.80}");
        }
        for number in ["1e8192", "0e-8192", "1e99999999999999999999", &digits(8_192)] {
            assert!(!is_numeric(number), "{number:.80}");
        }
    }

    #[test]
    fn what_stands_in_a_string_is_no_number_and_opens_nothing() {
        let brackets = "[".repeat(1_000);
        for text in [
            r#"{"1e-20000":"\"1e-20000","a\\":"-"}"#,
            r#"{"a":"\\","b":"\\\"[","c":"ü\u00fc"}"#,
            &format!(r#"{{"a":"{brackets}"}}"#),
            &format!("[{}1]", "[[1],{}],".repeat(1_000)),
        ] {
            assert_eq!(fault(text), None, "{text:.80}");
        }
        assert!(fault(r#"{"a":"\\","b":[1,-1e20000]}"#).is_some());
    }
}
