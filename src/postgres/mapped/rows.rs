//! The rows of a batch by table, turned on their side, as `unnest` takes them.
//!
//! Rows of one device and one time are one row here: the first value of a field wins, as it does in the
//! table, and a statement may not meet a row of its own.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::value::Value;
use crate::telemetry::fields::FIELDS;
use crate::telemetry::mapping::{Kind, MappedReading, TableShape};
use crate::telemetry::{Reading, Record};

/// What of a batch goes into one table, in the order of time and device.
pub(in crate::postgres) struct TableRows<'r> {
    pub(super) table: &'r str,
    pub(super) device_ids: Vec<&'r str>,
    pub(super) timestamps: Vec<DateTime<Utc>>,
    /// Those that have a value in one row or more, in the order of their names.
    pub(super) columns: Vec<Column<'r>>,
    /// Of each row of the batch that has given one before it a value, the row that it is part of here.
    pub(super) merging: Vec<usize>,
    /// Index of each row of the batch, and of the row that it is part of here.
    origins: Vec<(usize, usize)>,
}

/// A column, with a place for each row.
pub(super) struct Column<'r> {
    pub(super) name: &'r str,
    /// That of its first value.
    pub(super) kind: Kind,
    pub(super) values: Vec<Option<Value<'r>>>,
}

