//! What devices measure, in the bodies of answers and in their description: one key for each of
//! [`FIELDS`], behind the keys of the body itself.

use serde::ser::{Serialize, SerializeMap, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::telemetry::fields::{COUNT, FIELDS, Values};

/// A body, and the values that belong to it.
#[derive(serde::Serialize)]
pub(super) struct Measured<B> {
    #[serde(flatten)]
    body: B,
    #[serde(flatten)]
    values: Keyed,
}

struct Keyed(Values);

impl<B> Measured<B> {
    pub(super) fn new(body: B, values: Values) -> Self {
        Self { body, values: Keyed(values) }
    }
}

impl Serialize for Keyed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(COUNT))?;
        for (field, value) in FIELDS.iter().zip(&self.0) {
            object.serialize_entry(field.name, value)?;
        }
        object.end()
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
