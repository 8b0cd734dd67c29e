//! Starts the parts, each as a task or thread with a name and an owner: HTTP first, so that it can be
//! asked from the start, then intake, source and flusher.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::build::{Shared, build};
use super::config::Config;
use super::housekeeping;
use super::last_values::LastValuesAgain;
use super::reload::Reload;
use super::silent_devices;
use super::supervisor::Supervisor;
use super::watchdog;
use crate::base::activity::Activity;
use crate::base::output::Output;
use crate::flusher::{self, Flusher};
use crate::http::{self, Access, AppState, Description, Inlet, Replayer, Tables};
use crate::intake::Intake;
use crate::mqtt::{Source, SourceParts};
use crate::recent::{Recent, Silence};
use crate::status::health::Health;
use crate::wal::Log;

pub(super) const INTAKE: &str = "intake";
pub(super) const SOURCE: &str = "mqtt source";
pub(super) const FLUSHER: &str = "flusher";
pub(super) const HTTP: &str = "http";

/// All that runs, and what stops it.
pub(super) struct Service {
    pub(super) supervisor: Supervisor,
    pub(super) stop_source: CancellationToken,
    pub(super) stop_flusher: CancellationToken,
    pub(super) intake_done: CancellationToken,
    pub(super) http: http::Running,
    pub(super) reload: Reload,
    pub(super) health: Arc<Health>,
    pub(super) log: Log,
    pub(super) grace: Duration,
}

/// Builds and starts all of it.
///
/// # Errors
/// If a part cannot be built, or cannot be started.
pub(super) async fn start(config: Config, output: &Output) -> anyhow::Result<Service> {
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let shared = build(&config)?;
    let state = http_state(&config, &shared, output);
    let last_values = LastValuesAgain::of(&state);
    let recent = Arc::clone(&state.recent);
    let http = http::serve(&config.http, state).await?;
    let Shared { metrics, health, log, dead_letters, clock, .. } = shared;

    let mut supervisor = Supervisor::default();
    supervisor.task("history", shared.history.record(metrics.clone(), log.clone()));
    supervisor.task("silent devices", silent_devices::count(recent, metrics.clone()));
    let removals = Arc::clone(&dead_letters);
    // Whoever stores letters hears of it, and ends. Removals are asked for by HTTP, which goes on.
    supervisor.task("dead letters", async move { Err(anyhow::anyhow!(removals.failed().await)) });
    let stop_source = CancellationToken::new();
    let intake_done = CancellationToken::new();
    let parts = SourceParts {
        deliveries: shared.deliveries,
        room: log.room(),
        stop: stop_source.clone(),
        intake_done: intake_done.clone(),
        dir: config.wal.dir.clone(),
        has_history: log.stats().next_offset > 0,
        uses_arrival: config.mappings.use_arrival(),
        health: Arc::clone(&health),
        metrics: metrics.clone(),
    };
    let source = Source::new(config.subscriber(), parts);
    let (broker, database) = (source.credentials(), shared.database.clone());
    let reload = Reload { http: http.secrets(), broker, database };
    let intake_activity = Activity::new(Arc::clone(&clock));
    let intake = Intake {
        inbound: shared.inbound,
        writer: shared.writer,
        room: log.room(),
        dead_letters: Arc::clone(&dead_letters),
        acks: source.acks(),
        admission: shared.admission,
        arrivals: shared.arrivals,
        seen: shared.seen,
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

    let upkeep = shared.database.clone().upkeep();
    supervisor.task("upkeep of the table", async {
        upkeep.await;
        Ok(())
    });
    let retention = shared.database.clone().retain();
    supervisor.task("retention", async {
        retention.await;
        Ok(())
    });
    let stop_flusher = CancellationToken::new();
    let database_health = Arc::clone(&health);
    let parts = flusher::Parts {
        log: log.clone(),
        sink: shared.database,
        dead_letters,
        on_database: Arc::new(move |is_up| {
            database_health.set_database_up(is_up);
        }),
        metrics,
        control: shared.control,
    };
    let flusher_activity = Activity::new(Arc::clone(&clock));
    let flusher = Flusher::new(parts, &config.flusher, flusher_activity.clone());
    let flusher = flusher.run(stop_flusher.clone());
    supervisor.task(FLUSHER, async { flusher.await.map_err(Into::into) });

    supervisor.task("last values of devices", last_values.run());

    let maintenance = Activity::new(Arc::clone(&clock));
    let work = housekeeping::run(log.clone(), Arc::clone(&health), maintenance.clone());
    supervisor.task("housekeeping", work);
    let watched = vec![
        (INTAKE, intake_activity),
        (FLUSHER, flusher_activity),
        ("maintenance of the log", maintenance),
    ];
    supervisor.task("watchdog", watchdog::run(watched, clock));

    let grace = config.shutdown_grace;
    Ok(Service {
        supervisor,
        stop_source,
        stop_flusher,
        intake_done,
        http,
        reload,
        health,
        log,
        grace,
    })
}

fn http_state(config: &Config, shared: &Shared, output: &Output) -> AppState {
    let Shared { clock, metrics, health, history, log, dead_letters, .. } = shared;
    let inlet = Arc::new(Inlet::new(shared.deliveries.downgrade(), shared.admission.clone()));
    let replayer = Replayer::new(Arc::clone(&inlet), Arc::clone(dead_letters));
    let tables = Arc::new(Tables::of(&config.mappings));
    let silence = Silence::of(&config.recent, &config.mappings);
    AppState {
        instance: config.mqtt.client_id.as_str().into(),
        clock: Arc::clone(clock),
        metrics: metrics.clone(),
        health: Arc::clone(health),
        history: Arc::clone(history),
        database: shared.database.clone(),
        recent: Recent::new(log.clone(), silence, Arc::clone(clock)),
        description: Description::of(&tables),
        tables,
        seen: shared.seen.clone(),
        refresh: housekeeping::refresh(log, history, metrics, &shared.database, output),
        access: Arc::new(Access::new(config.http.tokens.clone(), metrics.clone())),
        log: log.clone(),
        flusher: Arc::clone(&shared.control),
        dead_letters: Arc::clone(dead_letters),
        inlet,
        replayer: Arc::new(replayer),
    }
}
