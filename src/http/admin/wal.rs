//! `GET /admin/wal` and `GET /admin/wal/records`: the log's state, and what waits in it.

use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::blocking::{Busy, Turns};
use super::flusher::Status;
use crate::base::time::Timestamp;
use crate::http::error::ApiError;
use crate::http::guards::Operator;
use crate::http::measured::Measured;
use crate::http::query::RawQuery;
use crate::http::state::AppState;
use crate::telemetry::mapping::MappedReading;
use crate::telemetry::{self, Reading};
use crate::wal::log::GenerationStats;
use crate::wal::{Log, OffsetRange, Quarantined, Room, WalError};

/// Records that one request looks at: with a rare device, a page comes back before it is full.
const SCANNED_MAX: u64 = 50_000;

/// Records that are held at once on top of the page.
const STEP: u64 = 2_000;

pub(super) fn routes() -> Vec<Route> {
    routes![wal, records]
}

/// The state of the write-ahead log
#[utoipa::path(
    get,
    tag = "admin",
    path = "/admin/wal",
    responses((status = 200, description = "The state of the log and of the flusher.", body = Wal), Busy)
)]
#[get("/wal")]
pub(in crate::http) async fn wal(
    _operator: Operator,
    query: RawQuery<'_>,
    turns: &State<Turns>,
    state: &State<AppState>,
) -> Result<Json<Wal>, ApiError> {
    query.must_be_empty()?;
    let state = state.inner().clone();
    turns.blocking(move || Wal::of(&state)).await.map(Json)
}

/// Records that wait in the log, oldest first
///
/// Records that are in the database are not shown, whether their space has been freed or not. With
/// `device_id`, a request looks at 50,000 records at most and returns those that it has found: continue
/// from `next` until it is null.
#[utoipa::path(
    get,
    tag = "admin",
    path = "/admin/wal/records",
    params(Query),
    responses((status = 200, description = "A page of records.", body = Page), Busy)
)]
#[get("/wal/records")]
pub(in crate::http) async fn records(
    _operator: Operator,
    query: RawQuery<'_>,
    turns: &State<Turns>,
    state: &State<AppState>,
) -> Result<Json<Page>, ApiError> {
    let query = Query::read(&query)?;
    let log = state.log.clone();
    turns.blocking(move || Page::read(&log, &query)).await.map(Json)
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// The offset to begin at; records that are flushed already are skipped.
    #[param(required = false, minimum = 0, maximum = 18_446_744_073_709_551_615_u64, default = 0)]
    from: u64,
    /// The most records to return.
    #[param(required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
    /// Only records of this device.
    #[param(required = false, min_length = 1, max_length = 128, example = "sensor-001")]
    device_id: Option<String>,
}

impl Query {
    fn read(query: &RawQuery<'_>) -> Result<Self, ApiError> {
        let parameters = query.parameters(&["from", "limit", "device_id"])?;
        Ok(Self {
            from: parameters.number("from", 0..=u64::MAX)?.unwrap_or(0),
            limit: parameters.limit()?,
            device_id: parameters.device_id()?,
        })
    }
}

/// A page of records that wait in the log.
#[derive(Serialize, ToSchema)]
#[schema(as = WalRecords)]
pub(in crate::http) struct Page {
    #[schema(value_type = Vec<Record>)]
    records: Vec<Shown>,
    /// The `from` of the next page; null at the end of the log.
    #[schema(required, example = 7)]
    next: Option<u64>,
}

impl Page {
    fn read(log: &Log, query: &Query) -> Result<Self, WalError> {
        let end = *log.committed().borrow();
        let mut next = query.from.max(log.flushed());
        let bound = end.min(next.saturating_add(SCANNED_MAX));
        let mut left = query.limit as usize;
        let mut records = Vec::new();
        while left > 0 && next < bound {
            let step = if query.device_id.is_some() { STEP } else { STEP.min(left as u64) };
            let batch = log.read(next, bound.min(next + step))?;
            next = batch.next;
            let is_wanted = |device: &str| query.device_id.as_ref().is_none_or(|id| id == device);
            for (offset, reading) in batch.records().filter(|(_, r)| is_wanted(r.device_id())) {
                records.push(Shown::of(offset, reading));
                left -= 1;
                if left == 0 {
                    next = offset + 1;
                    break;
                }
            }
        }
        Ok(Self { records, next: (next < end).then_some(next) })
    }
}

/// A reading in the log.
#[derive(Serialize, ToSchema)]
#[schema(as = WalRecord)]
struct Numbered {
    /// The number of the record in the log, which is never reused.
    #[schema(example = 6)]
    offset: u64,
    #[schema(example = "sensor-001")]
    device_id: String,
    /// When the device measured, in UTC.
    #[schema(value_type = String, format = DateTime, example = "2025-10-05T12:34:56Z")]
    timestamp: Timestamp,
}

