//! `GET /health/live` and `GET /health/ready`, for orchestrators and load balancers.

use rocket::http::Status;
use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::ToSchema;

use super::state::AppState;
use crate::status::health::{Report, WalState};

pub(super) fn routes() -> Vec<Route> {
    routes![live, ready]
}

/// Liveness: whether the process works
#[utoipa::path(
    get,
    tag = "health",
    path = "/health/live",
    responses((status = 200, description = "The process works.", body = Live))
)]
#[get("/live")]
pub(super) fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

/// Readiness: whether messages are taken in
///
/// The service is ready while the broker is connected, every topic filter is granted, and the log accepts
/// writes. A database outage is reported here and does not make the service unready.
#[utoipa::path(
    get,
    tag = "health",
    path = "/health/ready",
    responses(
        (status = 200, description = "The service takes messages in.", body = Ready),
        (
            status = 503,
            description = "The service takes no messages in; the body says which part is the reason.",
            body = Ready,
            example = json!({"status": "not_ready", "mqtt": "disconnected", "wal": "ok", "database": "up"}),
        ),
    )
)]
#[get("/ready")]
pub(super) fn ready(state: &State<AppState>) -> (Status, Json<Ready>) {
    let report = state.health.report();
    let status = if report.is_ready() { Status::Ok } else { Status::ServiceUnavailable };
    (status, Json(Ready::from(report)))
}

/// The process works.
#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    #[schema(example = "live")]
    status: &'static str,
}

/// The state of each part of the service.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// Whether messages are taken in: `ready` or `not_ready`.
    #[schema(pattern = "^(ready|not_ready)$", example = "ready")]
    status: &'static str,
    /// `connected`; `unsubscribed`: connected, but the broker has not granted every topic filter;
    /// `disconnected`.
    #[schema(pattern = "^(connected|unsubscribed|disconnected)$", example = "connected")]
    mqtt: &'static str,
    /// `ok`; `full`: no writes until there is room again; `failed`: a commit failed, and the process is
    /// about to end.
    #[schema(value_type = String, pattern = "^(ok|full|failed)$", example = "ok")]
    wal: WalState,
    /// Whether the database answers: `up` or `down`.
    #[schema(pattern = "^(up|down)$", example = "up")]
    database: &'static str,
}

impl From<Report> for Ready {
    fn from(report: Report) -> Self {
        let Report { status, mqtt, wal, database } = report;
        Self { status, mqtt, wal, database }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::metrics::Metrics;
    use crate::base::time::SystemClock;
    use crate::status::health::Health;

    #[test]
    fn the_body_is_that_of_the_contract() {
        let health = Health::new(Metrics::new().unwrap(), Arc::new(SystemClock::default()));
        let body = || serde_json::to_string(&Ready::from(health.report())).unwrap();
        assert_eq!(
            body(),
            r#"{"status":"not_ready","mqtt":"disconnected","wal":"ok","database":"down"}"#
        );
        health.set_mqtt_connected(true);
        health.set_database_up(true);
        assert_eq!(body(), r#"{"status":"ready","mqtt":"connected","wal":"ok","database":"up"}"#);
        health.set_wal(WalState::Failed);
        assert_eq!(
            body(),
            r#"{"status":"not_ready","mqtt":"connected","wal":"failed","database":"up"}"#
        );
    }
}
