//! The records of a log, shown or exported.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

use serde::Serialize;

use super::missing::Missing;
use super::output::{Failure, output, write_line};
use super::progress::Progress;
use super::table;
use crate::base::output::complain;
use crate::telemetry::Record;
use crate::wal::Offset;
use crate::wal::inspect::{Inspection, Scope};

/// Writes readings as messages.
pub(super) fn export(log: &Inspection, scope: Scope) -> Result<ExitCode, Failure> {
    let mut out = output();
    let progress = Progress::of_output(2 * log.file_bytes());
    let missing = each_reading(log, scope, 0, &progress, |_, reading| {
        write_line(&mut out, reading)?;
        Ok(ControlFlow::Continue(()))
    })?;
    out.flush()?;
    progress.end();
    Ok(if missing.report() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A record as `--json` shows it.
#[derive(Serialize)]
struct Numbered<'r> {
    offset: Offset,
    #[serde(flatten)]
    reading: &'r Record,
}

/// Which records are shown.
pub(super) struct Wanted<'w> {
    pub(super) from: Offset,
    pub(super) limit: u64,
    pub(super) device: Option<&'w str>,
}

/// Shows records, as a table or as lines of JSON.
pub(super) fn show(
    log: &Inspection,
    scope: Scope,
    wanted: &Wanted<'_>,
    is_json: bool,
) -> Result<ExitCode, Failure> {
    let Wanted { from, limit, device } = *wanted;
    let mut out = output();
    if !is_json {
        table::write_header(&mut out)?;
    }
    let mut left = limit;
    let mut more = None;
    let progress = Progress::of_output(2 * log.file_bytes());
    let missing = each_reading(log, scope, from, &progress, |offset, reading| {
        if device.is_some_and(|device| device != reading.device_id()) {
            return Ok(ControlFlow::Continue(()));
        }
        if left == 0 {
            more = Some(offset);
            return Ok(ControlFlow::Break(()));
        }
        left -= 1;
        if is_json {
            write_line(&mut out, &Numbered { offset, reading })?;
        } else {
            table::write_record(&mut out, offset, reading)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    out.flush()?;
    progress.end();
    missing.report();
    if let Some(offset) = more {
        complain(&format!("there is more: go on with --from {offset}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Calls `each` with every record in `scope` from offset `from` on, in order, until it has enough;
/// what could not be read on the way.
fn each_reading(
    log: &Inspection,
    scope: Scope,
    from: Offset,
    progress: &Progress,
    mut each: impl FnMut(Offset, &Record) -> Result<ControlFlow<()>, Failure>,
) -> Result<Missing, Failure> {
    let mut missing = Missing::default();
    let read = |bytes| progress.advance(bytes);
    let mut next = from;
    for generation in log.generations(from, &read)? {
        let generation = generation?;
        if !generation.belongs_to_log() {
            // What ended up behind its end has the offsets of other records.
            next = from;
        }
        next = next.max(generation.from(scope));
        missing.add(&generation, next);
        let bytes = generation.bytes_a_block(next);
        for (offsets, block) in generation.blocks(next) {
            progress.advance(bytes);
            let Some(block) = block else {
                missing.ranges.push(offsets);
                continue;
            };
            for (offset, reading) in (block.first..).zip(&block.readings) {
                if offset < next {
                    continue;
                }
                next = offset + 1;
                if each(offset, reading)?.is_break() {
                    missing.ranges.retain(|range| range.from < next);
                    return Ok(missing);
                }
            }
        }
    }
    Ok(missing)
}
