//! `GET /api/v1/telemetry`: readings, newest first, by offset or by cursor.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;

use super::AppState;
use super::error::ApiError;
use super::query::{Parameters, RawQuery, bad};
use crate::postgres::{Position, TelemetryFilter};
use crate::reading::{Reading, Timestamp};

pub(super) fn routes() -> Vec<Route> {
    routes![telemetry]
}

#[get("/telemetry")]
async fn telemetry(query: RawQuery<'_>, state: &State<AppState>) -> Result<Json<Answer>, ApiError> {
    let known = ["device_id", "start", "end", "limit", "offset", "cursor"];
    let parameters = query.parameters(&known)?;
    let (start, end) = parameters.range()?;
    let filter = TelemetryFilter { device_id: parameters.device_id()?, start, end };
    let limit = parameters.limit()?;
    let offset = parameters.offset()?;
    let position = position(&parameters, offset)?;
    let page = state.database.telemetry(&filter, position, limit).await;
    let page = page.map_err(|failure| ApiError::of_query(state, &failure))?;
    Ok(Json(Answer {
        data: page.readings.into_iter().map(Item::from).collect(),
        total: page.total.rows,
        total_exact: page.total.exact,
        limit,
        offset,
        next_cursor: page.next.map(|cursor| cursor.to_string()),
    }))
}

fn position(parameters: &Parameters, offset: u32) -> Result<Position, ApiError> {
    match parameters.text("cursor") {
        None => Ok(Position::Offset(offset)),
        Some(_) if offset != 0 => Err(bad("offset", "cannot be combined with `cursor`; drop one")),
        Some(text) => text
            .parse()
            .map(Position::After)
            .map_err(|_| bad("cursor", "must be a `next_cursor` of an earlier answer, unchanged")),
    }
}

#[derive(Serialize)]
struct Answer {
    data: Vec<Item>,
    total: u64,
    total_exact: bool,
    limit: u32,
    offset: u32,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Item {
    device_id: String,
    timestamp: Timestamp,
    temperature: f64,
    humidity: f64,
    battery: f64,
}

impl From<Reading> for Item {
    fn from(reading: Reading) -> Self {
        let Reading { device_id, timestamp, temperature, humidity, battery } = reading;
        Self { device_id, timestamp, temperature, humidity, battery }
    }
}
