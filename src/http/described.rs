//! The tables of the configuration in the OpenAPI description: which there are, and what their rows have.

use utoipa::openapi::schema::{
    AnyOfBuilder, ArrayItems, Object, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{KnownFormat, OpenApi, Ref, RefOr, SchemaFormat};

use super::catalog::{Table, Tables};
use crate::telemetry::fields::FIELDS;
use crate::telemetry::mapping::{BUILT_IN_TABLE, ColumnOutline, Kind};

/// The routes that read tables, each with the schema of its page and that of an item.
const READ: [(&str, &str, &str); 2] =
    [("/api/v1/telemetry", "Readings", "Reading"), ("/api/v1/devices", "Devices", "Device")];

/// Adds them to what stands at the handlers, which is about the built-in shape.
pub(super) fn add(tables: &Tables, document: &mut OpenApi) {
    for (path, page, item) in READ {
        name_tables(tables, document, path);
        let items = add_items(tables, document, item);
        let data = object(document, page).and_then(|page| page.properties.get_mut("data"));
        if let Some(RefOr::T(Schema::Array(data))) = data
            && items.len() > 1
        {
            let refs = items.iter().map(Ref::from_schema_name);
            let any = refs.fold(AnyOfBuilder::new(), AnyOfBuilder::item).build();
            data.items = ArrayItems::RefOrSchema(Box::new(Schema::AnyOf(any).into()));
        }
    }
}

/// Says which values `table` can have.
fn name_tables(tables: &Tables, document: &mut OpenApi, path: &str) {
    let operation = document.paths.paths.get_mut(path).and_then(|item| item.get.as_mut());
    let parameters = operation.and_then(|operation| operation.parameters.as_mut());
    for parameter in parameters.into_iter().flatten().filter(|parameter| parameter.name == "table")
    {
        if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema {
            let names = tables.all().iter().map(|table| table.name.as_str().into());
            schema.enum_values = Some(names.collect());
        }
    }
}

/// Adds a schema for the rows of each table, and returns their names.
fn add_items(tables: &Tables, document: &mut OpenApi, item: &str) -> Vec<String> {
    let Some(built_in) = object(document, item) else { return Vec::new() };
    // `fields` may leave it out.
    built_in.required.retain(|name| FIELDS.iter().all(|field| field.name != name));
    let mut bare = built_in.clone();
    for field in FIELDS {
        bare.properties.remove(field.name);
    }
    let mut names = Vec::new();
    for table in tables.all() {
        if table.name == BUILT_IN_TABLE {
            let added =
                |column: &&ColumnOutline| FIELDS.iter().all(|field| field.name != column.name);
            if let Some(built_in) = object(document, item) {
                describe(built_in, table.columns.iter().filter(added));
            }
            names.push(item.to_owned());
            continue;
        }
        let name = format!("{item}.{}", table.name);
        let mut schema = bare.clone();
        describe(&mut schema, &table.columns);
        schema.description = Some(description(table));
        let schemas = &mut document.components.get_or_insert_default().schemas;
        schemas.insert(name.clone(), Schema::Object(schema).into());
        names.push(name);
    }
    names
}

fn description(table: &Table) -> String {
    format!("A row of the table `{}`.", table.name)
}

fn describe<'c>(schema: &mut Object, columns: impl IntoIterator<Item = &'c ColumnOutline>) {
    for column in columns {
        let (kind, format) = match column.kind {
            Kind::Float => (Type::Number, Some(KnownFormat::Double)),
            Kind::Int => (Type::Integer, Some(KnownFormat::Int64)),
            Kind::Bool => (Type::Boolean, None),
            Kind::Text => (Type::String, None),
            Kind::Json => (Type::Object, None),
        };
        let unit = column.unit.as_ref().map_or_else(String::new, |unit| format!(", in {unit}"));
        let by = column.mappings.join(", ");
        let value = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([kind, Type::Null]))
            .format(format.map(SchemaFormat::KnownFormat))
            .description(Some(format!(
                "The column `{}`{unit}, filled by: {by}. Null where a row has nothing, absent if `fields` leaves \
                 it out.",
                column.name
            )));
        schema.properties.insert(column.name.clone(), value.build().into());
    }
}

fn object<'d>(document: &'d mut OpenApi, name: &str) -> Option<&'d mut Object> {
    match document.components.as_mut()?.schemas.get_mut(name)? {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::http::description::Description;

    #[test]
    fn each_table_has_its_columns_in_their_types_and_is_a_value_of_the_parameter() {
        let document: Value =
            serde_json::from_str(Description::of(&Tables::example()).text()).unwrap();
        let schemas = &document["components"]["schemas"];
        let power = &schemas["Reading.power"]["properties"];
        assert_eq!(power["power"]["type"], serde_json::json!(["number", "null"]));
        assert!(
            power["power"]["description"].as_str().unwrap().contains(", in W, filled by: shelly")
        );
        assert_eq!(power["output"]["type"], serde_json::json!(["boolean", "null"]));
        assert!(power["temperature"].is_null() && power["device_id"]["type"] == "string");
        assert_eq!(schemas["Reading"]["properties"]["count"]["type"][0], "integer");
        // What can be left out is not required, where it can be.
        let required = |schema: &str| schemas[schema]["required"].as_array().unwrap().len();
        assert_eq!((required("Reading"), required("Reading.power")), (2, 2));
        assert!(required("WalRecord") > FIELDS.len());
        let of_device = &schemas["Devices"]["properties"]["data"]["items"]["anyOf"];
        assert_eq!(of_device[1]["$ref"], "#/components/schemas/Device.power");
        for (path, ..) in READ {
            let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
            let table = parameters.iter().find(|parameter| parameter["name"] == "table").unwrap();
            assert_eq!(table["schema"]["enum"], serde_json::json!(["telemetry", "power"]));
        }
    }
}
