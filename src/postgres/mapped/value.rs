//! Values of the log, made to fit the column that there is.
//!
//! What waits in the log has the types of the configuration that it came by. Whoever has changed a type
//! since then, in the file and in the table, has its values converted where nothing of them is lost.

use std::borrow::Cow;

use crate::telemetry::mapping::{Cell, Kind};

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'r> {
    Float(f64),
    Int(i64),
    Bool(bool),
    Text(&'r str),
    Json(&'r str),
}

/// A column as an array of PostgreSQL.
#[derive(Debug, PartialEq)]
pub(super) enum Array<'r> {
    Floats(Vec<Option<f64>>),
    Ints(Vec<Option<i64>>),
    Bools(Vec<Option<bool>>),
    Texts(Vec<Option<Cow<'r, str>>>),
    /// As texts.
    Jsons(Vec<Option<Cow<'r, str>>>),
}

impl<'r> Value<'r> {
    pub(super) fn of(cell: &'r Cell) -> Self {
        match cell {
            Cell::Float(value) => Self::Float(*value),
            Cell::Int(value) => Self::Int(*value),
            Cell::Bool(value) => Self::Bool(*value),
            Cell::Text(text) => Self::Text(text),
            Cell::Json(text) => Self::Json(text),
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Float(_) => Kind::Float,
            Self::Int(_) => Kind::Int,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
            Self::Json(_) => Kind::Json,
        }
    }

    fn float(self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(value),
            #[expect(clippy::cast_precision_loss, reason = "checked by the way back")]
            Self::Int(value) => Some(value as f64).filter(|float| whole(*float) == Some(value)),
            Self::Bool(value) => Some(f64::from(u8::from(value))),
            Self::Text(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
            Self::Json(_) => None,
        }
    }

    fn int(self) -> Option<i64> {
        match self {
            Self::Float(value) => whole(value),
            Self::Int(value) => Some(value),
            Self::Bool(value) => Some(value.into()),
            Self::Text(text) => text.parse().ok(),
            Self::Json(_) => None,
        }
    }

    fn bool(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            Self::Json(_) => None,
            Self::Text("true") => Some(true),
            Self::Text("false") => Some(false),
            number => match number.int() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
        }
    }

    fn text(self) -> Cow<'r, str> {
        match self {
            Self::Float(value) => value.to_string().into(),
            Self::Int(value) => value.to_string().into(),
            Self::Bool(value) => value.to_string().into(),
            Self::Text(text) | Self::Json(text) => text.into(),
        }
    }

    fn json(self) -> Cow<'r, str> {
        match self {
            Self::Json(text) => text.into(),
            Self::Text(text) => serde_json::Value::from(text).to_string().into(),
            other => other.text(),
        }
    }
}

/// The integer that it is, if it is one.
fn whole(value: f64) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within bounds")]
    let whole = || value as i64;
    (value.fract() == 0.0 && (-BEYOND..BEYOND).contains(&value)).then(whole)
}

impl<'r> Array<'r> {
    /// Whether the row of this index has a value in it.
    pub(super) fn has(&self, at: usize) -> bool {
        match self {
            Self::Floats(values) => values.get(at).is_some_and(Option::is_some),
            Self::Ints(values) => values.get(at).is_some_and(Option::is_some),
            Self::Bools(values) => values.get(at).is_some_and(Option::is_some),
            Self::Texts(values) | Self::Jsons(values) => {
                values.get(at).is_some_and(Option::is_some)
            }
        }
    }

    /// `values` for a column of this kind; the first of them that none can be made of as an error.
    pub(super) fn of(kind: Kind, values: &[Option<Value<'r>>]) -> Result<Self, Value<'r>> {
        Ok(match kind {
            Kind::Float => Self::Floats(all(values, Value::float)?),
            Kind::Int => Self::Ints(all(values, Value::int)?),
            Kind::Bool => Self::Bools(all(values, Value::bool)?),
            Kind::Text => Self::Texts(all(values, |value| Some(value.text()))?),
            Kind::Json => Self::Jsons(all(values, |value| Some(value.json()))?),
        })
    }

    /// The type of its parameter.
    pub(super) fn sql(&self) -> &'static str {
        match self {
            Self::Floats(_) => "float8[]",
            Self::Ints(_) => "int8[]",
            Self::Bools(_) => "bool[]",
            Self::Texts(_) | Self::Jsons(_) => "text[]",
        }
    }

    /// What makes an element of it one of the column.
    pub(super) fn cast(&self) -> &'static str {
        if let Self::Jsons(_) = self { "::jsonb" } else { "" }
    }
}

fn all<'r, T>(
    values: &[Option<Value<'r>>],
    convert: impl Fn(Value<'r>) -> Option<T>,
) -> Result<Vec<Option<T>>, Value<'r>> {
    let one = |value: &Option<Value<'r>>| match value {
        None => Ok(None),
        Some(value) => convert(*value).map(Some).ok_or(*value),
    };
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_is_converted_where_nothing_of_it_is_lost() {
        let array = |kind, value| Array::of(kind, &[None, Some(value)]);
        assert_eq!(array(Kind::Float, Value::Int(3)), Ok(Array::Floats(vec![None, Some(3.0)])));
        assert_eq!(array(Kind::Int, Value::Float(-4.0)), Ok(Array::Ints(vec![None, Some(-4)])));
        assert_eq!(array(Kind::Bool, Value::Int(1)), Ok(Array::Bools(vec![None, Some(true)])));
        let texts = |text: &'static str| vec![None, Some(Cow::from(text))];
        assert_eq!(array(Kind::Text, Value::Float(1.5)), Ok(Array::Texts(texts("1.5"))));
        assert_eq!(array(Kind::Json, Value::Text("a")), Ok(Array::Jsons(texts("\"a\""))));
        assert_eq!(
            array(Kind::Float, Value::Text("2.5")),
            Ok(Array::Floats(vec![None, Some(2.5)]))
        );
    }

    #[test]
    fn what_would_become_another_value_is_refused() {
        for (kind, value) in [
            (Kind::Int, Value::Float(1.5)),
            (Kind::Int, Value::Float(1e19)),
            (Kind::Float, Value::Int(i64::MAX)),
            (Kind::Float, Value::Text("NaN")),
            (Kind::Float, Value::Json("1")),
            (Kind::Bool, Value::Int(2)),
            (Kind::Bool, Value::Text("on?")),
        ] {
            assert_eq!(Array::of(kind, &[Some(value)]), Err(value), "{kind:?}");
        }
    }
}
