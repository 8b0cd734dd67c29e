//! The routes, and where each is mounted.

use rocket::figment::Figment;
use rocket::{Build, Rocket, Route};

use super::state::AppState;
use super::{
    admin, devices, error, export, headers, health, metrics, openapi, page, status, tables,
    telemetry, upload,
};

/// Rocket with all routes, and what they share.
pub(super) fn build(figment: Figment, state: AppState) -> Rocket<Build> {
    let rocket = rocket::custom(figment)
        .manage(state)
        .manage(admin::Turns::default())
        .manage(export::Turns::default())
        .manage(upload::Turns::default())
        .attach(headers::shield())
        .attach(headers::fairing())
        .register("/", error::catchers());
    mounts().into_iter().fold(rocket, |rocket, (base, routes)| rocket.mount(base, routes))
}

/// Every route, and where it is mounted.
pub(super) fn mounts() -> Vec<(&'static str, Vec<Route>)> {
    vec![
        ("/", page::routes()),
        ("/api/v1", telemetry::routes()),
        ("/api/v1", upload::routes()),
        ("/api/v1", devices::routes()),
        ("/api/v1", tables::routes()),
        ("/api/v1", status::routes()),
        ("/api/v1", openapi::routes()),
        ("/metrics", metrics::routes()),
        ("/health", health::routes()),
        ("/admin", admin::routes()),
    ]
}
