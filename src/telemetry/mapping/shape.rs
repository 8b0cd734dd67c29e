//! What a mapping makes of a message: a row of a wide table whose columns are declared.

use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::base::time::Timestamp;

/// The table that mappings fill unless they name another.
pub(crate) const BUILT_IN_TABLE: &str = "telemetry";

/// The table of the names of devices, beside it: no mapping fills it.
pub(crate) const DEVICES_TABLE: &str = "telemetry_devices";

/// Its partition of what is older than all others: no mapping fills it.
pub(crate) const OLDER_PARTITION: &str = "telemetry_older";

/// The column of what no other column takes.
pub(crate) const EXTRA_COLUMN: &str = "extra";

/// Most columns of a table, beside the service's own.
pub(crate) const MOST_COLUMNS: usize = 200;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A double.
    Float,
    /// 64 bits with a sign.
    Int,
    /// True or false.
    Bool,
    /// Text.
    Text,
    /// An object, as JSON text.
    Json,
}

impl Kind {
    /// Its name in a mapping.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// Its name in PostgreSQL, as `information_schema` has it.
    #[must_use]
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Float => "double precision",
            Self::Int => "bigint",
            Self::Bool => "boolean",
            Self::Text => "text",
            Self::Json => "jsonb",
        }
    }
}

/// A column that mappings fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// `[a-z][a-z0-9_]*`, at most 63 bytes.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
}

/// A table as the mappings need it; every column of theirs may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// `[a-z][a-z0-9_]*`, at most 63 bytes.
    pub name: String,
    /// Beside `device_id`, `ts` and `created_at`, in the order of their names.
    pub columns: Vec<Column>,
}

/// A value in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Of [`Kind::Float`], finite.
    Float(f64),
    /// Of [`Kind::Int`].
    Int(i64),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Text`].
    Text(String),
    /// Of [`Kind::Json`].
    Json(String),
}

impl Cell {
    /// The kind of column that it belongs into.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Float(_) => Kind::Float,
            Self::Int(_) => Kind::Int,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
            Self::Json(_) => Kind::Json,
        }
    }

    /// About what it takes in a block, in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Float(_) | Self::Int(_) => 8,
            Self::Bool(_) => 1,
            Self::Text(text) | Self::Json(text) => 3 + text.len(),
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Json(text) => {
                let value: Result<&serde_json::value::RawValue, _> = serde_json::from_str(text);
                value.map_err(serde::ser::Error::custom)?.serialize(serializer)
            }
        }
    }
}

/// A reading has at most so many bytes, or its block could not be kept short.
pub const READING_MAX_BYTES: usize = 6_000;

/// A row of a table that mappings fill.
#[derive(Clone, Debug, PartialEq)]
pub struct MappedReading {
    /// Where it belongs.
    pub table: Arc<TableShape>,
    /// 1 to 128 characters, none of them a control character.
    pub device_id: String,
    /// When the device measured, or the message came in.
    pub timestamp: Timestamp,
    /// Index into the table's columns, rising, and the value; a column that is not here is null.
    pub cells: Vec<(u16, Cell)>,
    /// When its device counts as silent. The log does not keep it.
    pub silent_after: SilentAfter,
}

/// How long a device may be silent without counting as such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SilentAfter {
    /// As long as the mappings of its table allow: which of them has made its reading is not known.
    #[default]
    OfTable,
    /// As long as the setting for all devices says.
    OfAll,
    /// Seconds: what its mapping says.
    Seconds(u32),
}

impl MappedReading {
    /// The values, each with its column.
    pub fn values(&self) -> impl Iterator<Item = (&Column, &Cell)> {
        let columns = &self.table.columns;
        self.cells.iter().filter_map(|(at, cell)| Some((columns.get(usize::from(*at))?, cell)))
    }

    /// About what it takes in a block before compression, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // The time, and the length of the id.
        let fixed = 12 + self.device_id.len();
        fixed + self.cells.iter().map(|(_, cell)| 1 + cell.bytes()).sum::<usize>()
    }
}

impl Serialize for MappedReading {
    /// As a letter and an export have it: it says itself where it belongs.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("table", &self.table.name)?;
        object.serialize_entry("device_id", &self.device_id)?;
        object.serialize_entry("timestamp", &self.timestamp)?;
        for (column, cell) in self.values() {
            object.serialize_entry(&column.name, cell)?;
        }
        object.end()
    }
}
