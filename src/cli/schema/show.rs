//! `ingestor schema show`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use super::statements::Problem;
use crate::base::number::with_commas;
use crate::postgres::{Database, Kind, Shape};

pub(super) async fn run(database: &Database, json: bool) -> Result<ExitCode, Problem> {
    let shape = database.shape().await?.ok_or(Problem::NoTable)?;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &shape).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write(&shape, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(shape: &Shape, out: &mut impl Write) -> io::Result<()> {
    let kind = match (shape.kind, &shape.partitioned_by) {
        (Kind::Plain, _) => "plain".to_owned(),
        (Kind::Partitioned, Some(by)) => format!("partitioned by {by}"),
        (Kind::Partitioned, None) => "partitioned".to_owned(),
        (Kind::Hypertable, _) => "a hypertable of TimescaleDB".to_owned(),
        (Kind::Distributed, _) => "distributed by Citus".to_owned(),
    };
    let total = shape.table_bytes + shape.index_bytes;
    writeln!(out, "table       telemetry, {kind}")?;
    writeln!(out, "rows        about {}", with_commas(shape.rows))?;
    writeln!(
        out,
        "size        {}: rows {}, indexes {}",
        bytes(total),
        bytes(shape.table_bytes),
        bytes(shape.index_bytes)
    )?;
    if let Some(a_row) = total.checked_div(shape.rows) {
        writeln!(out, "bytes a row {a_row}")?;
    }
    writeln!(out, "\ncolumns")?;
    for column in &shape.columns {
        let required = if column.is_required { " not null" } else { "" };
        writeln!(out, "  {:<28}{}{required}", column.name, column.kind)?;
    }
    writeln!(out, "\nindexes")?;
    for index in &shape.indexes {
        let key = index.key.as_ref().map_or(String::new(), |key| format!(", {key}"));
        let broken = if index.is_valid { "" } else { ", not finished" };
        let size = bytes(index.bytes.0);
        writeln!(out, "  {:<28}{}{key}{broken}, {size}", index.name, index.definition)?;
    }
    if !shape.partitions.is_empty() {
        writeln!(out, "\npartitions  {}", shape.partitions.len())?;
        for partition in &shape.partitions {
            let size = bytes(partition.bytes.0);
            writeln!(out, "  {:<28}{}, {size}", partition.name, partition.bounds)?;
        }
    }
    Ok(())
}

/// Bytes for a person.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut text = format!("{number} B");
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let mut size = number as f64;
    for unit in UNITS {
        if size < 1_024.0 {
            break;
        }
        size /= 1_024.0;
        text.clear();
        // Writing to a string does not fail.
        write!(text, "{size:.1} {unit}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        let shown = [0, 1_023, 1_024, 1_572_864, 3 << 30].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB"]);
    }
}
