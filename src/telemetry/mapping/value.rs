//! A value of a message as it stands there. Numbers keep their digits: text columns take them as
//! written, times are read from them, and integers are judged by them.

use std::borrow::Cow;

/// A value of a message.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::telemetry) enum Raw<'p> {
    Null,
    Bool(bool),
    /// As written.
    Number(&'p str),
    Text(Cow<'p, str>),
    /// A string that is not Unicode: half of a surrogate pair.
    Broken,
    /// A number or a string that no reading has room for, of so many bytes.
    TooLong(usize),
    /// As written.
    Array(&'p str),
    /// As written.
    Object(&'p str),
}

impl<'p> Raw<'p> {
    /// The value that a piece of valid JSON is.
    pub(in crate::telemetry) fn of_json(text: &'p str) -> Self {
        let bytes = text.as_bytes();
        match bytes.first() {
            Some(b'"') => match bytes {
                [b'"', inner @ .., b'"'] if memchr::memchr(b'\\', inner).is_none() => {
                    Self::Text(Cow::Borrowed(&text[1..text.len() - 1]))
                }
                _ => serde_json::from_str(text)
                    .map_or(Self::Broken, |text: String| Self::Text(Cow::Owned(text))),
            },
            Some(b'{') => Self::Object(text),
            Some(b'[') => Self::Array(text),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number(text),
        }
    }

    /// Itself, unless it is plain and longer than `max` bytes.
    pub(super) fn up_to(self, max: usize) -> Self {
        match self {
            Self::Number(text) if text.len() > max => Self::TooLong(text.len()),
            Self::Text(text) if text.len() > max => Self::TooLong(text.len()),
            raw => raw,
        }
    }

    /// What it is, for a sentence.
    pub(in crate::telemetry) fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Broken => "a string that is not Unicode",
            Self::TooLong(_) => "a value that is longer than any reading",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// A plain value as text; `None` for what is none.
    pub(super) fn plain(&self) -> Option<&str> {
        match self {
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Number(text) => Some(text),
            Self::Text(text) => Some(text),
            Self::Null | Self::Broken | Self::TooLong(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// As it is shown in a sentence, cut off if it is long.
    pub(super) fn shown(&self) -> String {
        let text = match self {
            Self::Text(text) => format!("\"{}\"", text.escape_debug()),
            other => other.plain().map_or_else(|| other.what().to_owned(), str::to_owned),
        };
        match text.char_indices().nth(60) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    }
}

/// A value that stands in a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Bool(bool),
    Int(i128),
    Float(f64),
}

impl Literal {
    /// Whether `raw` is this value, of its type.
    pub(super) fn is(&self, raw: &Raw<'_>) -> bool {
        match (self, raw) {
            (Self::Text(text), Raw::Text(other)) => text == other,
            (Self::Bool(value), Raw::Bool(other)) => value == other,
            (Self::Int(_) | Self::Float(_), Raw::Number(text)) => self.is_number(text),
            _ => false,
        }
    }

    /// As [`Self::is`]; a number may also be written as a string.
    pub(super) fn is_written(&self, raw: &Raw<'_>) -> bool {
        match (self, raw) {
            (Self::Int(_) | Self::Float(_), Raw::Text(text)) => self.is_number(text),
            _ => self.is(raw),
        }
    }

    fn is_number(&self, text: &str) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "compared with a double")]
        let value = match self {
            Self::Int(value) => match text.parse::<i128>() {
                Ok(other) => return *value == other,
                Err(_) => *value as f64,
            },
            Self::Float(value) => *value,
            Self::Text(_) | Self::Bool(_) => return false,
        };
        #[expect(clippy::float_cmp, reason = "the same number, written in another way")]
        text.parse::<f64>().is_ok_and(|other| other == value)
    }
}

/// Writes a string of JSON.
pub(super) fn push_quoted(text: &str, out: &mut String) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_json_is_read_as_it_stands() {
        assert_eq!(Raw::of_json("1.50"), Raw::Number("1.50"));
        assert_eq!(Raw::of_json("\"a\""), Raw::Text("a".into()));
        assert_eq!(Raw::of_json(r#""a\"\u00fc""#), Raw::Text("a\"ü".into()));
        assert_eq!(Raw::of_json(r#""\ud800""#), Raw::Broken);
        assert_eq!(Raw::of_json("null"), Raw::Null);
        assert_eq!(Raw::of_json("[1]"), Raw::Array("[1]"));
    }

    #[test]
    fn a_literal_is_the_same_number_however_it_is_written() {
        for (literal, text, is_same) in [
            (Literal::Int(1), "1", true),
            (Literal::Int(1), "1.0", true),
            (Literal::Float(0.5), "5e-1", true),
            (Literal::Int(9_007_199_254_740_993), "9007199254740992", false),
            (Literal::Int(1), "2", false),
        ] {
            assert_eq!(literal.is(&Raw::Number(text)), is_same, "{text}");
            assert!(!literal.is(&Raw::Text(text.into())), "{text}");
            assert_eq!(literal.is_written(&Raw::Text(text.into())), is_same, "{text}");
        }
        assert!(!Literal::Text("1".to_owned()).is(&Raw::Number("1")));
        assert!(Literal::Bool(true).is(&Raw::Bool(true)));
    }
}
