use std::sync::Arc;

use super::table::ValuesV3;
use super::*;
use crate::telemetry::mapping::{Cell, Column, Kind, SilentAfter, TableShape};

fn reading(device_id: &str) -> Reading {
    let timestamp = Timestamp::from_millis(1_759_667_696_000).unwrap();
    let device_id = device_id.to_owned();
    Reading { device_id, timestamp, values: [1.0, 65.2, 87.3] }
}

#[test]
fn columns_of_different_lengths_are_no_block() {
    let readings = ["a", "b"].map(reading);
    let readings: Vec<&Reading> = readings.iter().collect();
    let shorten: [fn(&mut ColumnsV2<'_>); 5] = [
        |columns| columns.device_ids.truncate(1),
        |columns| columns.timestamp_steps_micros.truncate(1),
        |columns| columns.values[0].truncate(1),
        |columns| columns.values[1].truncate(1),
        |columns| columns.values[2].truncate(1),
    ];
    for shorten in shorten {
        let mut columns = ColumnsV2::of(&readings);
        shorten(&mut columns);
        assert_eq!(columns.readings(), None);
    }
    let back = ColumnsV2::of(&readings).readings().unwrap();
    assert!(back.iter().zip(readings).all(|(record, reading)| record == reading));
}

fn rows() -> Vec<MappedReading> {
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    let table = Arc::new(TableShape {
        name: "climate".to_owned(),
        columns: vec![
            column("contact", Kind::Bool),
            column("extra", Kind::Json),
            column("level", Kind::Int),
            column("model", Kind::Text),
            column("never", Kind::Float),
            column("temperature", Kind::Float),
        ],
    });
    let row = |at: i64, cells: Vec<(u16, Cell)>| MappedReading {
        table: Arc::clone(&table),
        device_id: format!("d{at}"),
        timestamp: Timestamp::from_millis(1_759_667_696_000 - at).unwrap(),
        cells,
        silent_after: SilentAfter::OfTable,
    };
    (0..10)
        .map(|at| {
            let mut cells = vec![(2, Cell::Int(-at)), (5, Cell::Float(21.5))];
            if at == 9 {
                cells.insert(0, (0, Cell::Bool(true)));
                cells.insert(1, (1, Cell::Json("{\"a\":1.50}".to_owned())));
            }
            if at == 3 {
                cells = vec![(3, Cell::Text("ü".to_owned()))];
            }
            row(at, cells)
        })
        .collect()
}

#[test]
fn rows_of_a_table_read_back_with_the_columns_that_have_a_value() {
    let rows = rows();
    let records: Vec<Record> = rows.iter().cloned().map(Record::from).collect();
    let (version, body) = encode(&records, &[]).unwrap();
    assert_eq!(version, 3);
    let (back, _) = decode(version, &body).unwrap();
    let json = |record: &Record| serde_json::to_string(record).unwrap();
    assert_eq!(
        back.iter().map(json).collect::<Vec<_>>(),
        records.iter().map(json).collect::<Vec<_>>()
    );
    let names: Vec<_> =
        back[0].mapped().unwrap().table.columns.iter().map(|column| &column.name).collect();
    assert_eq!(names, ["contact", "extra", "level", "model", "temperature"]);
}

#[test]
fn a_table_whose_parts_do_not_fit_is_no_block() {
    let rows = rows();
    let rows: Vec<&MappedReading> = rows.iter().collect();
    let spoil: [fn(&mut TableV3<'_>); 5] = [
        |table| table.device_ids.truncate(1),
        |table| table.timestamp_steps_micros.truncate(1),
        |table| table.columns[0].presence.truncate(1),
        |table| table.columns[0].presence.push(0),
        |table| table.columns[2].values = ValuesV3::Int(vec![1]),
    ];
    for spoil in spoil {
        let mut table = TableV3::of(&rows[0].table, &rows, &[]);
        spoil(&mut table);
        assert_eq!(table.rows(), None);
    }
}
