//! Rows that somebody hands over for a table of the configuration, as objects of JSON or as cells of CSV.
//!
//! They are what an export of the log or of the table has, so no mapping looks at them. What a mapping would
//! have checked that is not of the table itself, such as bounds of its fields, is not checked again; the name of the
//! device, the time, the types and the bounds of the built-in fields are.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{COUNT, FIELDS, Field, Values};
use super::mapping::convert::convert;
use super::mapping::jsonb;
use super::mapping::value::Raw;
use super::mapping::{BUILT_IN_TABLE, Cell, Column, Kind, MappedReading, SilentAfter, TableShape};
use super::reading::Reading;
use super::record::Record;
use super::rejection::{Reason, Rejection};
use super::validate::{Rules, TimeOfDay, check_device_id, check_timestamp};
use crate::base::time::Timestamp;

/// Longest text of a column, in bytes.
const TEXT_MAX_BYTES: usize = 1_024;

/// A table that rows can be given for.
#[derive(Clone, Debug)]
pub(crate) struct GivenTable {
    shape: Arc<TableShape>,
    /// Of each column, which of the built-in fields it is.
    fields: Vec<Option<usize>>,
    /// Whether nothing but the built-in shape goes into it.
    is_built_in: bool,
}

/// What a key or a column of a given row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The name of the device.
    Device,
    /// The time.
    Time,
    /// The column of this index.
    Column(u16),
    /// Nothing that is stored.
    Passed,
}

impl GivenTable {
    /// The table `name`, beside whose own columns are these. `is_built_in`: a row of it is a reading of the
    /// built-in shape and nothing else.
    pub(crate) fn new(name: &str, mut columns: Vec<Column>, is_built_in: bool) -> Self {
        columns.sort_by(|one, other| one.name.cmp(&other.name));
        let field = |column: &Column| {
            let is_it = |field: &Field| field.name == column.name;
            FIELDS.iter().position(is_it).filter(|_| name == BUILT_IN_TABLE)
        };
        let fields = columns.iter().map(field).collect();
        let shape = Arc::new(TableShape { name: name.to_owned(), columns });
        Self { shape, fields, is_built_in }
    }

    /// What is called `name` in a row.
    ///
    /// # Errors
    /// If the table has no such column, which is passed over only in the built-in shape.
    pub(crate) fn place(&self, name: &str) -> Result<Place, Rejection> {
        match name {
            "device_id" => return Ok(Place::Device),
            "timestamp" => return Ok(Place::Time),
            "table" => return Ok(Place::Passed),
            _ => {}
        }
        let at = self.shape.columns.binary_search_by(|column| column.name.as_str().cmp(name));
        match at.ok().and_then(|at| u16::try_from(at).ok()) {
            Some(at) => Ok(Place::Column(at)),
            None if self.is_built_in => Ok(Place::Passed),
            None => {
                let name: String = name.chars().take(64).collect();
                let what = format!("table \"{}\" has no column `{name}`", self.shape.name);
                Err(Rejection::new(Reason::UnknownName, what))
            }
        }
    }

