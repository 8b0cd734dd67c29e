//! Columns for a person.

use std::io::{self, Write};

use crate::telemetry::Reading;
use crate::wal::Offset;

pub(super) fn write_header(out: &mut impl Write) -> io::Result<()> {
    let [temperature, humidity, battery] = ["TEMPERATURE", "HUMIDITY", "BATTERY"];
    writeln!(
        out,
        "{:>12}  {:<27}  {temperature:>20}  {humidity:>20}  {battery:>20}  DEVICE",
        "OFFSET", "TIMESTAMP"
    )
}

/// Each as it comes, so the widths are fixed; the device, which can be long, is the last.
pub(super) fn write_record(
    out: &mut impl Write,
    offset: Offset,
    reading: &Reading,
) -> io::Result<()> {
    let Reading { device_id, timestamp, temperature, humidity, battery } = reading;
    let timestamp = timestamp.to_string();
    writeln!(
        out,
        "{offset:>12}  {timestamp:<27}  {temperature:>20}  {humidity:>20}  {battery:>20}  {device_id}"
    )
}
