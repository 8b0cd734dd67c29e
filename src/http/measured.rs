//! What devices measure, in the bodies of answers and in their description: a key for each column that was
//! asked for, behind the keys of the body itself.

use std::collections::HashMap;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::postgres::StoredValues;
use crate::telemetry::fields::{FIELDS, Values};
use crate::telemetry::mapping::Kind;

/// A body, and the values that belong to it.
#[derive(serde::Serialize)]
pub(super) struct Measured<B> {
    #[serde(flatten)]
    body: B,
    #[serde(flatten)]
    values: Keyed,
}

/// A column that is shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    name: String,
    kind: Kind,
}

impl Shown {
    pub(super) fn new(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A value as PostgreSQL writes it, as it is shown. A float is written like those of the built-in shape, and
    /// what is none in JSON is null. Anything else is shown as the table has it, also where somebody has
    /// changed the type of the column.
    fn cell(&self, value: &RawValue) -> Cell {
        let text = value.get();
        match (self.kind, text.parse::<f64>()) {
            (_, _) if text == "null" => Cell::Null,
            (Kind::Float, Ok(number)) => Cell::Float(number),
            (Kind::Float, Err(_)) if NOT_FINITE.contains(&text) => Cell::Null,
            _ => Cell::AsStored(value.to_owned()),
        }
    }
}

/// As PostgreSQL writes what JSON has no number for.
const NOT_FINITE: [&str; 3] = ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""];

/// Values, each with the name of its column.
pub(super) enum Keyed {
    Fields(Values),
    Row(Arc<[Shown]>, Vec<Cell>),
}

pub(super) enum Cell {
    Null,
    Float(f64),
    AsStored(Box<RawValue>),
}

impl<B> Measured<B> {
    /// Of the built-in shape.
    pub(super) fn new(body: B, values: Values) -> Self {
        Self { body, values: Keyed::Fields(values) }
    }

    /// Of the database; `shown` are the columns that are shown of a whole row.
    pub(super) fn stored(body: B, values: StoredValues, shown: Option<&Arc<[Shown]>>) -> Self {
        Self { body, values: Keyed::stored(values, shown) }
    }
}

impl Keyed {
    /// Of the database; `shown` are the columns that are shown of a whole row.
    pub(super) fn stored(values: StoredValues, shown: Option<&Arc<[Shown]>>) -> Self {
        match values {
            StoredValues::Fields(values) => Self::Fields(values),
            StoredValues::Row(text) => Self::of_row(&text, shown.cloned().unwrap_or_default()),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fields(values) => values.len(),
            Self::Row(_, cells) => cells.len(),
        }
    }

    /// Appends the value at `at` as it stands in a cell of a table: nothing where there is none, and text
    /// without quotes.
    pub(super) fn write_plain(&self, at: usize, out: &mut Vec<u8>) -> std::io::Result<()> {
        let float = |number: f64, out: &mut Vec<u8>| {
            // JSON has no other numbers, and neither has the page.
            if number.is_finite() { serde_json::to_writer(out, &number) } else { Ok(()) }
        };
        match self {
            Self::Fields(values) => float(values[at], out)?,
            Self::Row(_, cells) => match &cells[at] {
                Cell::Null => {}
                Cell::Float(number) => float(*number, out)?,
                Cell::AsStored(value) if value.get().starts_with('"') => {
                    let text: String = serde_json::from_str(value.get())?;
                    out.extend_from_slice(text.as_bytes());
                }
                Cell::AsStored(value) => out.extend_from_slice(value.get().as_bytes()),
            },
        }
        Ok(())
    }

    /// Adds them to an object.
    pub(super) fn serialize_entries<M: SerializeMap>(
        &self,
        object: &mut M,
    ) -> Result<(), M::Error> {
        match self {
            Self::Fields(values) => {
                for (field, value) in FIELDS.iter().zip(values) {
                    object.serialize_entry(field.name, value)?;
                }
            }
            Self::Row(shown, cells) => {
                for (column, cell) in shown.iter().zip(cells) {
                    object.serialize_entry(&column.name, cell)?;
                }
            }
        }
        Ok(())
    }

    fn of_row(text: &str, shown: Arc<[Shown]>) -> Self {
        let row: HashMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_else(|error| {
            // PostgreSQL writes JSON; this is for the day when it does not.
            tracing::error!(%error, "a row of the database is no JSON object: it is shown without values");
            HashMap::new()
        });
        let cell =
            |column: &Shown| row.get(column.name()).map_or(Cell::Null, |value| column.cell(value));
        let cells = shown.iter().map(cell).collect();
        Self::Row(shown, cells)
    }
}

impl Serialize for Keyed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.len()))?;
        self.serialize_entries(&mut object)?;
        object.end()
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::AsStored(value) => value.serialize(serializer),
        }
    }
}

impl<B: PartialSchema> PartialSchema for Measured<B> {
    #[expect(
        deprecated,
        reason = "the derived descriptions beside it have their example here, too"
    )]
    fn schema() -> RefOr<Schema> {
        let mut schema = B::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            for field in FIELDS {
                let value = ObjectBuilder::new()
                    .schema_type(SchemaType::from_iter([Type::Number, Type::Null]))
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Double)))
                    .description(Some(format!(
                        "The {}, in {}; null if another program has stored a row without it.",
                        field.name, field.unit
                    )))
                    .example(Some(field.example.into()));
                object.properties.insert(field.name.to_owned(), value.build().into());
                object.required.push(field.name.to_owned());
            }
        }
        schema
    }
}

impl<B: ToSchema> ToSchema for Measured<B> {
    fn name() -> std::borrow::Cow<'static, str> {
        B::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        B::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: Kind, value: &str) -> String {
        let columns: Arc<[Shown]> = [Shown::new("x", kind), Shown::new("absent", kind)].into();
        let row = format!("{{\"device_id\":\"a\",\"x\":{value}}}");
        serde_json::to_string(&Keyed::of_row(&row, columns)).unwrap()
    }

    #[test]
    fn values_are_shown_in_the_types_of_their_columns_or_as_the_table_has_them() {
        for (kind, stored, answered) in [
            (Kind::Float, "21", "21.0"),
            (Kind::Float, "0.1", "0.1"),
            (Kind::Float, "\"NaN\"", "null"),
            (Kind::Float, "\"-Infinity\"", "null"),
            (Kind::Float, "null", "null"),
            (Kind::Int, "9223372036854775807", "9223372036854775807"),
            (Kind::Bool, "true", "true"),
            (Kind::Text, "\"NaN\"", "\"NaN\""),
            (Kind::Json, "{\"a\": [1]}", "{\"a\": [1]}"),
            // Somebody has changed the type.
            (Kind::Float, "\"warm\"", "\"warm\""),
            (Kind::Int, "1.5", "1.5"),
        ] {
            let expected = format!("{{\"x\":{answered},\"absent\":null}}");
            assert_eq!(shown(kind, stored), expected, "{kind:?} {stored}");
        }
    }
}