    /// The names that a row must have.
    pub(crate) fn required(&self) -> impl Iterator<Item = &'static str> {
        let fields = FIELDS.iter().map(|field| field.name).filter(|_| self.is_built_in);
        ["device_id", "timestamp"].into_iter().chain(fields)
    }

    /// The row that an object of JSON is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of_json(
        &self,
        text: &[u8],
        rules: &Rules,
        clock: TimeOfDay,
    ) -> Result<Record, Rejection> {
        let text = std::str::from_utf8(text).map_err(|error| {
            let what = format!("not UTF-8 from byte {}", error.valid_up_to());
            Rejection::new(Reason::NotUtf8, what)
        })?;
        let Pairs(pairs) = serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                Rejection::new(Reason::NotAnObject, "a row is a JSON object")
            }
            _ => Rejection::new(Reason::InvalidJson, format!("not valid JSON: {error}")),
        })?;
        let mut row = Row::default();
        for (name, value) in &pairs {
            let raw = Raw::of_json(value.get());
            // What is not there needs no place.
            if raw != Raw::Null {
                row.set(self, self.place(name)?, name, &raw)?;
            }
        }
        row.finish(self, rules, clock)
    }

    /// The row whose cells stand at `places`; an empty one is not there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of_cells<'c>(
        &self,
        places: &[Place],
        cells: impl Iterator<Item = &'c str>,
        rules: &Rules,
        clock: TimeOfDay,
    ) -> Result<Record, Rejection> {
        let mut row = Row::default();
        for (place, cell) in places.iter().zip(cells) {
            if cell.is_empty() {
                continue;
            }
            let (name, raw) = match *place {
                Place::Passed => continue,
                Place::Device => ("device_id", Raw::Text(cell.into())),
                Place::Time if cell.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                    ("timestamp", Raw::Number(cell))
                }
                Place::Time => ("timestamp", Raw::Text(cell.into())),
                Place::Column(at) => {
                    let Column { name, kind } = &self.shape.columns[usize::from(at)];
                    let is_object = *kind == Kind::Json
                        && matches!(serde_json::from_str(cell), Ok(serde_json::Value::Object(_)));
                    let raw = if is_object { Raw::Object(cell) } else { Raw::Text(cell.into()) };
                    (name.as_str(), raw)
                }
            };
            row.set(self, *place, name, &raw)?;
        }
        row.finish(self, rules, clock)
    }
}

#[derive(Default)]
struct Row {
    device_id: Option<String>,
    timestamp: Option<Timestamp>,
    cells: Vec<(u16, Cell)>,
}

impl Row {
    fn set(
        &mut self,
        table: &GivenTable,
        place: Place,
        name: &str,
        raw: &Raw<'_>,
    ) -> Result<(), Rejection> {
        let again = match place {
            Place::Passed => false,
            Place::Device => match raw {
                Raw::Text(text) => self.device_id.replace(text.to_string()).is_some(),
                other => {
                    let what = format!("expected a string, found {}", other.what());
                    return Err(unfit(name, Reason::WrongType, &what));
                }
            },
            Place::Time => self.timestamp.replace(time(raw)?).is_some(),
            Place::Column(at) => {
                let cell = cell(raw, table.shape.columns[usize::from(at)].kind)
                    .map_err(|(reason, what)| unfit(name, reason, &what))?;
                let again = self.cells.iter().any(|(other, _)| *other == at);
                self.cells.push((at, cell));
                again
            }
        };
        if again {
            return Err(unfit(name, Reason::DuplicateField, "it stands there more than once"));
        }
        Ok(())
    }

    fn finish(
        mut self,
        table: &GivenTable,
        rules: &Rules,
        clock: TimeOfDay,
    ) -> Result<Record, Rejection> {
        let missing =
            |name: &str| Rejection::new(Reason::MissingField, format!("field `{name}` is missing"));
        let device_id = self.device_id.ok_or_else(|| missing("device_id"))?;
        let timestamp = self.timestamp.ok_or_else(|| missing("timestamp"))?;
        check_device_id(&device_id)?;
        check_timestamp(timestamp, rules, clock)?;
        self.cells.sort_unstable_by_key(|(at, _)| *at);
        let mut values = [None; COUNT];
        for (at, cell) in &self.cells {
            if let (Some(field), Cell::Float(value)) = (table.fields[usize::from(*at)], cell) {
                if !rules.bounds[field].contain(*value) {
                    let (name, bounds) = (FIELDS[field].name, rules.bounds[field]);
                    let what =
                        format!("{name} {value} is outside {} to {}", bounds.min, bounds.max);
                    return Err(Rejection::new(Reason::OutOfRange(field), what));
                }
                values[field] = Some(*value);
            }
        }
        if table.is_built_in {
            let mut all = Values::default();
            for ((value, all), field) in values.into_iter().zip(&mut all).zip(&FIELDS) {
                *all = value.ok_or_else(|| missing(field.name))?;
            }
            return Ok(Reading { device_id, timestamp, values: all }.into());
        }
        if self.cells.is_empty() {
            return Err(Rejection::new(Reason::MissingField, "the row has no value"));
        }
        let table = Arc::clone(&table.shape);
        let silent_after = SilentAfter::OfTable;
        Ok(MappedReading { table, device_id, timestamp, cells: self.cells, silent_after }.into())
    }
}

