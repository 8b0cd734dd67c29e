//! `POST /admin/dead-letters/<id>/replay` and `POST /admin/dead-letters/replay`.

use rocket::serde::json::Json;
use rocket::{Route, State, post, routes};
use serde::Serialize;
use utoipa::ToSchema;

use super::letter_id::{LetterId, NO_LETTER, NoLetter};
use super::replayer::ReplayedLetters;
use crate::http::error::ApiError;
use crate::http::guards::Operator;
use crate::http::query::RawQuery;
use crate::http::state::AppState;

pub(super) fn routes() -> Vec<Route> {
    routes![replay, replay_all]
}

/// Replay a dead letter
///
/// The dead letter is decoded and validated again, like a message that arrives now. If all of it is valid,
/// its readings are written to the log, and the letter is removed once they are durable there. Of a dead letter
/// that holds several readings the valid ones are written to the log also if others are still invalid; it is kept then.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/dead-letters/{id}/replay",
    params(LetterId),
    responses(
        (status = 200, description = "The readings are in the log, and the dead letter was removed.", body = ReplayedLetter),
        NoLetter,
        (
            status = 422,
            description = "The dead letter is still invalid, for the reason given, and was kept.",
            body = crate::http::error::Body,
            example = json!({"error": "temperature 400 is outside -50 to 100"}),
        ),
        (
            status = 503,
            description = "The log is full, or the service is stopping.",
            body = crate::http::error::Body,
            example = json!({"error": "the log is full; try again when it has drained"}),
        ),
    )
)]
#[post("/dead-letters/<id>/replay")]
pub(in crate::http) async fn replay(
    _operator: Operator,
    id: Option<u64>,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<ReplayedLetter>, ApiError> {
    query.must_be_empty()?;
    let id = id.ok_or(NO_LETTER)?;
    match state.replayer.one(id).await? {
        (readings, None) => {
            tracing::info!(
                id,
                readings,
                "admin: dead letter replayed, its readings are in the log"
            );
            Ok(Json(ReplayedLetter { id, readings }))
        }
        (0, Some(fault)) => Err(ApiError::Unfit(fault)),
        (readings, Some(fault)) => {
            tracing::info!(
                id,
                readings,
                "admin: dead letter replayed in part, its good readings are in the log"
            );
            Err(ApiError::Unfit(format!("{fault}; {readings} of its readings are in the log")))
        }
    }
}

/// Replay all dead letters
///
/// Each dead letter is replayed as if it were alone; those that are still invalid are kept, also where a part
/// of their readings is valid and was written to the log. Dead letters that arrive meanwhile are not replayed.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/dead-letters/replay",
    responses(
        (status = 200, description = "The numbers of dead letters replayed and kept.", body = ReplayedLetters),
        (
            status = 503,
            description = "The log is full, or the service is stopping; dead letters that were not replayed are kept.",
            body = crate::http::error::Body,
            example = json!({"error": "the log is full; try again when it has drained; 12 dead letters were replayed before that"}),
        ),
    )
)]
#[post("/dead-letters/replay")]
pub(in crate::http) async fn replay_all(
    _operator: Operator,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<ReplayedLetters>, ApiError> {
    query.must_be_empty()?;
    let mut tally = ReplayedLetters::default();
    let outcome = state.replayer.all(&mut tally).await;
    let ReplayedLetters { replayed, still_bad, in_part } = tally;
    if replayed + in_part > 0 {
        tracing::info!(
            replayed,
            still_bad,
            in_part,
            "admin: dead letters replayed, their readings are in the log"
        );
    }
    match outcome {
        Ok(()) => Ok(Json(tally)),
        Err(ApiError::Unavailable(problem)) if replayed > 0 => Err(ApiError::Unavailable(
            format!("{problem}; {replayed} dead letters were replayed before that").into(),
        )),
        Err(error) => Err(error),
    }
}

/// A dead letter that was replayed.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct ReplayedLetter {
    /// The id of the dead letter that was removed.
    #[schema(example = 7)]
    id: u64,
    /// The number of readings in it.
    #[schema(example = 1)]
    readings: usize,
}
