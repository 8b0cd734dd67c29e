//! Columns for a person.

use std::io::{self, Write};

use crate::telemetry::fields::FIELDS;
use crate::telemetry::mapping::MappedReading;
use crate::telemetry::{Reading, Record};
use crate::wal::Offset;

pub(super) fn write_header(out: &mut impl Write) -> io::Result<()> {
    write!(out, "{:>12}  {:<27}", "OFFSET", "TIMESTAMP")?;
    for field in FIELDS {
        write!(out, "  {:>20}", field.name.to_uppercase())?;
    }
    writeln!(out, "  DEVICE")
}

/// Each as it comes, so the widths are fixed; the device, which can be long, is the last.
pub(super) fn write_record(
    out: &mut impl Write,
    offset: Offset,
    record: &Record,
) -> io::Result<()> {
    let timestamp = record.timestamp().to_string();
    write!(out, "{offset:>12}  {timestamp:<27}")?;
    match record {
        Record::BuiltIn(Reading { device_id, values, .. }) => {
            for value in values {
                write!(out, "  {value:>20}")?;
            }
            writeln!(out, "  {device_id}")
        }
        Record::Mapped(row) => write_row(out, row),
    }
}

/// A row of a table with columns of its own, which are named beside it.
fn write_row(out: &mut impl Write, row: &MappedReading) -> io::Result<()> {
    write!(out, "  {}: ", row.table.name)?;
    for (column, cell) in row.values() {
        write!(out, "{}={} ", column.name, serde_json::to_string(cell)?)?;
    }
    writeln!(out, " {}", row.device_id)
}
