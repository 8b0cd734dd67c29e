//! `GET /api/v1/devices`: each device's latest reading, by name or by age.

use std::sync::Arc;

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::device_page::{Device, page};
use super::error::ApiError;
use super::exchange::Exchange;
use super::export::{self, Accepted, Answered};
use super::guards::Reader;
use super::measured::{Measured, Shown};
use super::query::{Parameters, RawQuery};
use super::remembered::{self, Asked};
use super::selection::{Selection, Wanted};
use super::state::AppState;
use super::together::Partial;
use crate::base::time::Timestamp;
use crate::postgres::{DeviceFilter, StoredReading};

pub(super) fn routes() -> Vec<Route> {
    routes![devices]
}

/// The latest reading of each device
#[utoipa::path(
    get,
    tag = "data",
    path = "/api/v1/devices",
    params(Query, Wanted, export::Wanted),
    responses(
        (
            status = 200,
            description = "A page of devices, or all of them as a file.",
            content((Answer = "application/json"), (String = "text/csv"), (String = "application/x-ndjson")),
        ),
        (
            status = 503,
            description = "The database does not answer, or has no table yet, and no device is remembered.",
            body = super::error::Body,
            example = json!({"error": "the database does not answer; try again in a moment"}),
        ),
    )
)]
#[get("/devices")]
pub(super) async fn devices(
    _reader: Reader,
    query: RawQuery<'_>,
    accepted: Accepted,
    exchange: Exchange,
    turns: &State<export::Turns>,
    state: &State<AppState>,
) -> Result<Answered<Answer>, ApiError> {
    let parameters = query.parameters(KNOWN)?;
    if let Some(format) = accepted.file(&parameters)? {
        let file = export::devices(state, &exchange, turns, format, &parameters).await?;
        return Ok(Answered::File(file));
    }
    let Query { limit, offset, name_contains, newest_first, silent } = Query::read(&parameters)?;
    remembered::check(state, silent)?;
    let Selection { relation, shown } = Selection::read(state, &parameters).await?;
    let filter = DeviceFilter { name_contains, newest_first };
    let asked = Asked { relation, filter, silent, offset, limit };
    let page = page(state, &asked).await?;
    let total_exact = (!page.total.exact).then_some(false);
    Ok(Answered::Page(Json(Answer {
        data: page.latest.into_iter().map(|device| item(device, shown.as_ref())).collect(),
        total: page.total.rows,
        total_exact,
        limit,
        offset,
        partial: page.partial.is_some(),
        complete_from: page.partial,
    })))
}

/// The parameters that there are.
const KNOWN: &[&str] =
    &["limit", "offset", "name_contains", "newest_first", "silent", "table", "fields", "format"];

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// The most devices to return.
    #[param(required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
    /// The number of devices to skip.
    #[param(required = false, minimum = 0, maximum = 4_294_967_295_u32, default = 0)]
    offset: u32,
    /// Only devices whose name contains this text, in upper or lower case.
    #[param(required = false, min_length = 1, max_length = 128, example = "sensor-0")]
    name_contains: Option<String>,
    /// Sort by the time of the latest reading, newest first, instead of by name.
    #[param(required = false, default = false)]
    newest_first: bool,
    /// Only devices that are silent, or only those that are not. A device is silent when nothing of it was
    /// received for as long as `silent_after` of the mapping says that brought its last reading, or else
    /// `SILENT_AFTER_SECS`, whatever times its readings bear; what was received before the start of the service
    /// counts by its time of receipt if the log has it, and else by its own time. A 400 if neither is set.
    /// Answered from the last values that the service keeps, of up to 200,000 devices; in the order of bytes.
    #[param(required = false, value_type = bool)]
    silent: Option<bool>,
}

impl Query {
    fn read(parameters: &Parameters) -> Result<Self, ApiError> {
        Ok(Self {
            limit: parameters.limit()?,
            offset: parameters.offset()?,
            name_contains: parameters.device_name("name_contains")?,
            newest_first: parameters.flag("newest_first")?.unwrap_or(false),
            silent: parameters.flag("silent")?,
        })
    }
}

/// A page of devices.
#[derive(Serialize, ToSchema)]
#[schema(as = Devices)]
pub(super) struct Answer {
    data: Vec<Item>,
    /// The number of devices that match.
    #[schema(example = 1)]
    total: u64,
    /// False if there are more of them than `total`, which counts up to 100,000; else it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<bool>, example = false)]
    total_exact: Option<bool>,
    /// The `limit` of the request.
    #[schema(example = 100)]
    limit: u32,
    /// The `offset` of the request.
    #[schema(example = 0)]
    offset: u32,
    /// Whether devices or their latest readings may be missing, because what the service remembers is shown
    /// while the database does not answer, or before it has found again what was there before its start.
    #[schema(example = false)]
    partial: bool,
    /// If `partial`: no device is missing of which this service has received a reading from this time on;
    /// null if nothing is certain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, example = "2025-10-05T12:34:56Z")]
    complete_from: Option<Partial>,
}

/// A device and its latest reading.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
struct Latest {
    #[schema(example = "sensor-001")]
    device_id: String,
    /// The time of that reading, in UTC. It is null if another program has stored a row whose time is
    /// infinity or lies outside the years 0 to 9999.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2025-10-05T12:34:56Z")]
    last_seen: Option<Timestamp>,
    /// Why `last_seen` is null; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, example = "the row's time is infinity")]
    note: Option<&'static str>,
    /// Seconds since anything of the device was received; only with `silent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<f64>, example = 7_200.0)]
    silent_seconds: Option<f64>,
}

type Item = Measured<Latest>;

fn item((reading, silent_seconds): Device, shown: Option<&Arc<[Shown]>>) -> Item {
    let note = reading.note();
    let StoredReading { device_id, timestamp, values, .. } = reading;
    let latest = Latest { device_id, last_seen: timestamp, note, silent_seconds };
    Item::stored(latest, values, shown)
}