impl<'r> TableRows<'r> {
    /// The rows of each table, in the order of the tables' names: whoever writes takes its locks in the
    /// same order.
    pub(in crate::postgres) fn of(batch: &[&'r Record]) -> Vec<Self> {
        let mut rows: Vec<(usize, &'r Record)> = batch.iter().copied().enumerate().collect();
        // Stable, so that the first of two with the same key stays first.
        rows.sort_by(|(_, a), (_, b)| {
            let key = |row: &'r Record| (row.table(), row.timestamp(), row.device_id());
            key(a).cmp(&key(b))
        });
        rows.chunk_by(|(_, a), (_, b)| a.table() == b.table()).map(Self::of_table).collect()
    }

    fn of_table(rows: &[(usize, &'r Record)]) -> Self {
        let mut all = Self {
            table: rows.first().map_or("", |(_, row)| row.table()),
            device_ids: Vec::with_capacity(rows.len()),
            timestamps: Vec::with_capacity(rows.len()),
            columns: Vec::new(),
            merging: Vec::new(),
            origins: Vec::with_capacity(rows.len()),
        };
        let mut places = Places { of: HashMap::new(), rows: rows.len() };
        for (index, row) in rows {
            let (device_id, timestamp) = (row.device_id(), row.timestamp().into());
            let is_again = all.device_ids.last() == Some(&device_id)
                && all.timestamps.last() == Some(&timestamp);
            if !is_again {
                all.device_ids.push(device_id);
                all.timestamps.push(timestamp);
            }
            let at = all.device_ids.len() - 1;
            let adds = match row {
                Record::BuiltIn(reading) => places.put_built_in(&mut all.columns, at, reading),
                Record::Mapped(reading) => places.put_mapped(&mut all.columns, at, reading),
            };
            if is_again && adds {
                all.merging.push(at);
            }
            all.origins.push((*index, at));
        }
        for column in &mut all.columns {
            column.values.truncate(all.device_ids.len());
        }
        all.columns.sort_unstable_by_key(|column| column.name);
        all
    }

    pub(super) fn len(&self) -> usize {
        self.device_ids.len()
    }

    /// Whether each row has a value in this column.
    pub(super) fn always_fills(&self, name: &str) -> bool {
        let column = self.columns.iter().find(|column| column.name == name);
        column.is_some_and(|column| column.values.iter().all(Option::is_some))
    }

    /// Indices in the batch of what is part of the row `at`.
    pub(super) fn origins(&self, at: usize) -> impl Iterator<Item = usize> {
        self.origins.iter().filter(move |(_, row)| *row == at).map(|(index, _)| *index)
    }
}

/// Where the columns of shapes are among those of the table.
struct Places {
    /// By where the shape lies in memory: a block has one for all its rows.
    of: HashMap<*const TableShape, Vec<Option<usize>>>,
    rows: usize,
}

impl Places {
    /// Whether that adds a value.
    fn put_built_in<'r>(
        &self,
        columns: &mut Vec<Column<'r>>,
        at: usize,
        reading: &'r Reading,
    ) -> bool {
        let mut adds = false;
        for (field, value) in FIELDS.iter().zip(reading.values) {
            let place = self.place(columns, field.name, Kind::Float);
            adds |= put(&mut columns[place], at, Value::Float(value));
        }
        adds
    }

    /// Whether that adds a value.
    fn put_mapped<'r>(
        &mut self,
        columns: &mut Vec<Column<'r>>,
        at: usize,
        reading: &'r MappedReading,
    ) -> bool {
        let shape = &reading.table;
        let mut known = self.of.remove(&Arc::as_ptr(shape));
        let places = known.get_or_insert_with(|| vec![None; shape.columns.len()]);
        let mut adds = false;
        for (index, cell) in &reading.cells {
            let index = usize::from(*index);
            let (Some(column), Some(place)) = (shape.columns.get(index), places.get_mut(index))
            else {
                continue;
            };
            let value = Value::of(cell);
            let place =
                *place.get_or_insert_with(|| self.place(columns, &column.name, cell.kind()));
            adds |= put(&mut columns[place], at, value);
        }
        if let Some(places) = known {
            self.of.insert(Arc::as_ptr(shape), places);
        }
        adds
    }

    fn place<'r>(&self, columns: &mut Vec<Column<'r>>, name: &'r str, kind: Kind) -> usize {
        if let Some(place) = columns.iter().position(|column| column.name == name) {
            return place;
        }
        columns.push(Column { name, kind, values: vec![None; self.rows] });
        columns.len() - 1
    }
}

/// Whether there was no value yet.
fn put<'r>(column: &mut Column<'r>, at: usize, value: Value<'r>) -> bool {
    let Some(place) = column.values.get_mut(at).filter(|place| place.is_none()) else {
        return false;
    };
    *place = Some(value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::telemetry::mapping::{self, Cell, SilentAfter};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    fn mapped(table: &str, device_id: &str, millis: i64, cells: &[(&str, Cell)]) -> Record {
        let column = |(name, cell): &(&str, Cell)| mapping::Column {
            name: (*name).to_owned(),
            kind: cell.kind(),
        };
        let columns = cells.iter().map(column).collect();
        let cells = (0..).zip(cells).map(|(at, (_, cell))| (at, cell.clone())).collect();
        Record::from(MappedReading {
            table: Arc::new(TableShape { name: table.to_owned(), columns }),
            device_id: device_id.to_owned(),
            timestamp: at(millis),
            cells,
            silent_after: SilentAfter::OfTable,
        })
    }

    fn built_in(device_id: &str, millis: i64) -> Record {
        let device_id = device_id.to_owned();
        Record::from(Reading { device_id, timestamp: at(millis), values: [1.0, 2.0, 3.0] })
    }

    fn values<'r>(rows: &TableRows<'r>, name: &str) -> Vec<Option<Value<'r>>> {
        rows.columns.iter().find(|column| column.name == name).unwrap().values.clone()
    }

    #[test]
    fn rows_go_by_table_time_and_device_and_the_first_value_of_a_field_wins() {
        let batch = [
            mapped("power", "b", 1, &[("watts", Cell::Float(1.0))]),
            built_in("z", 5),
            mapped("power", "a", 2, &[("on", Cell::Bool(true))]),
            mapped("power", "b", 1, &[("on", Cell::Bool(false)), ("watts", Cell::Float(9.0))]),
            mapped("power", "b", 1, &[("watts", Cell::Float(8.0))]),
        ];
        let tables = TableRows::of(&batch.iter().collect::<Vec<_>>());
        assert_eq!(
            tables.iter().map(|rows| rows.table).collect::<Vec<_>>(),
            ["power", "telemetry"]
        );
        let power = &tables[0];
        assert_eq!(
            (power.device_ids.as_slice(), power.merging.as_slice()),
            (&["b", "a"][..], &[0][..])
        );
        assert_eq!(values(power, "watts"), [Some(Value::Float(1.0)), None]);
        assert_eq!(values(power, "on"), [Some(Value::Bool(false)), Some(Value::Bool(true))]);
        assert_eq!(power.origins(0).collect::<Vec<_>>(), [0, 3, 4]);
        assert!(power.always_fills("on") && !power.always_fills("watts"));
        assert!(!power.always_fills("other"));
        assert_eq!(values(&tables[1], "humidity"), [Some(Value::Float(2.0))]);
        assert_eq!(tables[1].origins(0).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn shapes_of_one_table_are_one_set_of_columns() {
        let batch = [
            mapped("t", "a", 1, &[("y", Cell::Int(1)), ("z", Cell::Int(2))]),
            mapped("t", "b", 1, &[("x", Cell::Text("t".to_owned())), ("y", Cell::Int(3))]),
            mapped("t", "c", 1, &[]),
        ];
        let tables = TableRows::of(&batch.iter().collect::<Vec<_>>());
        let names: Vec<_> = tables[0].columns.iter().map(|column| column.name).collect();
        assert_eq!(names, ["x", "y", "z"]);
        assert_eq!(values(&tables[0], "y"), [Some(Value::Int(1)), Some(Value::Int(3)), None]);
        assert!(tables[0].columns.iter().all(|column| column.values.len() == 3));
    }
}
