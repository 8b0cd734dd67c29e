//! `POST /admin/flusher/pause`, `POST /admin/flusher/resume` and `POST /admin/flusher/reject`.

use rocket::serde::json::Json;
use rocket::{Route, State, post, routes};
use serde::Serialize;
use utoipa::ToSchema;

use crate::flusher::{self, Control};
use crate::http::error::ApiError;
use crate::http::guards::Operator;
use crate::http::query::RawQuery;
use crate::http::state::AppState;

pub(super) fn routes() -> Vec<Route> {
    routes![pause, resume, reject]
}

/// Stop writing to the database
///
/// Batches in flight are finished. Readings are still taken in and wait in the log until the flusher is
/// resumed or the service is restarted.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/flusher/pause",
    responses((status = 200, description = "The state of the flusher.", body = Status))
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

/// Resume writing to the database
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/flusher/resume",
    responses((status = 200, description = "The state of the flusher.", body = Status))
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

/// Turn the rows that the database refuses into dead letters
///
/// While the table itself is at fault, refused readings wait in the log. This turns them into dead
/// letters all the same, and those that are refused after them, until the database accepts a reading
/// again. Dead letters can be replayed.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/flusher/reject",
    responses((status = 200, description = "The state of the flusher.", body = Status))
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

/// The state of the flusher, which writes the log to the database.
#[derive(Serialize, ToSchema)]
#[schema(as = Flusher)]
pub(in crate::http) struct Status {
    state: FlusherState,
    /// Failed attempts since the last success.
    #[schema(example = 0)]
    consecutive_failures: u64,
    /// The last failure, kept after it is over; null if there was none.
    #[schema(required, example = json!(null))]
    last_error: Option<String>,
    /// Seconds until the next attempt; null unless the flusher is backing off.
    #[schema(required, minimum = 0, example = json!(null))]
    retry_in_seconds: Option<f64>,
}

/// `idle`: nothing waits. `flushing`: batches are in flight. `backing_off`: the database failed, and the
/// next attempt follows after a pause. `paused`: an operator has paused it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FlusherState)]
enum FlusherState {
    Idle,
    Flushing,
    BackingOff,
    Paused,
}

impl Status {
    /// Its present state.
    pub(super) fn of(flusher: &Control) -> Self {
        let flusher::Status { state, consecutive_failures, last_error, retry_in_seconds, .. } =
            flusher.status();
        let state = match state {
            flusher::State::Idle => FlusherState::Idle,
            flusher::State::Flushing => FlusherState::Flushing,
            flusher::State::BackingOff => FlusherState::BackingOff,
            flusher::State::Paused => FlusherState::Paused,
        };
        Self { state, consecutive_failures, last_error, retry_in_seconds }
    }
}
