//! `simulator`: publishes telemetry of simulated devices over MQTT.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use iot_ingestor::app::logging::{self, LogFormat};
use iot_ingestor::base::output::Output;
use iot_ingestor::base::settings::Sources;
use iot_ingestor::base::signals::StopSignals;
use iot_ingestor::cli;
use iot_ingestor::simulator::{self, Settings, Summary};
use tokio_util::sync::CancellationToken;

const BAD_CONFIGURATION: u8 = 64;

const ABOUT: &str = "\
Publishes telemetry of simulated devices over MQTT, QoS 1, to telemetry/<device id>.

Runs until MESSAGE_COUNT messages are acknowledged, or until SIGINT or SIGTERM, and then prints how \
many were published and acknowledged. A broker that is down is waited for.";

/// Settings come from the environment alone; arguments only ask for help or the version.
#[derive(Parser)]
#[command(name = "simulator", version, about = ABOUT, after_help = simulator::help())]
struct Arguments {
    /// Write man pages and completions into a directory; for packages
    #[arg(long, value_name = "DIR", hide = true)]
    write_manual: Option<PathBuf>,
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
            let printed = error.print().is_ok();
            let wanted = !error.use_stderr() && printed;
            return if wanted { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIGURATION) };
        }
    };
    if let Some(dir) = arguments.write_manual {
        let written = cli::manual::write(Arguments::command(), &dir);
        if let Err(error) = &written {
            output.line(&format!("simulator: {error}"));
        }
        return written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let mut from = Sources::of_environment();
    let settings = Settings::read(&mut from);
    let log = logging::Settings {
        filter: logging::read_filter(&mut from),
        format: Some(LogFormat::Text),
    };
    if let Err(mistakes) = from.mistakes_so_far() {
        output.line(&mistakes.to_string());
        return ExitCode::from(BAD_CONFIGURATION);
    }
    match run(&settings, &log, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.line(&format!("simulator: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings, log: &logging::Settings, output: &Output) -> anyhow::Result<()> {
    logging::init(log, output)?;
    // One task does all the work, a second thread would only pass it around.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary: Summary = runtime.block_on(async {
        let mut signals = StopSignals::new().context("cannot listen for signals")?;
        let stop = CancellationToken::new();
        let asked = stop.clone();
        // Ends with the runtime.
        tokio::spawn(async move {
            signals.next().await;
            asked.cancel();
        });
        Ok::<_, anyhow::Error>(simulator::run(settings, &stop, output).await?)
    })?;
    writeln!(std::io::stdout(), "{summary}").context("cannot print the summary")
}
