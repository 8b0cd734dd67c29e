//! `ingestor wal`: what an operator asks a log while the service is down. Reads only; answers on
//! standard output, and says on standard error what keeps an answer from being whole.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};
use crate::wal::inspect::{Inspection, Scope};
use crate::wal::{self, Offset};

mod missing;
mod output;
mod progress;
mod records;
mod stats;
mod table;
mod verify;

use output::Failure;

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
time. Those of a mapping name their table; they are no messages that could be published. Of a generation in quarantine they show every record that can be read, because it is not known any
more which of them are pending. Offsets that are lost to damage are skipped and reported, and `export`
then exits with 1.

  Is it damaged, and where?      ingestor wal verify
  Put them into another one:     ingestor wal export | ingestor import --url https://other:8080
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
            Command::Records(arguments) => {
                let RecordsArguments { from, limit, device, json, all } = arguments;
                let wanted =
                    records::Wanted { from: *from, limit: *limit, device: device.as_deref() };
                records::show(&log, all.scope(), &wanted, *json)
            }
            Command::Verify => verify::run(&log),
            Command::Export { all } => records::export(&log, all.scope()),
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
