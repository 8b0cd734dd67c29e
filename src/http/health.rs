//! `GET /health/live` and `GET /health/ready`, for orchestrators and load balancers.

use rocket::http::Status;
use rocket::serde::json::Json;
use rocket::{Route, State, get, routes};
use serde::Serialize;

use super::AppState;
use crate::health::Report;

pub(super) fn routes() -> Vec<Route> {
    routes![live, ready]
}

#[get("/live")]
fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

#[get("/ready")]
fn ready(state: &State<AppState>) -> (Status, Json<Report>) {
    let report = state.health.report();
    let status = if report.is_ready() { Status::Ok } else { Status::ServiceUnavailable };
    (status, Json(report))
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
}
