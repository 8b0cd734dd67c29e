//! `ingestor wal`: what an operator asks a log while the service is down. Reads only; answers on
//! standard output, and says on standard error what keeps an answer from being whole.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::base::number::with_commas;
use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};
use crate::telemetry::Record;
use crate::wal::inspect::{ExaminedGeneration, InspectError, Inspection, Scope};
use crate::wal::{self, Offset, OffsetRange};

mod progress;
mod stats;
mod table;
mod verify;

use progress::Progress;

/// What `ingestor wal` is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[arg(long, global = true, value_name = "DIR", help = WAL_DIR_HELP)]
    wal_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what waits, since when, and what is damaged
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show records, oldest first
    Records(RecordsArguments),
    /// Check every block; exit with 0 if all are intact, else with 1, and say where damage is
    Verify,
    /// Write readings to standard output as messages, one JSON object per line
    Export {
        #[command(flatten)]
        all: All,
    },
}

#[derive(Args)]
struct RecordsArguments {
    /// First offset to show
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: Offset,
    /// Maximum number of records to show
    #[arg(long, value_name = "RECORDS", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Show only records of this device
    #[arg(long, value_name = "DEVICE_ID")]
    device: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    all: All,
}

#[derive(Args)]
struct All {
    /// Include records that are in the database already and can still be read
    #[arg(long)]
    all: bool,
}

impl All {
    fn scope(&self) -> Scope {
        if self.all { Scope::Everything } else { Scope::Pending }
    }
}

const WAL_DIR_HELP: &str = "Directory of a log, of its quarantine, or of one generation [default: WAL_DIR of the configuration]";

const AFTER_HELP: &str = "\
All of these only read, and work on a read-only mount. While one runs, no ingestor can start on that
log, and a log that a running ingestor holds is refused; quarantine can be inspected at any time. Of the
configuration only WAL_DIR is read.

`records` and `export` show pending records: those that are acknowledged and, as far as the log knows,
not yet in the database. Sending one twice does no harm, since the table keeps one row per device and
time. Of a generation in quarantine they show every record that can be read, because it is not known any
more which of them are pending. Offsets that are lost to damage are skipped and reported, and `export`
then exits with 1.

  Is it damaged, and where?      ingestor wal verify
  Publish the readings again:    ingestor wal export | mosquitto_pub -l -q 1 -t telemetry/export
  Write them to a file:          ingestor wal export > readings.ndjson
  What is left of a damaged one: ingestor wal export --wal-dir data/wal/quarantine

Exit codes: 0 all is right, 64 bad arguments, 1 anything else, in a line or more on standard error.";

/// Runs the command; its exit code.
///
/// # Errors
/// If the configuration does not even say where the log is.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Mistakes> {
    let dir = match &arguments.wal_dir {
        Some(dir) => dir.clone(),
        None => wal_dir(Sources::of_this_process())?,
    };
    let answered =
        Inspection::open(&dir).map_err(Failure::from).and_then(|log| match &arguments.command {
            Command::Stats { json } => stats::run(&log, *json),
            Command::Records(arguments) => records(&log, arguments),
            Command::Verify => verify::run(&log),
            Command::Export { all } => export(&log, all.scope()),
        });
    Ok(match answered {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            complain(&format!("ingestor: {failure}"));
            ExitCode::FAILURE
        }
    })
}

/// Where the log is, whatever else is wrong with the configuration.
fn wal_dir(mut from: Sources) -> Result<PathBuf, Mistakes> {
    let dir = wal::Settings::read_dir(&mut from);
    if from.is_in_environment("WAL_DIR") { Ok(dir) } else { from.mistakes_so_far().map(|()| dir) }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] InspectError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

fn output() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::with_capacity(64 * 1_024, io::stdout().lock())
}

fn export(log: &Inspection, scope: Scope) -> Result<ExitCode, Failure> {
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

fn records(log: &Inspection, arguments: &RecordsArguments) -> Result<ExitCode, Failure> {
    let RecordsArguments { from, limit, device, json, all } = arguments;
    let mut out = output();
    if !json {
        table::write_header(&mut out)?;
    }
    let mut left = *limit;
    let mut more = None;
    let progress = Progress::of_output(2 * log.file_bytes());
    let missing = each_reading(log, all.scope(), *from, &progress, |offset, reading| {
        if device.as_ref().is_some_and(|device| *device != reading.device_id()) {
            return Ok(ControlFlow::Continue(()));
        }
        if left == 0 {
            more = Some(offset);
            return Ok(ControlFlow::Break(()));
        }
        left -= 1;
        if *json {
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

fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(out.write_all(b"\n")?)
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

/// What keeps an answer from being whole.
#[derive(Default)]
struct Missing {
    ranges: Vec<OffsetRange>,
    newer_versions: Vec<u16>,
}

impl Missing {
    fn add(&mut self, generation: &ExaminedGeneration, from: Offset) {
        let ranges = generation.missing().iter().filter(|range| range.to >= from);
        self.ranges
            .extend(ranges.map(|range| OffsetRange { from: range.from.max(from), ..*range }));
        self.newer_versions.extend(generation.newer_versions());
    }

    /// Says so on standard error; whether there was something to say.
    fn report(mut self) -> bool {
        self.newer_versions.sort_unstable();
        self.newer_versions.dedup();
        for version in &self.newer_versions {
            complain(&format!(
                "ingestor: some blocks are of version {version}, written by a newer version of this program: only that can read them"
            ));
        }
        if !self.ranges.is_empty() {
            let unreadable = unreadable(&self.ranges);
            complain(&format!("ingestor: {unreadable}; `ingestor wal verify` says where"));
        }
        !self.ranges.is_empty() || !self.newer_versions.is_empty()
    }
}

/// The first few of many ranges, in words.
fn unreadable(ranges: &[OffsetRange]) -> String {
    const SHOWN: usize = 3;
    let records = ranges.iter().map(OffsetRange::records).sum();
    let mut text = format!("{} records cannot be read, offsets", with_commas(records));
    for (at, OffsetRange { from, to }) in ranges.iter().take(SHOWN).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string does not fail.
        write!(text, "{comma} {from} to {to}").ok();
    }
    if ranges.len() > SHOWN {
        write!(text, " and {} more ranges", ranges.len() - SHOWN).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_log_is_known_whatever_else_is_wrong() {
        let wal_dir = |env: &[(&str, &str)], toml: &str| {
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            super::wal_dir(Sources::new(env.collect(), toml))
        };
        let spoilt = "[default]\nmqtt_port = 0\nbatch = 1\nwal_dir = \"/from/file\"";
        assert_eq!(wal_dir(&[], spoilt), Ok("/from/file".into()));
        assert_eq!(wal_dir(&[("WAL_DIR", "/w"), ("HTTP_ADDR", "x")], "[half"), Ok("/w".into()));
        assert_eq!(wal_dir(&[], ""), Ok("data/wal".into()));
        assert!(wal_dir(&[], "[half").is_err(), "it could stand there");
    }
}