fn unfit(name: &str, reason: Reason, what: &str) -> Rejection {
    Rejection::new(reason, format!("field `{name}`: {what}"))
}

fn cell(raw: &Raw<'_>, kind: Kind) -> Result<Cell, (Reason, String)> {
    match (kind, raw) {
        (Kind::Json, Raw::Object(text)) => match jsonb::fault(text) {
            Some(unfit) => Err(unfit),
            None => Ok(Cell::Json((*text).to_owned())),
        },
        (Kind::Json, other) => {
            Err((Reason::WrongType, format!("expected an object, found {}", other.what())))
        }
        _ => match convert(raw, kind, None)? {
            Cell::Text(text) if text.len() > TEXT_MAX_BYTES => {
                let what =
                    format!("the text has {} bytes, {TEXT_MAX_BYTES} are allowed", text.len());
                Err((Reason::TextTooLong, what))
            }
            cell => Ok(cell),
        },
    }
}

fn time(raw: &Raw<'_>) -> Result<Timestamp, Rejection> {
    let at = match raw {
        Raw::Text(text) => Timestamp::from_rfc3339(text),
        Raw::Number(text) => text.parse().ok().and_then(Timestamp::from_millis),
        other => {
            let what = format!("expected a string or an integer, found {}", other.what());
            return Err(unfit("timestamp", Reason::WrongType, &what));
        }
    };
    at.ok_or_else(|| {
        let what = "`timestamp` is neither RFC 3339 nor integer milliseconds";
        Rejection::new(Reason::InvalidTimestamp, what)
    })
}

