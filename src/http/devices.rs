//! `GET /api/v1/devices`: each device's latest reading, by name.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;

use super::AppState;
use super::error::ApiError;
use super::query::RawQuery;
use crate::reading::{Reading, Timestamp};

pub(super) fn routes() -> Vec<Route> {
    routes![devices]
}

#[get("/devices")]
async fn devices(query: RawQuery<'_>, state: &State<AppState>) -> Result<Json<Answer>, ApiError> {
    let parameters = query.parameters(&["limit", "offset"])?;
    let (limit, offset) = (parameters.limit()?, parameters.offset()?);
    let page = state.database.devices(offset, limit).await;
    let page = page.map_err(|failure| ApiError::of_query(state, &failure))?;
    let data = page.latest.into_iter().map(Item::from).collect();
    Ok(Json(Answer { data, total: page.total, limit, offset }))
}

#[derive(Serialize)]
struct Answer {
    data: Vec<Item>,
    total: u64,
    limit: u32,
    offset: u32,
}

#[derive(Serialize)]
struct Item {
    device_id: String,
    last_seen: Timestamp,
    temperature: f64,
    humidity: f64,
    battery: f64,
}

impl From<Reading> for Item {
    fn from(reading: Reading) -> Self {
        let Reading { device_id, timestamp, temperature, humidity, battery } = reading;
        Self { device_id, last_seen: timestamp, temperature, humidity, battery }
    }
}
