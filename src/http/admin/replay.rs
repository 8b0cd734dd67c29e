//! `POST /admin/dead-letters/<id>/replay` and `POST /admin/dead-letters/replay`.
//!
//! A letter is removed only once its readings are durable in the log. A process that ends between
//! the two leaves a letter whose replay finds its rows in the table already.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::Arc;

use rocket::serde::json::Json;
use rocket::{Route, State, post, routes};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::blocking;
use super::dead_letters::{LetterId, NO_LETTER, NoLetter};
use crate::base::time::Timestamp;
use crate::dead_letters::{DeadLetter, DeadLetterError, DeadLetters, PAYLOAD_MAX_BYTES};
use crate::http::AppState;
use crate::http::access::Operator;
use crate::http::error::ApiError;
use crate::http::inlet::Inlet;
use crate::http::query::RawQuery;
use crate::telemetry::Record;
use crate::telemetry::mapping::{MappedReading, Message};
use crate::telemetry::rejection::Stage;
use crate::telemetry::validate::TimeOfDay;

/// Letters that are read, and put back, at once.
const STEP: usize = 32;

pub(super) fn routes() -> Vec<Route> {
    routes![replay, replay_all]
}

/// Replay a dead letter
///
/// The dead letter is decoded and validated again, like a message that arrives now. If all of it is valid,
/// its readings are written to the log, and the letter is removed once they are durable there.
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
    let readings = state.replayer.one(id).await?;
    tracing::info!(id, readings, "admin: dead letter replayed, its readings are in the log");
    Ok(Json(ReplayedLetter { id, readings }))
}

/// Replay all dead letters
///
/// Each dead letter is replayed as if it were alone; those that are still invalid are kept. Dead letters
/// that arrive meanwhile are not replayed.
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
    let ReplayedLetters { replayed, still_bad } = tally;
    if replayed > 0 {
        tracing::info!(
            replayed,
            still_bad,
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

/// The outcome of replaying all dead letters.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub(in crate::http) struct ReplayedLetters {
    /// Dead letters whose readings are in the log, and that were removed.
    #[schema(example = 12)]
    replayed: u64,
    /// Dead letters that are still invalid, and were kept.
    #[schema(example = 3)]
    still_bad: u64,
}

/// Puts dead letters back into the log, as good as new.
pub(crate) struct Replayer {
    inlet: Arc<Inlet>,
    dead_letters: Arc<DeadLetters>,
    /// One replay at a time, so that no letter goes into the log twice.
    turn: Mutex<()>,
}

impl Replayer {
    /// Replays through `inlet`, by what messages have to keep to.
    #[must_use]
    pub(crate) fn new(inlet: Arc<Inlet>, dead_letters: Arc<DeadLetters>) -> Self {
        Self { inlet, dead_letters, turn: Mutex::new(()) }
    }

    /// Replays the letter `id`; returns the number of its readings.
    async fn one(&self, id: u64) -> Result<usize, ApiError> {
        let _turn = self.turn.lock().await;
        let store = Arc::clone(&self.dead_letters);
        let letter = blocking(move || store.get(id)).await?.ok_or(NO_LETTER)?;
        let readings = self.read(&letter).map_err(ApiError::Unfit)?;
        let count = readings.len();
        self.inlet.commit(readings, false).await?;
        self.remove(vec![id]).await?;
        Ok(count)
    }

    /// Replays as many letters as there are now, from the oldest on.
    async fn all(&self, tally: &mut ReplayedLetters) -> Result<(), ApiError> {
        let _turn = self.turn.lock().await;
        let mut after = None;
        let mut left = None;
        loop {
            let store = Arc::clone(&self.dead_letters);
            let page = blocking(move || store.page(after, STEP)).await?;
            let before = left.unwrap_or(page.total);
            let mut readings = Vec::new();
            let mut good = Vec::new();
            let mut bad = 0;
            for letter in &page.letters {
                match self.read(letter) {
                    Ok(read) => {
                        readings.extend(read);
                        good.push(letter.id);
                    }
                    Err(_) => bad += 1,
                }
            }
            if !good.is_empty() {
                let replayed = good.len() as u64;
                self.inlet.commit(readings, false).await?;
                tally.replayed += replayed;
                self.remove(good).await?;
            }
            tally.still_bad += bad;
            after = page.next;
            left = before.checked_sub(STEP as u64).filter(|left| *left > 0);
            if after.is_none() || left.is_none() {
                return Ok(());
            }
        }
    }

    /// The readings in a letter, if all of them are good now; else the first one's fault.
    fn read(&self, letter: &DeadLetter) -> Result<Vec<Record>, String> {
        let kept = letter.payload.len();
        let clock = TimeOfDay::at(Timestamp::now());
        let outcome = if letter.stage == Stage::Database.as_str() {
            // An acknowledged reading: no mapping is asked again.
            match MappedReading::from_json(&letter.payload) {
                Some(row) => Ok(vec![row.into()]),
                None => self
                    .inlet
                    .admission
                    .admit_all(&letter.payload, clock)
                    .map(|readings| readings.into_iter().map(Record::from).collect()),
            }
        } else {
            let received_at = letter.received_at;
            let (topic, payload) = (letter.topic.as_str(), letter.payload.as_slice());
            let message = Message { topic, payload, is_retained: false, received_at };
            self.inlet.admission.receive_all(message, clock)
        };
        outcome.map_err(|rejection| {
            if kept >= PAYLOAD_MAX_BYTES && kept <= self.inlet.admission.max_payload_bytes {
                format!("{rejection}; of its payload the first {PAYLOAD_MAX_BYTES} bytes were kept")
            } else {
                rejection.message.into_owned()
            }
        })
    }

    /// Removes letters whose readings are in the log, as far as nobody else has.
    async fn remove(&self, ids: Vec<u64>) -> Result<(), ApiError> {
        let store = Arc::clone(&self.dead_letters);
        blocking(move || {
            for id in ids {
                store.remove(id)?;
            }
            Ok::<_, DeadLetterError>(())
        })
        .await
    }
}
