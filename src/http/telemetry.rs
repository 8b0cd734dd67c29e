//! `GET /api/v1/telemetry`: readings of table and log, newest first, by offset or by cursor.

use std::sync::Arc;

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;
use super::exchange::Exchange;
use super::export::{self, Accepted, Answered};
use super::guards::Reader;
use super::measured::{Measured, Shown};
use super::query::{Parameters, RawQuery};
use super::selection::{Selection, Wanted};
use super::state::AppState;
use super::together::{self, Partial, Question};
use crate::base::time::Timestamp;
use crate::postgres::{Cursor, Position, StoredReading, TelemetryFilter};

pub(super) fn routes() -> Vec<Route> {
    routes![telemetry]
}

/// Readings, newest first
///
/// Pages are reached by `offset` or, at a cost that does not grow with depth, by `cursor`. A reading is there
/// as soon as it is acknowledged, whether it is in the database yet or not. While the database does not answer,
/// what waits in the log is shown, and `partial` is true.
#[utoipa::path(
    get,
    tag = "data",
    path = "/api/v1/telemetry",
    params(Query, Wanted, export::Wanted),
    responses(
        (
            status = 200,
            description = "A page of readings, or all of them as a file.",
            content((Answer = "application/json"), (String = "text/csv"), (String = "application/x-ndjson")),
        ),
        (
            status = 503,
            description = "The database does not answer, or has no table yet, and the log has nothing to answer with.",
            body = super::error::Body,
            example = json!({"error": "the database does not answer; try again in a moment"}),
        ),
    )
)]
#[get("/telemetry")]
pub(super) async fn telemetry(
    _reader: Reader,
    query: RawQuery<'_>,
    accepted: Accepted,
    exchange: Exchange,
    turns: &State<export::Turns>,
    state: &State<AppState>,
) -> Result<Answered<Answer>, ApiError> {
    let parameters = query.parameters(KNOWN)?;
    if let Some(format) = accepted.file(&parameters)? {
        let file = export::telemetry(state, &exchange, turns, format, &parameters).await?;
        return Ok(Answered::File(file));
    }
    let Query { device_id, start, end, limit, offset, cursor } = Query::read(&parameters)?;
    let Selection { relation, shown } = Selection::read(state, &parameters).await?;
    let filter = TelemetryFilter { device_id, start, end };
    let position = cursor.map_or(Position::Offset(offset), Position::After);
    let page = together::telemetry(state, &Question { relation, filter, position, limit }).await?;
    Ok(Answered::Page(Json(Answer {
        data: page.readings.into_iter().map(|reading| item(reading, shown.as_ref())).collect(),
        total: page.total.rows,
        total_exact: page.total.exact,
        limit,
        offset,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
        partial: page.partial.is_some(),
        complete_from: page.partial,
    })))
}

/// The parameters that there are.
const KNOWN: &[&str] =
    &["device_id", "start", "end", "limit", "offset", "cursor", "table", "fields", "format"];

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// Only readings of this device.
    #[param(required = false, min_length = 1, max_length = 128, example = "sensor-001")]
    device_id: Option<String>,
    /// Only readings at or after this time: ISO 8601, a date or a time with any offset, in UTC if it has
    /// none.
    #[param(required = false, value_type = String, format = DateTime, example = "2025-10-05T00:00:00Z")]
    start: Option<Timestamp>,
    /// Only readings at or before this time, which must not be before `start`. A date means the whole day.
    #[param(required = false, value_type = String, format = DateTime, example = "2025-10-06T00:00:00Z")]
    end: Option<Timestamp>,
    /// The most readings to return.
    #[param(required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
    /// The number of readings to skip; not together with `cursor`.
    #[param(required = false, minimum = 0, maximum = 4_294_967_295_u32, default = 0)]
    offset: u32,
    /// The `next_cursor` of the previous page.
    #[param(required = false, value_type = String, min_length = 1, max_length = 1024)]
    cursor: Option<Cursor>,
}

impl Query {
    fn read(parameters: &Parameters) -> Result<Self, ApiError> {
        let (start, end) = parameters.range()?;
        Ok(Self {
            device_id: parameters.device_id()?,
            start,
            end,
            limit: parameters.limit()?,
            offset: parameters.offset()?,
            cursor: parameters.cursor()?,
        })
    }
}

/// A page of readings, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Readings)]
pub(super) struct Answer {
    data: Vec<Item>,
    /// The number of readings that match, counted up to 100,000.
    #[schema(example = 1)]
    total: u64,
    /// Whether `total` is exact; false if more readings match than were counted.
    #[schema(example = true)]
    total_exact: bool,
    /// The `limit` of the request.
    #[schema(example = 100)]
    limit: u32,
    /// The `offset` of the request.
    #[schema(example = 0)]
    offset: u32,
    /// The `cursor` of the next page; null at the end. A page that is `partial` may be short, or empty, and not be
    /// the last.
    #[schema(required, example = json!(null))]
    next_cursor: Option<String>,
    /// Whether readings may be missing: the database does not answer and the log alone was asked, or so much waits
    /// in the log that not all of it was looked through.
    #[schema(example = false)]
    partial: bool,
    /// If `partial`: the time from which on nothing is missing that this service has received; null if nothing
    /// is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, example = "2025-10-05T12:34:56Z")]
    complete_from: Option<Partial>,
}

/// One measurement of one device.
#[derive(Serialize, ToSchema)]
#[schema(as = Reading)]
struct Measurement {
    #[schema(example = "sensor-001")]
    device_id: String,
    /// When the device measured, in UTC. It is null if another program has stored a row whose time is
    /// infinity or lies outside the years 0 to 9999.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2025-10-05T12:34:56Z")]
    timestamp: Option<Timestamp>,
    /// Why `timestamp` is null; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, example = "the row's time is infinity")]
    note: Option<&'static str>,
}

type Item = Measured<Measurement>;

fn item(reading: StoredReading, shown: Option<&Arc<[Shown]>>) -> Item {
    let note = reading.note();
    let StoredReading { device_id, timestamp, values, .. } = reading;
    Item::stored(Measurement { device_id, timestamp, note }, values, shown)
}
