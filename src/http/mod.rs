//! HTTP: the only rocket files.
//!
//! | route | file |
//! |---|---|
//! | `GET /`, `GET /assets/…` | `page` |
//! | `GET /api/v1/telemetry` | `telemetry`; as a file `export` |
//! | `POST /api/v1/telemetry` | `upload` |
//! | `GET /api/v1/devices` | `devices`; as a file `export` |
//! | `GET /api/v1/tables` | `tables` |
//! | `GET /api/v1/status`, `GET /api/v1/status/history` | `status` |
//! | `GET /api/v1/openapi.json` | `openapi` |
//! | `GET /metrics` | `metrics` |
//! | `GET /health/live`, `GET /health/ready` | `health` |
//! | `GET /admin/…`, `POST /admin/…`, `DELETE /admin/…` | `admin` |
//!
//! Handlers hold an [`AppState`] and nothing else. Every error, whatever its status and whoever
//! found it, is `{"error":"…"}` (`error`). Query strings are read here and not by Rocket's
//! forms, which drop what they do not know and answer what they cannot read with a page
//! (`query`, `instant`). `HEAD` is answered wherever `GET` is.
//!
//! Each handler carries its part of the OpenAPI description, which a test compares with the routes;
//! the page, which is for a browser, is in it nowhere.
//!
//! What is acknowledged can be read, in the table or not: `together` puts table and log together. `remembered`
//! answers from last values alone.
//!
//! Connections, and what bounds them, are in `server` and `connection_limits`, who may ask in `access` and
//! `guards`. Rocket runs on the runtime it is started on; it listens to no signal, prints nothing, and does
//! not say which server it is.

mod access;
mod admin;
mod catalog;
mod connection_limits;
mod described;
mod description;
mod device_page;
mod devices;
mod dispatch;
mod error;
mod exchange;
mod export;
mod failed_attempts;
mod guards;
mod headers;
mod health;
mod inlet;
mod instant;
mod measured;
mod metrics;
mod openapi;
mod page;
mod query;
mod remembered;
mod routes;
mod selection;
mod server;
mod settings;
mod start;
mod state;
mod status;
mod tables;
mod telemetry;
mod tls;
mod together;
mod upload;
mod wire;

pub(crate) use access::Access;
pub(crate) use admin::replayer::Replayer;
pub(crate) use catalog::Tables;
pub(crate) use description::Description;
pub(crate) use inlet::Inlet;
pub(crate) use settings::{SETTINGS, Settings};
pub(crate) use start::{Running, Secrets, serve};
pub(crate) use state::AppState;
