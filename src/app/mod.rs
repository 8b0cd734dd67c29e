//! Builds the parts and wires them: the file to read first.
//!
//! Starting: log, dead letters, HTTP, intake, source, flusher; none of it waits for the broker or
//! the database. Stopping, on SIGTERM, SIGINT or because a part ended unasked: not ready any more →
//! the source takes no more → the intake commits and acknowledges what it has → MQTT disconnect →
//! the flusher ends its batches in flight → HTTP → the log is closed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal as unix_signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::base::activity::Activity;
use crate::base::metrics::Metrics;
use crate::base::output::Output;
use crate::dead_letters::DeadLetters;
use crate::flusher::{self, Control, Flusher};
use crate::http::{self, AppState, Replayer};
use crate::intake::Intake;
use crate::mqtt::{Source, SourceParts};
use crate::postgres::Database;
use crate::status::health::{Health, WalState};
use crate::status::history::History;
use crate::telemetry::admit::Admission;
use crate::telemetry::rejection::{Reason, Stage};
use crate::wal::{self, Limits, Log, SledStorage, Writer};

pub mod config;
pub mod logging;
pub mod supervisor;
pub mod watchdog;

use config::Config;
use supervisor::{Ended, Supervisor};

const INTAKE: &str = "intake";
const SOURCE: &str = "mqtt source";
const FLUSHER: &str = "flusher";
const HTTP: &str = "http";

/// What HTTP needs to stop while a client holds on to its connection.
const HTTP_GRACE: Duration = Duration::from_millis(2_200);

/// Runs the service until it is asked to stop.
///
/// # Errors
/// If it cannot start, or a part of it failed; then it has stopped in order nevertheless.
pub async fn run(config: Config, output: &Output) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::new()?;
    let mut service = Service::start(config, output).await?;
    watchdog::notify_ready();
    let failure = tokio::select! {
        name = stop_signals.next() => {
            tracing::info!(signal = name, "stopping: taking no more messages, finishing what is under way");
            None
        }
        ended = service.supervisor.next_ended() => ended,
        outcome = service.http.finished() => {
            Some(Ended { name: HTTP, outcome: outcome.map_err(Into::into) })
        }
    };
    watchdog::notify_stopping();
    if let Some(ended) = &failure {
        report_unasked(ended);
    }
    let http_runs = failure.as_ref().is_none_or(|ended| ended.name != HTTP);
    let failure_while_stopping = service.stop(http_runs).await;
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

struct Service {
    supervisor: Supervisor,
    stop_source: CancellationToken,
    stop_flusher: CancellationToken,
    intake_done: CancellationToken,
    http: http::Running,
    health: Arc<Health>,
    log: Log,
    grace: Duration,
}

impl Service {
    async fn start(config: Config, output: &Output) -> anyhow::Result<Self> {
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        let metrics = Metrics::new()?;
        metrics.declare(
            Reason::all().map(Reason::as_str),
            Stage::ALL.iter().map(|stage| stage.as_str()),
        );
        let health = Arc::new(Health::new(metrics.clone()));
        let (writer, log) = open_log(&config, &metrics)?;
        let history = Arc::new(History::new(&metrics, &log));
        let dead_letters_dir = config.wal.dir.join("dead-letters");
        let dead_letter_bytes = config.dead_letters.max_bytes;
        let dead_letters =
            Arc::new(DeadLetters::open(&dead_letters_dir, dead_letter_bytes, &metrics)?);
        let database = Database::new(&config.database, config.flusher.connections)?;
        let control = Arc::new(Control::default());
        let (sender, inbound) = mpsc::channel(config.intake.channel_size);

        let admission = Admission {
            max_payload_bytes: config.mqtt.max_payload_bytes,
            rules: config.rules.clone(),
        };
        let replayer =
            Replayer::new(sender.downgrade(), Arc::clone(&dead_letters), admission.clone());
        let state = AppState {
            metrics: metrics.clone(),
            health: Arc::clone(&health),
            history: Arc::clone(&history),
            database: database.clone(),
            refresh: refresh(&log, &history, &metrics, output),
            admin_token: config.http.admin_token.clone(),
            log: log.clone(),
            flusher: Arc::clone(&control),
            dead_letters: Arc::clone(&dead_letters),
            replayer: Arc::new(replayer),
        };
        let http = http::serve(&config.http, state).await?;

        let mut supervisor = Supervisor::default();
        supervisor.task("history", history.record(metrics.clone(), log.clone()));
        let stop_source = CancellationToken::new();
        let intake_done = CancellationToken::new();
        let parts = SourceParts {
            deliveries: sender,
            room: log.room(),
            stop: stop_source.clone(),
            intake_done: intake_done.clone(),
            has_history: log.stats().next_offset > 0,
            health: Arc::clone(&health),
            metrics: metrics.clone(),
        };
        let source = Source::new(config.mqtt.clone(), parts);
        let intake_activity = Activity::default();
        let intake = Intake {
            inbound,
            writer,
            room: log.room(),
            dead_letters: Arc::clone(&dead_letters),
            acks: source.acks(),
            admission,
            metrics: metrics.clone(),
            activity: intake_activity.clone(),
        };
        supervisor.thread(INTAKE, move || intake.run().map_err(Into::into))?;
        supervisor.thread(SOURCE, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(source.run());
            // A lookup of the broker's name that hangs is not waited for.
            runtime.shutdown_background();
            Ok(())
        })?;