type Record = Measured<Numbered>;

/// A row of a table that mappings fill, with the names of table and columns.
#[derive(Serialize)]
struct Row {
    offset: u64,
    #[serde(flatten)]
    row: MappedReading,
}

/// What the log holds.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    BuiltIn(Record),
    Mapped(Row),
}

impl Shown {
    fn of(offset: u64, record: &telemetry::Record) -> Self {
        match record.clone() {
            telemetry::Record::BuiltIn(Reading { device_id, timestamp, values }) => {
                Self::BuiltIn(Record::new(Numbered { offset, device_id, timestamp }, values))
            }
            telemetry::Record::Mapped(row) => Self::Mapped(Row { offset, row: *row }),
        }
    }
}

/// The state of the write-ahead log.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Wal {
    /// Records that are durable and not yet in the database.
    #[schema(example = 12_000)]
    pending_records: u64,
    /// The approximate size of those records, in bytes.
    #[schema(example = 480_000)]
    pending_bytes: u64,
    /// Bytes on disk of all generations, including those in quarantine.
    #[schema(example = 4_194_304)]
    disk_bytes: u64,
    /// Bytes on disk at which the log counts as full.
    #[schema(example = 1_073_741_824)]
    max_bytes: u64,
    /// Whether the log takes no more for now, because of this limit or that of its filesystem.
    #[schema(example = false)]
    full: bool,
    /// Seconds that the oldest pending record has waited; 0 if none is pending.
    #[schema(minimum = 0, example = 3.2)]
    oldest_pending_seconds: f64,
    /// The offset that the next record gets.
    #[schema(example = 912_000)]
    next_offset: u64,
    /// Every record below this offset is in the database or in a dead letter.
    #[schema(example = 900_000)]
    flushed_offset: u64,
    /// The generations of the log, oldest first.
    generations: Vec<Generation>,
    /// Damaged generations: those in quarantine, and those that will be moved there once they are drained.
    quarantined: Vec<Damaged>,
    flusher: Status,
}

impl Wal {
    fn of(state: &AppState) -> Result<Self, WalError> {
        let log = &state.log;
        let now = log.stats();
        Ok(Self {
            pending_records: now.pending_records,
            pending_bytes: now.pending_bytes,
            disk_bytes: now.disk_bytes,
            max_bytes: log.limits().max_bytes,
            full: *log.room().borrow() != Room::Open,
            oldest_pending_seconds: log.oldest_pending_seconds(),
            next_offset: now.next_offset,
            flushed_offset: now.flushed_offset,
            generations: now.generations.into_iter().map(Generation::from).collect(),
            quarantined: log.quarantined()?.into_iter().map(Damaged::from).collect(),
            flusher: Status::of(&state.flusher),
        })
    }
}

/// A generation of the log: one directory of it.
#[derive(Serialize, ToSchema)]
struct Generation {
    /// The name of its directory.
    #[schema(example = "00000000000000887000")]
    id: String,
    /// The offset of its first record.
    #[schema(example = 887_000)]
    first_offset: u64,
    /// Records of it that are not in the database yet.
    #[schema(example = 12_000)]
    pending_records: u64,
    /// Its size on disk, in bytes.
    #[schema(example = 4_194_304)]
    disk_bytes: u64,
}

impl From<GenerationStats> for Generation {
    fn from(stats: GenerationStats) -> Self {
        let GenerationStats { id, first_offset, pending_records, disk_bytes } = stats;
        Self { id, first_offset, pending_records, disk_bytes }
    }
}

/// A generation that was found to be damaged.
#[derive(Serialize, ToSchema)]
struct Damaged {
    /// The name of its directory.
    #[schema(example = "00000000000000021000")]
    id: String,
    /// When the damage was found, in UTC.
    #[schema(format = DateTime, example = "2025-10-05T12:34:56Z")]
    at: String,
    /// Records that were read back from it.
    #[schema(example = 20_800)]
    salvaged_records: u64,
    /// Ranges of offsets that could not be read back.
    lost_ranges: Vec<Range>,
}

impl From<Quarantined> for Damaged {
    fn from(found: Quarantined) -> Self {
        let Quarantined { id, at, salvaged_records, lost_ranges, .. } = found;
        let lost_ranges =
            lost_ranges.into_iter().map(|OffsetRange { from, to }| Range { from, to }).collect();
        Self { id, at, salvaged_records, lost_ranges }
    }
}

/// A range of offsets, inclusive at both ends.
#[derive(Serialize, ToSchema)]
#[schema(as = OffsetRange)]
struct Range {
    #[schema(example = 21_300)]
    from: u64,
    #[schema(example = 21_499)]
    to: u64,
}
