//! The keys of a table in the file, each taken once, and everything that is wrong with them: a mistake
//! in one does not hide those in the others.

use std::fmt::Display;

use rocket::figment::value::{Dict, Num, Value};

use super::value::Literal;

/// A table, and where it stands.
pub(super) struct Keys<'d, 'm> {
    dict: &'d Dict,
    place: String,
    known: Vec<&'static str>,
    mistakes: &'m mut Vec<String>,
}

impl<'d, 'm> Keys<'d, 'm> {
    pub(super) fn new(dict: &'d Dict, place: String, mistakes: &'m mut Vec<String>) -> Self {
        Self { dict, place, known: Vec::new(), mistakes }
    }

    /// Notes a mistake with its place.
    pub(super) fn mistake(&mut self, what: impl Display) {
        self.mistakes.push(format!("{}: {what}", self.place));
    }

    /// The value of a key that this table may have.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'d Value> {
        self.known.push(key);
        self.dict.get(key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<&'d str> {
        match self.value(key)? {
            Value::String(_, text) => Some(text),
            other => self.unexpected(key, "text in quotes", other),
        }
    }

    /// One text, or a list of them that is not empty.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<&'d str>> {
        let value = self.value(key)?;
        match texts(value) {
            Some(texts) if texts.is_empty() => {
                self.mistake(format_args!("{key}: the list is empty"));
                None
            }
            Some(texts) => Some(texts),
            None => self.unexpected(key, "text in quotes, or a list of such", value),
        }
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(_, flag) => Some(*flag),
            other => self.unexpected(key, "true or false", other),
        }
    }

    /// A finite number.
    pub(super) fn number(&mut self, key: &'static str) -> Option<f64> {
        let value = self.value(key)?;
        match number(value) {
            Some(number) if number.is_finite() => Some(number),
            _ => self.unexpected(key, "a number", value),
        }
    }

    /// A whole number within bounds.
    pub(super) fn whole(&mut self, key: &'static str, min: usize, max: usize) -> Option<usize> {
        let value = self.value(key)?;
        let whole = match value {
            Value::Num(_, number) => integer(number).and_then(|whole| usize::try_from(whole).ok()),
            _ => None,
        };
        match whole {
            Some(whole) if (min..=max).contains(&whole) => Some(whole),
            _ => {
                let expected = format!("a whole number from {min} to {max}");
                self.unexpected(key, &expected, value)
            }
        }
    }

    pub(super) fn dict(&mut self, key: &'static str) -> Option<&'d Dict> {
        match self.value(key)? {
            Value::Dict(_, dict) => Some(dict),
            other => self.unexpected(key, "a table", other),
        }
    }

    /// Notes that the value of `key` is not what is expected there.
    pub(super) fn unexpected<T>(&mut self, key: &str, expected: &str, found: &Value) -> Option<T> {
        self.mistake(format_args!("{key}: expected {expected}, found {}", show(found)));
        None
    }

    /// Reads a table within this one.
    pub(super) fn within<T>(
        &mut self,
        dict: &Dict,
        key: &str,
        read: impl FnOnce(&mut Keys<'_, '_>) -> T,
    ) -> T {
        let mut inner = Keys::new(dict, format!("{}, {key}", self.place), self.mistakes);
        let value = read(&mut inner);
        inner.finish();
        value
    }

    /// Notes the keys that were not asked for.
    pub(super) fn finish(self) {
        for key in self.dict.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let nearest = self.known.iter().min_by_key(|known| strsim::levenshtein(known, key));
            let hint = nearest
                .filter(|known| strsim::levenshtein(known, key) <= 2)
                .map_or_else(String::new, |known| format!(", did you mean {known}?"));
            self.mistakes.push(format!("{}: unknown key {key}{hint}", self.place));
        }
    }
}

/// One text, or a list of them.
pub(super) fn texts(value: &Value) -> Option<Vec<&str>> {
    fn text(value: &Value) -> Option<&str> {
        match value {
            Value::String(_, text) => Some(text),
            _ => None,
        }
    }
    match value {
        Value::Array(_, values) => values.iter().map(text).collect(),
        value => text(value).map(|text| vec![text]),
    }
}

/// A plain value.
pub(super) fn literal(value: &Value) -> Option<Literal> {
    match value {
        Value::String(_, text) => Some(Literal::Text(text.clone())),
        Value::Bool(_, flag) => Some(Literal::Bool(*flag)),
        Value::Num(_, number) => {
            Some(integer(number).map_or_else(|| Literal::Float(float(number)), Literal::Int))
        }
        _ => None,
    }
}

/// One plain value, or a list of them.
pub(super) fn literals(value: &Value) -> Option<Vec<Literal>> {
    match value {
        Value::Array(_, values) => values.iter().map(literal).collect(),
        value => literal(value).map(|literal| vec![literal]),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Num(_, number) => Some(float(number)),
        _ => None,
    }
}

fn integer(number: &Num) -> Option<i128> {
    match number {
        Num::F32(_) | Num::F64(_) => None,
        number => number.to_i128().or_else(|| i128::try_from(number.to_u128()?).ok()),
    }
}

fn float(number: &Num) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a bound or a factor is a double")]
    integer(number).map_or_else(|| number.to_f64().unwrap_or(f64::NAN), |whole| whole as f64)
}

/// A value as it is shown in a mistake.
fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("\"{text}\""),
        Value::Char(_, char) => format!("\"{char}\""),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => {
            integer(number).map_or_else(|| float(number).to_string(), |whole| whole.to_string())
        }
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}