        let stop_flusher = CancellationToken::new();
        let parts = flusher::Parts {
            log: log.clone(),
            database,
            dead_letters,
            health: Arc::clone(&health),
            metrics,
            control,
        };
        let flusher_activity = Activity::default();
        let flusher = Flusher::new(parts, config.flusher.clone(), flusher_activity.clone());
        supervisor.task(FLUSHER, flusher.run(stop_flusher.clone()));

        let watched = [(INTAKE, intake_activity), (FLUSHER, flusher_activity)];
        supervisor.task("watchdog", watchdog::run(watched, log.clone(), Arc::clone(&health)));

        let grace = config.shutdown_grace;
        Ok(Self { supervisor, stop_source, stop_flusher, intake_done, http, health, log, grace })
    }

    /// Stops everything in order, within the grace; returns what failed on the way.
    async fn stop(mut self, http_runs: bool) -> Option<Ended> {
        // HTTP comes last and needs its own time.
        let for_http = HTTP_GRACE.min(self.grace / 2);
        let deadline = Instant::now() + self.grace.saturating_sub(for_http);
        let left = || deadline.saturating_duration_since(Instant::now());
        self.health.set_stopping();
        self.stop_source.cancel();
        let intake_ended = self.supervisor.await_end(INTAKE, left()).await;
        if self.log.is_poisoned() {
            self.health.set_wal(WalState::Failed);
        }
        self.intake_done.cancel();
        let source_ended = self.supervisor.await_end(SOURCE, left()).await;
        self.stop_flusher.cancel();
        let flusher_ended = self.supervisor.await_end(FLUSHER, left()).await;
        if !(intake_ended && source_ended && flusher_ended) {
            tracing::warn!(
                still_running = ?self.supervisor.running(),
                "the grace is over: leaving the rest to the next start, nothing acknowledged is lost"
            );
        }
        let pending = self.log.stats().pending_records;
        if http_runs {
            self.http.shutdown();
            match tokio::time::timeout(left() + for_http, self.http.finished()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "HTTP did not stop in order"),
                Err(_) => tracing::debug!("clients kept HTTP from stopping in time"),
            }
        }
        tracing::info!(
            pending,
            "stopped; pending readings are in the log and are flushed after the next start"
        );
        self.supervisor.take_failure()
    }
}

fn open_log(config: &Config, metrics: &Metrics) -> anyhow::Result<(Writer, Log)> {
    let started = Instant::now();
    let dir: &Path = &config.wal.dir;
    let limits = Limits {
        max_bytes: config.wal.max_bytes,
        min_free_bytes: config.wal.min_free_bytes,
        generation_bytes: config.wal.generation_bytes,
    };
    let storage = SledStorage::open(dir).with_context(|| format!("WAL_DIR {}", dir.display()))?;
    let (writer, log) = wal::log::open(Box::new(storage), limits, metrics)
        .with_context(|| format!("the log in {}", dir.display()))?;
    metrics.wal_max_bytes.set(i64::try_from(limits.max_bytes).unwrap_or(i64::MAX));
    let stats = log.stats();
    tracing::info!(
        dir = %dir.display(),
        pending_records = stats.pending_records,
        next_offset = stats.next_offset,
        generations = stats.generations.len(),
        disk_bytes = stats.disk_bytes,
        open_ms = started.elapsed().as_millis(),
        "log opened"
    );
    Ok((writer, log))
}

/// Brings what is computed only when somebody looks up to date.
fn refresh(
    log: &Log,
    history: &Arc<History>,
    metrics: &Metrics,
    output: &Output,
) -> Arc<dyn Fn() + Send + Sync> {
    let (log, history, metrics) = (log.clone(), Arc::clone(history), metrics.clone());
    let output = output.clone();
    Arc::new(move || {
        let space = history.space(&log);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.wal_pending_records.set(gauge(log.stats().pending_records));
        metrics.wal_disk_bytes.set(gauge(space.used_bytes));
        metrics.wal_left_bytes.set(gauge(space.left_bytes()));
        metrics.wal_oldest_pending_seconds.set(log.oldest_pending_seconds());
        let dropped = output.dropped().saturating_sub(metrics.log_lines_dropped.get());
        metrics.log_lines_dropped.inc_by(dropped);
    })
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

struct StopSignals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: unix_signal(SignalKind::terminate())?,
            interrupt: unix_signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
