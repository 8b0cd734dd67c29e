//! Builds the parts and wires them: `build`, `start` and `stop` are the files to read first.
//!
//! Starting: log, dead letters, HTTP, intake, source, flusher; none of it waits for the broker or
//! the database. Stopping, on SIGTERM, SIGINT or because a part ended unasked: not ready any more →
//! the source takes no more → the intake commits and acknowledges what it has → MQTT disconnect →
//! the flusher ends its batches in flight → HTTP → the log is closed.

use crate::base::output::Output;
use crate::base::signals::{Hangups, StopSignals};

mod build;
pub mod config;
mod housekeeping;
mod last_values;
pub mod logging;
mod reload;
mod silent_devices;
mod stall_timer;
mod start;
mod stop;
mod supervisor;
mod watchdog;

use config::Config;
use start::{HTTP, start};
use stop::stop;
use supervisor::Ended;

/// Runs the service until it is asked to stop.
///
/// # Errors
/// If it cannot start, or a part of it failed; then it has stopped in order nevertheless.
pub async fn run(config: Config, output: &Output) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::new()?;
    let mut hangups = Hangups::new()?;
    let mut service = start(config, output).await?;
    watchdog::notify_ready();
    let failure = loop {
        tokio::select! {
            name = stop_signals.next() => {
                tracing::info!(signal = name, "stopping: taking no more messages, finishing what is under way");
                break None;
            }
            ended = service.supervisor.next_ended() => break ended,
            outcome = service.http.finished() => {
                break Some(Ended { name: HTTP, outcome: outcome.map_err(Into::into) });
            }
            () = hangups.next() => service.reload.start(),
        }
    };
    watchdog::notify_stopping();
    if let Some(ended) = &failure {
        report_unasked(ended);
    }
    let http_runs = failure.as_ref().is_none_or(|ended| ended.name != HTTP);
    let failure_while_stopping = stop(service, http_runs).await;
    // What failed first may have been heard of only after what it took with it.
    let is_error = |ended: &Ended| ended.outcome.is_err();
    let failure = match failure {
        Some(ended) if !is_error(&ended) => failure_while_stopping.or(Some(ended)),
        failure => failure.or(failure_while_stopping),
    };
    match failure {
        None => Ok(()),
        Some(Ended { name, outcome: Ok(()) }) => anyhow::bail!("{name} ended unasked"),
        Some(Ended { name, outcome: Err(error) }) => Err(error.context(format!("{name} failed"))),
    }
}

fn report_unasked(ended: &Ended) {
    match &ended.outcome {
        Ok(()) => {
            tracing::error!(part = ended.name, "a part of the service ended unasked: stopping");
        }
        Err(error) => tracing::error!(
            part = ended.name,
            error = format!("{error:#}"),
            "a part of the service failed: stopping; nothing that was not stored has been acknowledged"
        ),
    }
}
