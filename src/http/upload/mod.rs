//! `POST /api/v1/telemetry`: readings by HTTP, through the validation and the log of messages.
//!
//! | what | bound |
//! |---|---|
//! | bodies that are read at once | [`BODIES`]; one more is a 503 |
//! | a reading, a line, a record | `MQTT_MAX_PAYLOAD_BYTES`, as for a message |
//! | memory of a body | a group of readings, and the text of one |
//! | a client that sends nothing | [`SILENCE`] |
//!
//! A body is taken in groups, each durable before the next is read, so that a client is slowed down to what the
//! log takes. What was committed before a body is broken off stays; sent again it makes the same rows. What is
//! rejected is in the answer and makes no dead letter: whoever has sent it has it still.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use rocket::request::{FromRequest, Outcome};
use rocket::serde::json::Json;
use rocket::{Request, Route, State, async_trait, post, routes};
use tokio::sync::Semaphore;
use utoipa::IntoParams;

use super::error::ApiError;
use super::exchange::Exchange;
use super::guards::Operator;
use super::query::{Parameters, RawQuery, bad};
use super::state::AppState;

mod feed;
mod piece;
mod reader;
mod records;
mod split;
mod values;

use feed::{Feed, Uploaded};
use reader::{Kind, Reader};

/// Bodies that are read at once.
const BODIES: usize = 4;

/// Of a topic: the head of a request has no room for more, as each may take twelve bytes.
const TOPIC_MAX_CHARS: usize = 512;

/// How long a body waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Vec<Route> {
    routes![upload]
}

/// Whose turn it is to send a body.
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(BODIES))
    }
}

/// Store readings
///
/// They take the way of messages: the same validation, the same log. The answer comes once all of it is
/// durable there. `application/json` is a reading or an array of them, `application/x-ndjson` one or an array
/// a line, `text/csv` has a header with the names of the columns. A line with a key `table`, as `ingestor wal
/// export` writes it, is a row of that table. Sent twice it makes the same rows, so that whatever was broken
/// off can be sent again.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/api/v1/telemetry",
    params(Query),
    request_body(
        description = "Readings.",
        content(
            (Object = "application/json", example = json!({"device_id": "sensor-001", "timestamp": "2025-10-05T12:34:56Z", "temperature": 23.5, "humidity": 65.2, "battery": 87.3})),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
        ),
    ),
    responses(
        (status = 200, description = "The valid readings are in the log.", body = Uploaded),
        (
            status = 413,
            description = "The body is a single reading, or a single message, and it is too long.",
            body = super::error::Body,
            example = json!({"error": "the one reading of the body has more than 65536 bytes; send an array, or lines of NDJSON"}),
        ),
        (
            status = 415,
            description = "The content type of the body is not supported.",
            body = super::error::Body,
            example = json!({"error": "`Content-Type` must be application/json, application/x-ndjson or text/csv"}),
        ),
        (
            status = 503,
            description = "The log is full, too many bodies are being read already, or the service is stopping.",
            body = super::error::Body,
            example = json!({"error": "the log is full; try again when it has drained; none of it is stored"}),
        ),
    )
)]
#[post("/telemetry")]
pub(super) async fn upload(
    _operator: Operator,
    query: RawQuery<'_>,
    sent: Sent,
    exchange: Exchange,
    turns: &State<Turns>,
    state: &State<AppState>,
) -> Result<Json<Uploaded>, ApiError> {
    let parameters = query.parameters(&["table", "topic", "count_known"])?;
    let Query { table, topic, count_known } = Query::read(&parameters)?;
    let kind = sent.kind(topic.is_some())?;
    let mut reader = Reader::new(state, kind, table.as_deref(), topic)?;
    let turn = tokio::time::timeout(PATIENCE, turns.0.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        let what = "too many bodies are being read already; try again in a moment";
        return Err(ApiError::unavailable(what));
    };
    let Some(mut body) = exchange.take_upload() else {
        return Err(ApiError::internal(&"a request has no body"));
    };
    let mut feed = Feed::new(state, count_known);
    let read = read(&mut body, &mut reader, &mut feed).await;
    let read = match read {
        Ok(()) => feed.commit().await,
        failed => failed,
    };
    read.map_err(|error| error.with(&feed.so_far()))?;
    Ok(Json(feed.finish()))
}

async fn read(
    body: &mut Incoming,
    reader: &mut Reader<'_>,
    feed: &mut Feed<'_>,
) -> Result<(), ApiError> {
    while let Some(bytes) = next(body).await? {
        reader.push(&bytes, feed)?;
        feed.commit_if_due().await?;
    }
    reader.finish(feed)
}

/// The next bytes of a body; `None` at its end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, ApiError> {
    let broken_off = |why: &str| ApiError::BadRequest(format!("the body was broken off: {why}"));
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        match frame {
            Err(_) => return Err(broken_off("nothing came for half a minute")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(broken_off("the connection has ended")),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// The readings are rows of this table, one of `/api/v1/tables`; not together with `topic`.
    #[param(required = false, value_type = String, min_length = 1, max_length = 63, example = "telemetry")]
    table: Option<String>,
    /// Each line of NDJSON, or else the whole body, goes through the mappings as a message that was published to
    /// this topic.
    #[param(required = false, value_type = String, min_length = 1, max_length = 512, example = "telemetry/import")]
    topic: Option<String>,
    /// Say how many of the readings the table has already.
    #[param(required = false, default = false)]
    count_known: bool,
}

impl Query {
    fn read(parameters: &Parameters) -> Result<Self, ApiError> {
        let text = |name| parameters.text(name).map(str::to_owned);
        let (table, topic) = (text("table"), text("topic"));
        if table.is_some() && topic.is_some() {
            return Err(bad("table", "cannot be combined with `topic`; drop one"));
        }
        if topic.as_ref().is_some_and(|topic| topic.chars().count() > TOPIC_MAX_CHARS) {
            return Err(bad("topic", "must have at most 512 characters"));
        }
        let count_known = parameters.flag("count_known")?.unwrap_or(false);
        Ok(Self { table, topic, count_known })
    }
}

/// What a request says of its body.
pub(super) struct Sent {
    content_type: Option<String>,
    is_encoded: bool,
}

#[async_trait]
impl<'r> FromRequest<'r> for Sent {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let header = |name| request.headers().get_one(name).map(str::to_ascii_lowercase);
        let encoding = header("Content-Encoding");
        let content_type = header("Content-Type");
        let is_encoded = encoding.is_some_and(|encoding| encoding.trim() != "identity");
        Outcome::Success(Self { content_type, is_encoded })
    }
}

impl Sent {
    fn kind(&self, is_message: bool) -> Result<Kind, ApiError> {
        if self.is_encoded {
            return Err(ApiError::Unsupported("the body must not be compressed".to_owned()));
        }
        let media = self.content_type.as_deref().map(|text| text.split(';').next().unwrap_or(text));
        Ok(match media.map(str::trim) {
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => {
                Kind::Ndjson
            }
            // Whatever it is, the mappings say how it is read.
            _ if is_message => Kind::Message,
            None | Some("" | "application/json" | "text/json") => Kind::Json,
            Some("text/csv") => Kind::Csv,
            Some(_) => {
                let what =
                    "`Content-Type` must be application/json, application/x-ndjson or text/csv";
                return Err(ApiError::Unsupported(what.to_owned()));
            }
        })
    }
}
