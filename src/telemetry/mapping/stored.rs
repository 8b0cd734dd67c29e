//! A row that says itself where it belongs, as letters of the database and exports have it.

use std::sync::Arc;

use serde_json::Value;

use super::field::is_name;
use super::shape::{Cell, Column, EXTRA_COLUMN, MappedReading, SilentAfter, TableShape};
use crate::base::time::Timestamp;

impl MappedReading {
    /// The opposite of its JSON; `None` if this is none. What is a float or an integer is told by how it is
    /// written.
    #[must_use]
    pub(crate) fn from_json(text: &[u8]) -> Option<Self> {
        let Value::Object(mut object) = serde_json::from_slice(text).ok()? else { return None };
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let name = text(object.remove("table")).filter(|name| is_name(name))?;
        let device_id = text(object.remove("device_id"))?;
        let timestamp = Timestamp::from_rfc3339(&text(object.remove("timestamp"))?)?;
        let mut columns = Vec::new();
        let mut cells = Vec::new();
        for (name, value) in object {
            let cell = match value {
                Value::Bool(value) => Cell::Bool(value),
                Value::String(text) => Cell::Text(text),
                Value::Number(number) => match number.as_i64() {
                    Some(whole) => Cell::Int(whole),
                    None => Cell::Float(number.as_f64()?),
                },
                Value::Object(_) if name == EXTRA_COLUMN => Cell::Json(value.to_string()),
                Value::Null => continue,
                Value::Array(_) | Value::Object(_) => return None,
            };
            if !is_name(&name) {
                return None;
            }
            cells.push((u16::try_from(columns.len()).ok()?, cell.clone()));
            columns.push(Column { name, kind: cell.kind() });
        }
        let table = Arc::new(TableShape { name, columns });
        let silent_after = SilentAfter::OfTable;
        Some(Self { table, device_id, timestamp, cells, silent_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_from_its_json_with_the_types_of_its_values() {
        let json = r#"{"table":"power","device_id":"a","timestamp":"2025-10-05T12:34:56.123456Z","b":true,"extra":{"x":1},"f":21.0,"i":21,"t":"ü"}"#;
        let row = MappedReading::from_json(json.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&row).unwrap(), json);
        let kinds: Vec<_> = row.table.columns.iter().map(|column| column.kind.as_str()).collect();
        assert_eq!(kinds, ["bool", "json", "float", "int", "text"]);
        for other in [
            r#"{"device_id":"a","timestamp":"2025-10-05T12:34:56Z","temperature":1}"#,
            r#"{"table":"A b","device_id":"a","timestamp":"2025-10-05T12:34:56Z"}"#,
            r#"{"table":"a","device_id":1,"timestamp":"2025-10-05T12:34:56Z"}"#,
            r#"{"table":"a","device_id":"a","timestamp":"now"}"#,
            r#"{"table":"a","device_id":"a","timestamp":"2025-10-05T12:34:56Z","x":[1]}"#,
            "[1]",
            "{",
        ] {
            assert_eq!(MappedReading::from_json(other.as_bytes()), None, "{other}");
        }
    }
}
