//! `ingestor wal stats`.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::output::{Failure, output, write_line};
use super::progress::Progress;
use crate::base::number::with_commas;
use crate::base::time::Timestamp;
use crate::telemetry::validate::TimeOfDay;
use crate::wal::inspect::{ExaminedGeneration, Inspection, Scope};
use crate::wal::{Offset, OffsetRange, Quarantined};

/// The names are those of `GET /admin/wal`.
#[derive(Serialize)]
struct Stats {
    dir: String,
    /// `None` where it is not known what is flushed.
    pending_records: Option<u64>,
    pending_bytes: Option<u64>,
    /// When the oldest pending record was received.
    oldest_pending_at: Option<Timestamp>,
    /// Everything that can be read, flushed or not.
    readable_records: u64,
    lost_records: u64,
    flushed_offset: Option<Offset>,
    next_offset: Option<Offset>,
    disk_bytes: u64,
    generations: Vec<Generation>,
    quarantined: Vec<Quarantined>,
}

#[derive(Serialize)]
struct Generation {
    id: String,
    first_offset: Offset,
    pending_records: Option<u64>,
    readable_records: u64,
    lost_ranges: Vec<OffsetRange>,
    /// Formats that only a newer version can read.
    unknown_block_versions: Vec<u16>,
    disk_bytes: u64,
}

pub(super) fn run(log: &Inspection, json: bool) -> Result<ExitCode, Failure> {
    let progress = Progress::new(log.file_bytes());
    let stats = gather(log, &progress)?;
    progress.end();
    let mut out = output();
    if json {
        write_line(&mut out, &stats)?;
    } else {
        stats.write(&mut out)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn gather(log: &Inspection, progress: &Progress) -> Result<Stats, Failure> {
    let positions = log.positions();
    let none_yet = positions.map(|_| 0);
    let mut stats = Stats {
        dir: log.dir().display().to_string(),
        pending_records: none_yet,
        pending_bytes: none_yet,
        oldest_pending_at: None,
        readable_records: 0,
        lost_records: 0,
        flushed_offset: positions.map(|positions| positions.flushed),
        next_offset: positions.map(|positions| positions.committed),
        disk_bytes: 0,
        generations: Vec::new(),
        quarantined: log.quarantined()?,
    };
    let read = |bytes| progress.advance(bytes);
    for generation in log.generations(0, &read)? {
        stats.add(&generation?);
    }
    Ok(stats)
}

const NEWER: &str = "  has blocks of a newer version";

impl Stats {
    fn add(&mut self, generation: &ExaminedGeneration) {
        let (pending, pending_bytes) = generation.records(Scope::Pending);
        let (readable, _) = generation.records(Scope::Everything);
        let lost_ranges = generation.missing().to_vec();
        let disk_bytes = generation.disk_bytes();
        if let Some(known) = &mut self.pending_records {
            *known += pending;
            if self.oldest_pending_at.is_none() {
                let oldest = generation.blocks(generation.from(Scope::Pending)).next();
                self.oldest_pending_at = oldest.and_then(|(_, block)| Some(block?.received_at));
            }
        }
        self.pending_bytes = self.pending_bytes.map(|bytes| bytes + pending_bytes);
        self.readable_records += readable;
        self.lost_records += lost_ranges.iter().map(OffsetRange::records).sum::<u64>();
        self.flushed_offset = self.flushed_offset.map(|at| at.max(generation.flushed()));
        self.next_offset = self.next_offset.map(|at| at.max(generation.end()));
        self.disk_bytes += disk_bytes;
        self.generations.push(Generation {
            id: generation.id(),
            first_offset: generation.first(),
            pending_records: self.pending_records.map(|_| pending),
            readable_records: readable,
            lost_ranges,
            unknown_block_versions: generation.newer_versions(),
            disk_bytes,
        });
    }

    fn write(&self, out: &mut impl Write) -> Result<(), Failure> {
        let mut line = |name: &str, value: String| writeln!(out, "{name:<18}{value}");
        line("directory", self.dir.clone())?;
        if let (Some(records), Some(bytes)) = (self.pending_records, self.pending_bytes) {
            let (records, bytes) = (with_commas(records), with_commas(bytes));
            line("pending", format!("{records} records in {bytes} bytes"))?;
        }
        if let Some(oldest) = self.oldest_pending_at {
            line(
                "oldest pending",
                format!("received {oldest}, {}", waited(oldest, TimeOfDay::at(Timestamp::now()))),
            )?;
        }
        if let (Some(flushed), Some(next)) = (self.flushed_offset, self.next_offset) {
            line("flushed offset", flushed.to_string())?;
            line("next offset", next.to_string())?;
        }
        line("lost", format!("{} records", with_commas(self.lost_records)))?;
        line("on disk", format!("{} bytes", with_commas(self.disk_bytes)))?;
        self.write_generations(out)
    }

    fn write_generations(&self, out: &mut impl Write) -> Result<(), Failure> {
        writeln!(
            out,
            "\n{:<20}  {:>12}  {:>12}  {:>12}  {:>14}",
            "GENERATION", "PENDING", "READABLE", "LOST", "BYTES ON DISK"
        )?;
        for generation in &self.generations {
            let lost = generation.lost_ranges.iter().map(OffsetRange::records).sum();
            let note = if generation.unknown_block_versions.is_empty() { "" } else { NEWER };
            writeln!(
                out,
                "{:<20}  {:>12}  {:>12}  {:>12}  {:>14}{note}",
                generation.id,
                generation.pending_records.map_or("unknown".to_owned(), with_commas),
                with_commas(generation.readable_records),
                with_commas(lost),
                with_commas(generation.disk_bytes),
            )?;
        }
        if !self.quarantined.is_empty() {
            writeln!(out, "\n{:<20}  {:>12}  {:>12}  SET ASIDE", "QUARANTINE", "SALVAGED", "LOST")?;
        }
        for set_aside in &self.quarantined {
            let Quarantined { id, at, salvaged_records, lost_ranges, unknown_version, .. } =
                set_aside;
            let salvaged = with_commas(*salvaged_records);
            let lost = with_commas(lost_ranges.iter().map(OffsetRange::records).sum());
            let note = if unknown_version.is_some() { NEWER } else { "" };
            writeln!(out, "{id:<20}  {salvaged:>12}  {lost:>12}  {at}{note}")?;
        }
        Ok(())
    }
}

/// Since when, in words; a difference of two clocks is none where one of them cannot be right.
fn waited(since: Timestamp, now: TimeOfDay) -> String {
    let seconds = now.now().seconds_since(since);
    if TimeOfDay::at(since).is_plausible() && now.is_plausible() && seconds >= 0.0 {
        format!("{:.1} hours ago", seconds / 3_600.0)
    } else {
        "by a clock that was wrong".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::validate::built_at;

    #[test]
    fn a_receipt_by_a_clock_that_was_not_set_is_not_56_years_ago() {
        let hours = |hours: i64| {
            Timestamp::from_micros(built_at().as_micros() + hours * 3_600_000_000).unwrap()
        };
        let unset = Timestamp::from_millis(5_000).unwrap();
        assert_eq!(waited(hours(1), TimeOfDay::at(hours(3))), "2.0 hours ago");
        for (since, now) in [(unset, hours(3)), (hours(1), unset), (hours(3), hours(1))] {
            assert_eq!(waited(since, TimeOfDay::at(now)), "by a clock that was wrong");
        }
    }
}
