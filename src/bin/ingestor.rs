//! The service. Arguments → configuration → logging → run → exit code.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use iot_ingestor::app::config::Config;
use iot_ingestor::app::{self, logging};
use iot_ingestor::base::output::Output;
use iot_ingestor::base::settings::{self, Mistakes, Sources};
use iot_ingestor::cli;
use iot_ingestor::cli::doctor::Examined;
use iot_ingestor::cli::health::{self, Question};
use iot_ingestor::cli::service::Place;
use rustix::fs::Mode;

/// Exit code of a bad configuration, as sysexits.h has it (`EX_USAGE`).
const BAD_CONFIGURATION: u8 = 64;

/// Telemetry from MQTT to PostgreSQL through a local write-ahead log, without losing an
/// acknowledged reading.
#[derive(Parser)]
#[command(version, after_help = after_help())]
struct Arguments {
    /// Write man pages and completions into a directory; for packages
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    write_manual: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service (the default)
    Run,
    /// Read the configuration, print it with secrets redacted, and exit
    CheckConfig,
    /// Inspect the log of a stopped ingestor: what waits, what is damaged; export readings
    Wal(cli::wal::Arguments),
    /// Show what the mappings of Rocket.toml make of messages
    CheckMapping(cli::mapping::Arguments),
    /// Listen to the broker and print mappings for what is published there
    SuggestMapping(cli::suggest::Arguments),
    /// Put readings of a file into the running service
    Import(cli::import::Arguments),
    /// Look at the table in the database, and bring that of an earlier release up to date
    Schema(cli::schema::Arguments),
    /// Set an installation up: ask for broker, database and token, test them, write settings and secrets
    Init(cli::init::Arguments),
    /// Test all that the service needs, whether it runs or not: broker, database, log, disk, clock, rights
    Doctor(cli::doctor::Arguments),
    /// Ask the service running on this machine whether it is alive; exit with 0 if so, else with 1
    #[command(after_help = HEALTH_HELP)]
    Health {
        /// Ask whether it takes messages in (/health/ready) instead
        #[arg(long)]
        ready: bool,
    },
}

const HEALTH_HELP: &str = "\
Requests /health/live at HTTP_ADDR on this machine, over HTTPS if HTTP_TLS_CERT_FILE is set, and prints
the answer. No other setting is read.

Use it without --ready for the health check of a container and for whatever restarts an unhealthy
service: a full log or an unreachable broker is \"not ready\", and a restart cures neither.

Exit codes: 0 yes, 1 no or no answer within 3 s, 64 bad arguments or a bad HTTP_ADDR.";

fn after_help() -> String {
    format!(
        "Configuration: environment variables override Rocket.toml (the same names in lower case, in section\n\
         [default]), which overrides the defaults. `ingestor check-config` shows the values in force.\n\n{}\n\
         Exit codes: 0 stopped as asked, 64 bad arguments or configuration, 1 any other failure.",
        settings::help(&Config::settings())
    )
}

fn main() -> ExitCode {
    let output = Output::start();
    let code = answer(&output);
    output.finish();
    code
}

fn answer(output: &Output) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version count as errors too, but belong to standard output.
            let wanted = !error.use_stderr();
            return match error.print() {
                Err(error) if wanted => printed(Err(error), output),
                _ if wanted => ExitCode::SUCCESS,
                _ => ExitCode::from(BAD_CONFIGURATION),
            };
        }
    };
    if let Some(dir) = arguments.write_manual {
        let written = cli::manual::write(Arguments::command().name("ingestor"), &dir);
        return outcome(written, output);
    }
    let bad_configuration = |mistakes| bad_configuration(&mistakes, output);
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => Config::load().map_or_else(bad_configuration, |config| run(config, output)),
        Command::CheckConfig => {
            Config::load().map_or_else(bad_configuration, |config| check_config(&config, output))
        }
        Command::Wal(arguments) => cli::wal::run(&arguments).unwrap_or_else(bad_configuration),
        Command::CheckMapping(arguments) => {
            cli::mapping::run(&arguments, Config::unknown).unwrap_or_else(bad_configuration)
        }
        Command::SuggestMapping(arguments) => {
            cli::suggest::run(&arguments).unwrap_or_else(bad_configuration)
        }
        Command::Import(arguments) => {
            cli::import::run(&arguments).unwrap_or_else(bad_configuration)
        }
        Command::Schema(arguments) => {
            cli::schema::run(&arguments).unwrap_or_else(bad_configuration)
        }
        Command::Init(arguments) => cli::init::run(&arguments, examined),
        Command::Doctor(arguments) => cli::doctor::run(&arguments, &Config::settings(), examined),
        Command::Health { ready } => Place::configured().map_or_else(bad_configuration, |place| {
            let question = if ready { Question::Ready } else { Question::Live };
            ask_health(place, question, output)
        }),
    }
}

/// What `doctor` looks at, of the whole configuration.
fn examined(from: Sources) -> Result<Examined, Mistakes> {
    Config::from_sources(from).map(|config| Examined {
        warnings: config.warnings(),
        broker: config.subscriber(),
        tables: config.mappings.tables().into_iter().map(|table| table.name.clone()).collect(),
        database: config.database,
        log: config.wal,
    })
}

fn check_config(config: &Config, output: &Output) -> ExitCode {
    let mut shown: Vec<_> =
        config.describe().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    shown.extend(config.mappings.describe().iter().map(|table| format!("{table}\n")));
    for warning in config.warnings() {
        output.line(&format!("warning: {warning}"));
    }
    printed(std::io::stdout().write_all(shown.concat().as_bytes()), output)
}

fn ask_health(place: Place, question: Question, output: &Output) -> ExitCode {
    match health::ask(place, question) {
        Ok(answer) => match printed(writeln!(std::io::stdout(), "{}", answer.body), output) {
            _ if !answer.is_yes => ExitCode::FAILURE,
            code => code,
        },
        Err(error) => {
            output.line(&format!("ingestor: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether files could be written.
fn outcome(written: std::io::Result<()>, output: &Output) -> ExitCode {
    if let Err(error) = &written {
        output.line(&format!("ingestor: {error}"));
    }
    written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Whether what was asked for could be printed; who stops reading has seen enough.
fn printed(outcome: std::io::Result<()>, output: &Output) -> ExitCode {
    match outcome {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            output.line(&format!("ingestor: cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn bad_configuration(Mistakes(mistakes): &Mistakes, output: &Output) -> ExitCode {
    for mistake in mistakes {
        output.line(&format!("configuration: {mistake}"));
    }
    ExitCode::from(BAD_CONFIGURATION)
}

fn run(config: Config, output: &Output) -> ExitCode {
    // The log and the dead letters hold what devices measured: for this user alone, whoever starts it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let outcome = logging::init(&config.logging, output).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("runtime")
            .enable_all()
            .build()?;
        let outcome = runtime.block_on(app::run(config, output));
        // What hangs beyond the grace is not waited for.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.line(&format!("ingestor: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
