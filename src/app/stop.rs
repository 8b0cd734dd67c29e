//! The orderly stop.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::time::{Duration, Instant};

use super::start::{FLUSHER, INTAKE, SOURCE, Service};
use super::supervisor::Ended;
use crate::status::health::WalState;

/// What HTTP needs to stop while a client holds on to its connection.
const HTTP_GRACE: Duration = Duration::from_millis(2_200);

/// Stops everything in order, within the grace; returns what failed on the way.
pub(super) async fn stop(mut service: Service, http_runs: bool) -> Option<Ended> {
    // HTTP comes last and needs its own time.
    let for_http = HTTP_GRACE.min(service.grace / 2);
    let deadline = Instant::now() + service.grace.saturating_sub(for_http);
    let left = || deadline.saturating_duration_since(Instant::now());
    service.health.set_stopping();
    service.stop_source.cancel();
    let intake_ended = service.supervisor.await_end(INTAKE, left()).await;
    if service.log.is_poisoned() {
        service.health.set_wal(WalState::Failed);
    }
    service.intake_done.cancel();
    let source_ended = service.supervisor.await_end(SOURCE, left()).await;
    service.stop_flusher.cancel();
    let flusher_ended = service.supervisor.await_end(FLUSHER, left()).await;
    if !(intake_ended && source_ended && flusher_ended) {
        tracing::warn!(
            still_running = ?service.supervisor.running(),
            "the grace is over: leaving the rest to the next start, nothing acknowledged is lost"
        );
    }
    let pending = service.log.stats().pending_records;
    if http_runs {
        service.http.shutdown();
        match tokio::time::timeout(left() + for_http, service.http.finished()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "HTTP did not stop in order"),
            Err(_) => tracing::debug!("clients kept HTTP from stopping in time"),
        }
    }
    tracing::info!(
        pending,
        "stopped; pending readings are in the log and are flushed after the next start"
    );
    service.supervisor.take_failure()
}