/// An object as it stands there.
struct Pairs<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::settings::Sources;

    fn rules() -> (Rules, TimeOfDay) {
        let now = Timestamp::from_rfc3339("2030-01-01T00:00:00Z").unwrap();
        (Rules::read(&mut Sources::new(BTreeMap::new(), "")), TimeOfDay::at(now))
    }

    fn power() -> GivenTable {
        let column = |(name, kind): (&str, Kind)| Column { name: name.to_owned(), kind };
        let columns = [
            ("power", Kind::Float),
            ("count", Kind::Int),
            ("on", Kind::Bool),
            ("label", Kind::Text),
            ("extra", Kind::Json),
        ];
        GivenTable::new("power", columns.map(column).to_vec(), false)
    }

    fn telemetry() -> GivenTable {
        let column = |field: &Field| Column { name: field.name.to_owned(), kind: Kind::Float };
        GivenTable::new(BUILT_IN_TABLE, FIELDS.iter().map(column).collect(), true)
    }

    #[test]
    fn a_row_that_was_exported_comes_back_as_it_was_by_json_and_by_cells() {
        let (rules, clock) = rules();
        let json = r#"{"table":"power","device_id":"a","timestamp":"2025-10-05T12:34:56.123456Z","count":7,"extra":{"x":1},"label":"ü","on":true,"power":1.5}"#;
        let record = power().of_json(json.as_bytes(), &rules, clock).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
        let names = ["device_id", "timestamp", "power", "count", "on", "label", "extra"];
        let places = names.map(|name| power().place(name).unwrap());
        let cells = ["a", "2025-10-05T12:34:56.123456Z", "1.5", "7", "true", "ü", "{\"x\":1}"];
        let by_cells = power().of_cells(&places, cells.into_iter(), &rules, clock).unwrap();
        assert_eq!(by_cells, record);
        let sparse = ["a", "1759667696000", "", "", "off", "", ""];
        let sparse = power().of_cells(&places, sparse.into_iter(), &rules, clock).unwrap();
        let expected =
            r#"{"table":"power","device_id":"a","timestamp":"2025-10-05T12:34:56Z","on":false}"#;
        assert_eq!(serde_json::to_string(&sparse).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_with_a_row_is_named() {
        let (rules, clock) = rules();
        for (rest, reason) in [
            (r#""power":"warm""#, Reason::WrongType),
            (r#""count":1.5"#, Reason::WrongType),
            (r#""label":"a\u0000""#, Reason::WrongType),
            (r#""extra":[1]"#, Reason::WrongType),
            (r#""power":1,"power":2"#, Reason::DuplicateField),
            (r#""voltage":1"#, Reason::UnknownName),
            (r#""power":null"#, Reason::MissingField),
        ] {
            let json = format!(r#"{{"device_id":"a","timestamp":1759667696000,{rest}}}"#);
            let rejection = power().of_json(json.as_bytes(), &rules, clock).unwrap_err();
            assert_eq!(rejection.reason, reason, "{rest}");
        }
        for (json, reason) in [
            ("[1]", Reason::NotAnObject),
            ("{", Reason::InvalidJson),
            (r#"{"device_id":"","timestamp":1759667696000,"power":1}"#, Reason::DeviceIdEmpty),
            (r#"{"device_id":"a","timestamp":"now","power":1}"#, Reason::InvalidTimestamp),
            (r#"{"device_id":"a","timestamp":0,"power":1}"#, Reason::TimestampTooOld),
            (r#"{"timestamp":1759667696000,"power":1}"#, Reason::MissingField),
        ] {
            let rejection = power().of_json(json.as_bytes(), &rules, clock).unwrap_err();
            assert_eq!(rejection.reason, reason, "{json}");
        }
    }

    #[test]
    fn an_object_is_taken_as_it_stands_if_postgresql_takes_it() {
        let (rules, clock) = rules();
        let row = |extra: &str| {
            let json = format!(r#"{{"device_id":"a","timestamp":1759667696000,"extra":{extra}}}"#);
            power().of_json(json.as_bytes(), &rules, clock)
        };
        let deep =
            |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
        let long = format!(r#"{{"a":0.{}1}}"#, "0".repeat(5_000));
        for good in [r#"{"a":[1.50,-2E+3,{"b":"ü\ud83d\ude00\\u0000"}]}"#, &deep(100), &long] {
            let Ok(Record::Mapped(row)) = row(good) else { panic!("{good}") };
            assert_eq!(row.cells.last(), Some(&(1, Cell::Json(good.to_owned()))));
        }
        let long = format!(r#"{{"a":0.{}1}}"#, "0".repeat(20_000));
        for (bad, reason) in [
            (r#"{"a":"\u0000"}"#, Reason::WrongType),
            (r#"{"a\\\u0000":1}"#, Reason::WrongType),
            (r#"{"a":["\ud800"]}"#, Reason::WrongType),
            (r#"{"\udc00":1}"#, Reason::WrongType),
            (r#"{"a":1e-20000}"#, Reason::NumberOutOfRange),
            (r#"{"a":[0e-20000]}"#, Reason::NumberOutOfRange),
            (r#"{"a":1E+200000}"#, Reason::NumberOutOfRange),
            (long.as_str(), Reason::NumberOutOfRange),
            (&*deep(200), Reason::WrongType),
            (&*deep(50_000), Reason::WrongType),
        ] {
            assert_eq!(row(bad).map_err(|why| why.reason), Err(reason), "{bad:.80}");
        }
    }

    #[test]
    fn a_row_of_the_built_in_table_is_a_reading_of_the_built_in_shape_within_its_bounds() {
        let (rules, clock) = rules();
        let row = |rest: &str| {
            let json = format!(r#"{{"device_id":"a","timestamp":1759667696000,{rest}}}"#);
            telemetry().of_json(json.as_bytes(), &rules, clock).map_err(|why| why.reason)
        };
        let good = row(r#""temperature":1,"humidity":2,"battery":3,"site":"x""#).unwrap();
        assert_eq!(
            good.built_in().map(|reading| reading.values.to_vec()),
            Some(vec![1.0, 2.0, 3.0])
        );
        assert_eq!(row(r#""temperature":1,"humidity":2"#), Err(Reason::MissingField));
        let hot = row(r#""temperature":1000,"humidity":2,"battery":3"#);
        assert_eq!(hot, Err(Reason::OutOfRange(0)));
    }
}
