//! `POST /admin/flusher/pause`, `POST /admin/flusher/resume` and `POST /admin/flusher/reject`.

use rocket::serde::json::Json;
use rocket::{Route, State, post, routes};
use serde::Serialize;
use utoipa::ToSchema;

use crate::flusher::{self, Control};
use crate::http::AppState;
use crate::http::access::Operator;
use crate::http::error::ApiError;
use crate::http::query::RawQuery;

pub(super) fn routes() -> Vec<Route> {
    routes![pause, resume, reject]
}

/// Stop writing to the database
///
/// Batches in flight end; readings go on being taken in and wait in the log until the flusher is
/// resumed or the service starts again.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/flusher/pause",
    responses((status = 200, description = "What it is doing now.", body = Status))
)]
#[post("/flusher/pause")]
pub(in crate::http) fn pause(
    _operator: Operator,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Status>, ApiError> {
    query.must_be_empty()?;
    if state.flusher.pause() {
        tracing::info!("admin: flusher paused, readings wait in the log until it is resumed");
    }
    Ok(Json(Status::of(&state.flusher)))
}

/// Write to the database again
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/flusher/resume",
    responses((status = 200, description = "What it is doing now.", body = Status))
)]
#[post("/flusher/resume")]
pub(in crate::http) fn resume(
    _operator: Operator,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Status>, ApiError> {
    query.must_be_empty()?;
    if state.flusher.resume() {
        tracing::info!("admin: flusher resumed");
    }
    Ok(Json(Status::of(&state.flusher)))
}

/// Make dead letters of what the database refuses
///
/// While the table itself is at fault, refused readings wait in the log. This makes dead letters of
/// them all the same, and of those that are refused after them, until the database accepts a reading
/// again. They can be replayed.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/flusher/reject",
    responses((status = 200, description = "What it is doing now.", body = Status))
)]
#[post("/flusher/reject")]
pub(in crate::http) fn reject(
    _operator: Operator,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Status>, ApiError> {
    query.must_be_empty()?;
    state.flusher.reject();
    tracing::info!(
        "admin: what the database refuses becomes dead letters until it accepts a reading again"
    );
    Ok(Json(Status::of(&state.flusher)))
}

/// What the flusher is doing.
#[derive(Serialize, ToSchema)]
#[schema(as = Flusher)]
pub(in crate::http) struct Status {
    state: Doing,
    /// Failures since the last success.
    #[schema(example = 0)]
    consecutive_failures: u64,
    /// What the last failure was, also when it is over.
    #[schema(required, example = json!(null))]
    last_error: Option<String>,
    /// Seconds until the next attempt, while backing off.
    #[schema(required, minimum = 0, example = json!(null))]
    retry_in_seconds: Option<f64>,
}

/// `idle`: nothing waits. `flushing`: batches are on their way. `backing_off`: the database failed,
/// and the next attempt comes after a pause. `paused`: by an operator.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FlusherState)]
enum Doing {
    Idle,
    Flushing,
    BackingOff,
    Paused,
}

impl Status {
    /// What it is doing now.
    pub(super) fn of(flusher: &Control) -> Self {
        let flusher::Status { state, consecutive_failures, last_error, retry_in_seconds, .. } =
            flusher.status();
        let state = match state {
            flusher::State::Idle => Doing::Idle,
            flusher::State::Flushing => Doing::Flushing,
            flusher::State::BackingOff => Doing::BackingOff,
            flusher::State::Paused => Doing::Paused,
        };
        Self { state, consecutive_failures, last_error, retry_in_seconds }
    }
}
