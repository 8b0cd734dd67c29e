//! Columns for a person.

use std::io::{self, Write};

use crate::telemetry::Reading;
use crate::telemetry::fields::FIELDS;
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
    reading: &Reading,
) -> io::Result<()> {
    let Reading { device_id, timestamp, values } = reading;
    let timestamp = timestamp.to_string();
    write!(out, "{offset:>12}  {timestamp:<27}")?;
    for value in values {
        write!(out, "  {value:>20}")?;
    }
    writeln!(out, "  {device_id}")
}
