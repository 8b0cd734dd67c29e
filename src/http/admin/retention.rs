//! `GET /admin/retention` and `POST /admin/retention/run`.

use rocket::serde::json::Json;
use rocket::{Route, State, get, post, routes};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::error::ApiError;
use crate::http::guards::Operator;
use crate::http::query::RawQuery;
use crate::http::state::AppState;
use crate::postgres::{self, RetentionReport, TableKind};

pub(super) fn routes() -> Vec<Route> {
    routes![retention, run]
}

/// What retention would remove now, and what it has removed
///
/// A dry run: nothing is removed by asking.
#[utoipa::path(
    get,
    tag = "admin",
    path = "/admin/retention",
    responses(
        (status = 200, description = "What is due, and what was done.", body = Retention),
        (status = 503, description = "The database does not answer.", body = crate::http::error::Body,
            example = json!({"error": "the database does not answer; try again in a moment"})),
    )
)]
#[get("/retention")]
pub(in crate::http) async fn retention(
    _operator: Operator,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Retention>, ApiError> {
    query.must_be_empty()?;
    match state.database.retention().await {
        Ok(report) => Ok(Json(report.into())),
        Err(failure) => Err(ApiError::of_query(&state.health, &failure, "retention")),
    }
}

/// Remove what is due, although it is much
///
/// Says that a clock which has jumped is right now, or else that more than a third of the partitions or rows
/// is meant to go: what `held_up` of `GET /admin/retention` tells, one at a time. It does not help against
/// clocks that disagree. The run goes on in the background: ask again what came of it.
#[utoipa::path(
    post,
    tag = "admin",
    path = "/admin/retention/run",
    responses(
        (status = 200, description = "A run is asked for.", body = Started),
        (status = 422, description = "RETENTION_DAYS is not set.", body = crate::http::error::Body,
            example = json!({"error": "RETENTION_DAYS is not set, so nothing is ever removed"})),
    )
)]
#[post("/retention/run")]
pub(in crate::http) fn run(
    _operator: Operator,
    query: RawQuery<'_>,
    state: &State<AppState>,
) -> Result<Json<Started>, ApiError> {
    query.must_be_empty()?;
    if !state.database.remove_old_now() {
        return Err(ApiError::Unfit(
            "RETENTION_DAYS is not set, so nothing is ever removed".into(),
        ));
    }
    tracing::info!(
        "admin: readings older than RETENTION_DAYS are to be removed now, also if they are many"
    );
    Ok(Json(Started { started: true }))
}

/// That it is asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = RetentionStarted)]
pub(in crate::http) struct Started {
    started: bool,
}

/// What retention would remove, and what it has removed.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Retention {
    /// `RETENTION_DAYS`; null if it is not set, and nothing is ever removed.
    #[schema(required, example = 30)]
    #[serde(rename = "retention_days")]
    days: Option<u32>,
    /// What a run would remove now, for each table that is there; none without `RETENTION_DAYS`.
    due: Vec<Due>,
    /// Why some of it is not removed, the first reason of `due`; null if all is.
    #[schema(required, example = json!(null))]
    held_up: Option<String>,
    /// Whether a run is under way.
    running: bool,
    /// Why the last run failed; null if it did not.
    #[schema(required, example = json!(null))]
    last_error: Option<String>,
    /// When the last run ended, whatever it came to; null if there was none yet.
    #[schema(required, format = DateTime, example = "2026-01-31T12:00:00Z")]
    last_run: Option<String>,
    /// When everything that was due was last removed, or left to another ingestor that was at it; null if that was not yet.
    #[schema(required, format = DateTime, example = "2026-01-31T12:00:00Z")]
    last_success: Option<String>,
    /// Since the start of the service.
    #[schema(example = 3)]
    removed_partitions: u64,
    /// Rows that were deleted one by one since the start of the service.
    #[schema(example = 0)]
    removed_rows: u64,
}

/// What a run would remove now.
#[derive(Serialize, ToSchema)]
#[schema(as = RetentionDue)]
struct Due {
    /// `telemetry`, or one that mappings fill.
    #[schema(example = "telemetry")]
    table: String,
    /// Readings whose time is before this, by the database's clock.
    #[schema(format = DateTime, example = "2026-01-01T12:00:00Z")]
    cutoff: String,
    /// How the table is divided.
    division: Division,
    /// Partitions that would be dropped; of a hypertable, its chunks.
    partitions: Vec<Partition>,
    /// How many partitions there are.
    #[schema(example = 40)]
    partitions_total: u64,
    /// Rows that would be deleted one by one.
    #[schema(example = 0)]
    rows: u64,
    /// False if there are more than `rows`: they are counted up to a third of all, and to a million.
    rows_exact: bool,
    /// Why it is not removed; null if it is.
    #[schema(required, example = json!(null))]
    held_up: Option<String>,
}

/// A partition that would be dropped.
#[derive(Serialize, ToSchema)]
#[schema(as = RetentionPartition)]
struct Partition {
    #[schema(example = "public.telemetry_p20260101")]
    name: String,
    /// With its indexes; null for a chunk.
    #[schema(required, example = 8_192)]
    bytes: Option<u64>,
}

/// `hypertable`: by TimescaleDB. `partitioned`: by time. `plain`: not by time.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RetentionDivision)]
enum Division {
    Hypertable,
    Partitioned,
    Plain,
}

impl From<RetentionReport> for Retention {
    fn from(report: RetentionReport) -> Self {
        Self {
            days: report.days,
            held_up: report.due.iter().find_map(|due| due.held_up.clone()),
            due: report.due.into_iter().map(Due::from).collect(),
            running: report.is_running,
            last_error: report.last_error,
            last_run: report.last_run.map(|at| at.to_string()),
            last_success: report.last_success.map(|at| at.to_string()),
            removed_partitions: report.removed_partitions,
            removed_rows: report.removed_rows,
        }
    }
}

impl From<postgres::Due> for Due {
    fn from(due: postgres::Due) -> Self {
        let partition = |(name, bytes)| Partition { name, bytes };
        Self {
            table: due.table,
            cutoff: due.cutoff.to_string(),
            division: match due.kind {
                TableKind::Hypertable => Division::Hypertable,
                TableKind::Partitioned => Division::Partitioned,
                TableKind::Plain => Division::Plain,
            },
            partitions: due.partitions.into_iter().map(partition).collect(),
            partitions_total: due.partitions_total,
            rows: due.rows,
            rows_exact: due.rows_exact,
            held_up: due.held_up,
        }
    }
}
