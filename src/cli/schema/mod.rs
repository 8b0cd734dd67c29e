//! `ingestor schema`: what the table is, and what turns an older one into what it should be while the
//! service goes on.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::base::output::complain;
use crate::base::settings::{Mistakes, Sources};
use crate::base::time::Timestamp;
use crate::postgres::{self, Database, index_plan};
use crate::telemetry::validate::Rules;

mod partition;
mod show;
mod statements;

use statements::{Problem, carry_out};

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
