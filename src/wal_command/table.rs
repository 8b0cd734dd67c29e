//! Columns for a person.

use std::io::{self, Write};

use crate::reading::Reading;
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

/// 1234567 as 1,234,567.
pub(super) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let shown = [0, 999, 1_000, 1_234_567].map(with_commas);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
