//! `ingestor schema`: what the table is, and what turns an older one into what it should be while the
//! service goes on.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};
use crate::base::time::Timestamp;
use crate::postgres::{self, Database, Failure, index_plan};
use crate::telemetry::validate::Rules;

mod partition;
mod show;

/// What `ingestor schema` is told.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what the table is (plain, partitioned, hypertable, distributed), its keys, indexes, sizes
    Show {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make the indexes of a table of an earlier release, while rows come in
    Index {
        /// Print the statements and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Turn a plain table into one that is partitioned by time, while rows come in
    Partition {
        /// Rows before it stay together; in RFC 3339 [default: the first day that lies beyond what may
        /// come until all is done]
        #[arg(long, value_name = "TIME", value_parser = time)]
        boundary: Option<Timestamp>,
        /// Print what would be done and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

fn time(text: &str) -> Result<Timestamp, String> {
    let expected = "expected a time such as 2025-10-05T00:00:00Z";
    Timestamp::from_rfc3339(text).ok_or_else(|| expected.to_owned())
}

const AFTER_HELP: &str = "\
Of the configuration only what is about the database and its rows is read (DATABASE_, PARTITION_,
VALIDATE_). The service need not be stopped, and what is broken off, or killed, can be run again.

Exit codes: 0 done, 64 bad arguments or configuration, 1 anything else, in a line on standard error.";

/// Runs the command; its exit code.
///
/// # Errors
/// If the configuration does not say where the database is.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Mistakes> {
    let mut from = Sources::of_this_process();
    let settings = postgres::Settings::read(&mut from);
    let rules = Rules::read(&mut from);
    from.mistakes_so_far()?;
    let outcome = execute(&settings, &rules, &arguments.command);
    Ok(match outcome {
        Ok(code) => code,
        // Whoever read our output has seen enough.
        Err(Problem::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&format!("ingestor: {problem}"));
            ExitCode::FAILURE
        }
    })
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Database(#[from] Failure),
    #[error("there is no table telemetry in this database yet: the service makes it")]
    NoTable,
    #[error("{0}")]
    Table(String),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

fn execute(
    settings: &postgres::Settings,
    rules: &Rules,
    command: &Command,
) -> Result<ExitCode, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Problem::Runtime)?;
    let database = Database::new(settings, 1, None)?;
    runtime.block_on(async {
        match command {
            Command::Show { json } => show::run(&database, *json).await,
            Command::Index { dry_run } => index(&database, *dry_run).await,
            Command::Partition { boundary, dry_run } => {
                let future = rules.max_future_secs;
                partition::run(&database, *boundary, future, *dry_run).await
            }
        }
    })
}

async fn index(database: &Database, is_dry: bool) -> Result<ExitCode, Problem> {
    let shape = database.shape().await?.ok_or(Problem::NoTable)?;
    let plan = index_plan(&shape).map_err(Problem::Table)?;
    if plan.is_empty() {
        writeln!(io::stdout(), "the indexes are as they should be")?;
    }
    carry_out(database, &plan, is_dry).await?;
    Ok(ExitCode::SUCCESS)
}

/// Says each statement, and what becomes of it.
async fn carry_out(database: &Database, plan: &[String], is_dry: bool) -> Result<(), Problem> {
    for statement in plan {
        writeln!(io::stdout(), "{statement}")?;
        if !is_dry {
            let bar = bar();
            database
                .index_step(statement, |seen| {
                    bar.set_length(seen.total);
                    bar.set_position(seen.done);
                    bar.set_message(seen.phase);
                })
                .await?;
            bar.finish_and_clear();
        }
    }
    Ok(())
}

/// On standard error, if that is a terminal.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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
