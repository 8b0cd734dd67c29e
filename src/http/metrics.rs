//! `GET /metrics`, for Prometheus.

use rocket::http::ContentType;
use rocket::{Route, State, get, routes};

use super::error::ApiError;
use super::guards::Reader;
use super::state::AppState;

pub(super) fn routes() -> Vec<Route> {
    routes![metrics]
}

/// Metrics in Prometheus' text format
#[utoipa::path(
    get,
    tag = "health",
    path = "/metrics",
    responses((
        status = 200,
        description = "All metrics of the service and of its process.",
        body = String,
        content_type = "text/plain",
        example = "# TYPE ingestor_messages_total counter\ningestor_messages_total 42\n",
    ))
)]
#[get("/")]
pub(super) fn metrics(
    _reader: Reader,
    state: &State<AppState>,
) -> Result<(ContentType, String), ApiError> {
    (state.refresh)();
    let text = state.metrics.render().map_err(|error| ApiError::internal(&error))?;
    // Version 0.0.4 of the text format is what a scraper that asks for nothing else is given.
    Ok((ContentType::new("text", "plain").with_params(("version", "0.0.4")), text))
}
