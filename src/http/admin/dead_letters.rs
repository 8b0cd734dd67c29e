//! `GET /admin/dead-letters` and `DELETE /admin/dead-letters/<id>`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rocket::serde::json::Json;
use rocket::{Route, State, delete, get, routes};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::blocking::{Busy, Turns};
use super::letter_id::{LetterId, NO_LETTER, NoLetter};
use crate::base::time::Timestamp;
use crate::dead_letters::{DeadLetter, DeadLetterError, DeadLetters};
use crate::http::error::ApiError;
use crate::http::guards::Operator;
use crate::http::query::RawQuery;
use crate::http::state::AppState;

/// Payload bytes after which a page ends before it is full: a letter may hold 64 KiB.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Letters that are read at once: the store is locked meanwhile, and the intake writes to it.
const STEP: usize = 16;

pub(super) fn routes() -> Vec<Route> {
    routes![list, remove]
}

/// Dead letters, oldest first
///
/// A page with long payloads may hold fewer than `limit` letters: continue from `next` until it is null.
#[utoipa::path(
    get,
    tag = "admin",
    path = "/admin/dead-letters",
    params(Query),
    responses((status = 200, description = "A page of dead letters.", body = Page), Busy)
)]
#[get("/dead-letters")]
pub(in crate::http) async fn list(
    _operator: Operator,
    query: RawQuery<'_>,
    turns: &State<Turns>,
    state: &State<AppState>,
) -> Result<Json<Page>, ApiError> {
    let query = Query::read(&query)?;
    let store = Arc::clone(&state.dead_letters);
    turns.blocking(move || Page::read(&store, &query)).await.map(Json)
}

/// Remove a dead letter
#[utoipa::path(
    delete,
    tag = "admin",
    path = "/admin/dead-letters/{id}",
    params(LetterId),
    responses(
        (status = 200, description = "The dead letter was removed.", body = Removed),
        NoLetter,
        Busy,
    )
)]
#[delete("/dead-letters/<id>")]
pub(in crate::http) async fn remove(
    _operator: Operator,
    id: Option<u64>,
    query: RawQuery<'_>,
    turns: &State<Turns>,
    state: &State<AppState>,
) -> Result<Json<Removed>, ApiError> {
    query.must_be_empty()?;
    let id = id.ok_or(NO_LETTER)?;
    let store = Arc::clone(&state.dead_letters);
    if !turns.blocking(move || store.remove(id)).await? {
        return Err(NO_LETTER);
    }
    tracing::info!(id, "admin: dead letter deleted");
    Ok(Json(Removed { deleted: id }))
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// Only dead letters with a greater id: the `next` of the previous page.
    #[param(required = false, minimum = 0, maximum = 18_446_744_073_709_551_615_u64)]
    after: Option<u64>,
    /// The most dead letters to return.
    #[param(required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
}

impl Query {
    fn read(query: &RawQuery<'_>) -> Result<Self, ApiError> {
        let parameters = query.parameters(&["after", "limit"])?;
        Ok(Self { after: parameters.number("after", 0..=u64::MAX)?, limit: parameters.limit()? })
    }
}

/// What was removed.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Removed {
    /// The id of the dead letter that was removed.
    #[schema(example = 7)]
    deleted: u64,
}

/// A page of dead letters, oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub(in crate::http) struct Page {
    dead_letters: Vec<Letter>,
    /// The number of dead letters in the store.
    #[schema(example = 1)]
    total: u64,
    /// The `after` of the next page; null at the end.
    #[schema(required, example = json!(null))]
    next: Option<u64>,
}

impl Page {
    fn read(store: &DeadLetters, query: &Query) -> Result<Self, DeadLetterError> {
        let limit = query.limit as usize;
        let mut letters = Vec::new();
        let mut bytes = 0;
        let mut after = query.after;
        loop {
            let page = store.page(after, STEP.min(limit - letters.len()))?;
            bytes += page.letters.iter().map(|letter| letter.payload.len()).sum::<usize>();
            letters.extend(page.letters.into_iter().map(Letter::from));
            after = page.next;
            if after.is_none() || letters.len() >= limit || bytes >= PAGE_BYTES {
                return Ok(Self { dead_letters: letters, total: page.total, next: after });
            }
        }
    }
}

/// A reading or message that was rejected, and why.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct Letter {
    #[schema(example = 7)]
    id: u64,
    /// When the message was received, in UTC.
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:34:56.123456Z")]
    received_at: Timestamp,
    /// The topic of the message; empty if the database refused the row, since the log keeps no topics.
    #[schema(example = "telemetry/sensor-001")]
    topic: String,
    /// The stage that rejected it.
    #[schema(value_type = Stage)]
    stage: String,
    #[schema(example = "temperature 400 is outside -50 to 100")]
    reason: String,
    /// The payload, up to its first 64 KiB.
    #[schema(
        example = r#"{"device_id":"sensor-001","timestamp":1759667696000,"temperature":400,"humidity":65.2,"battery":87.3}"#
    )]
    payload: String,
    payload_encoding: Encoding,
}

/// `decode`: the payload is not a valid message. `validate`: a value is out of bounds. `database`:
/// PostgreSQL refused the row.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the store keeps the stage as text")]
enum Stage {
    Decode,
    Validate,
    Database,
}

/// `utf8`: the payload as it came. `base64`: the payload is not UTF-8 and is encoded.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PayloadEncoding)]
enum Encoding {
    Utf8,
    Base64,
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { id, received_at, topic, stage, reason, payload } = letter;
        let (payload, payload_encoding) = match String::from_utf8(payload) {
            Ok(text) => (text, Encoding::Utf8),
            Err(bytes) => (BASE64.encode(bytes.as_bytes()), Encoding::Base64),
        };
        Self { id, received_at, topic, stage, reason, payload, payload_encoding }
    }
}
