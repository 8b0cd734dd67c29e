//! HTTP: the only rocket files.
//!
//! | route | file |
//! |---|---|
//! | `GET /`, `GET /assets/…` | `page` |
//! | `GET /api/v1/telemetry` | `telemetry` |
//! | `GET /api/v1/devices` | `devices` |
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
//! Connections, and what bounds them, are in `server`; `probe` asks a running service from outside.
//! Rocket runs on the runtime it is started on; it listens to no signal, prints nothing, and does not
//! say which server it is.

use std::net::SocketAddr;
use std::sync::Arc;

use rocket::figment::Figment;
use rocket::figment::providers::Serialized;
use rocket::figment::value::Dict;
use rocket::local::asynchronous::Client;
use rocket::{Build, Rocket, Route};
use tokio::task::JoinHandle;

use crate::config::{Config, Secret};
use crate::dead_letters::DeadLetters;
use crate::flusher::Control;
use crate::health::Health;
use crate::history::History;
use crate::metrics::Metrics;
use crate::postgres::Database;
use crate::supervisor::{Trigger, signal};
use crate::wal::Log;

mod admin;
mod devices;
mod error;
mod headers;
mod health;
mod instant;
mod metrics;
mod openapi;
mod page;
pub mod probe;
mod query;
mod server;
mod status;
mod telemetry;

pub use admin::Replayer;

/// What handlers may use.
#[derive(Clone)]
pub struct AppState {
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// What `/health/ready` shows.
    pub health: Arc<Health>,
    /// What rates and charts are made of.
    pub history: Arc<History>,
    /// Where telemetry and devices are read.
    pub database: Database,
    /// Brings gauges that are only worth computing when somebody looks up to date; called before
    /// `/metrics` is rendered. It must not block.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
    /// What `/admin` asks for; `None`: nobody may use it.
    pub admin_token: Option<Secret>,
    /// What waits to be flushed.
    pub log: Log,
    /// The flusher's handle.
    pub flusher: Arc<Control>,
    /// What was rejected.
    pub dead_letters: Arc<DeadLetters>,
    /// Puts what was rejected back.
    pub replayer: Arc<Replayer>,
}

/// Why HTTP does not run; each ends the process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, is not this machine's, or needs a right: correct `HTTP_ADDR`.
    #[error("cannot listen on {address} (HTTP_ADDR): {reason}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// The operating system's.
        reason: String,
    },
    /// A value among Rocket's own keys in `Rocket.toml`: correct it.
    #[error("Rocket.toml: {0}")]
    Settings(String),
    /// The server ended by itself, or could not be started: nothing that a setting causes.
    #[error("the HTTP server failed: {0}")]
    Server(String),
}

/// The server, listening.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stop: Trigger,
    server: JoinHandle<()>,
}

impl Running {
    /// Where it listens; the port is a real one, also if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks it to stop: no new connections, twice [`GRACE_SECS`] for those that there are.
    /// [`Self::finished`] tells when it has.
    pub fn shutdown(&self) {
        self.stop.give();
    }

    /// Waits until it has ended, whether asked to or not. Cancellation-safe; to be called until
    /// it has returned once, and not again.
    ///
    /// # Errors
    /// [`Error::Server`] if it ended by a failure.
    pub async fn finished(&mut self) -> Result<(), Error> {
        (&mut self.server).await.map_err(|panic| Error::Server(panic.to_string()))
    }
}

/// For requests that are being answered when the server is asked to stop, in seconds; as much
/// again is left to clients that are slow to take their answer.
pub const GRACE_SECS: u32 = 1;

/// Starts the server on the current runtime; when this returns it is listening.
///
/// # Errors
/// See [`Error`].
pub async fn serve(config: &Config, state: AppState) -> Result<Running, Error> {
    check_settings(&config.rocket).map_err(Error::Settings)?;
    let rocket = Client::untracked(build(figment(&config.rocket, config.http_addr), state)).await;
    let rocket = rocket.map_err(|error| Error::Server(error.to_string()))?;
    let bind = |error: std::io::Error| Error::Bind {
        address: config.http_addr,
        reason: error.to_string(),
    };
    let server = server::Server::bind(config.http_addr, rocket).await.map_err(bind)?;
    let address = server.address().map_err(bind)?;
    let (stop, stopped) = signal();
    let server = tokio::spawn(server.run(stopped));
    tracing::info!(%address, "listening for HTTP");
    Ok(Running { address, stop, server })
}

/// Whether Rocket can read its own keys of `Rocket.toml`.
///
/// # Errors
/// A line that names the key.
pub fn check_settings(rocket: &Dict) -> Result<(), String> {
    figment(rocket, SocketAddr::from(([0, 0, 0, 0], 0)))
        .extract::<rocket::Config>()
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Our defaults, over them what `Rocket.toml` says, over both what is not for anybody to choose:
/// signals and the address are the supervisor's and `HTTP_ADDR`'s.
fn figment(rocket: &Dict, address: SocketAddr) -> Figment {
    let quiet = rocket::Config {
        log_level: rocket::config::LogLevel::Off,
        cli_colors: false,
        ip_header: None,
        ..rocket::Config::release_default()
    };
    Figment::from(quiet)
        .merge(("shutdown.grace", GRACE_SECS))
        .merge(("shutdown.mercy", GRACE_SECS))
        .merge(Serialized::globals(rocket))
        .merge(("shutdown.ctrlc", false))
        .merge(("shutdown.signals", Vec::<String>::new()))
        .merge(("shutdown.force", false))
        .merge(("ident", false))
        .merge(("address", address.ip()))
        .merge(("port", address.port()))
}

fn build(figment: Figment, state: AppState) -> Rocket<Build> {
    let rocket = rocket::custom(figment)
        .manage(state)
        .attach(headers::shield())
        .attach(headers::fairing())
        .register("/", error::catchers());
    mounts().into_iter().fold(rocket, |rocket, (base, routes)| rocket.mount(base, routes))
}

/// Every route, and where it is mounted.
fn mounts() -> Vec<(&'static str, Vec<Route>)> {
    vec![
        ("/", page::routes()),
        ("/api/v1", telemetry::routes()),
        ("/api/v1", devices::routes()),
        ("/api/v1", status::routes()),
        ("/api/v1", openapi::routes()),
        ("/metrics", metrics::routes()),
        ("/health", health::routes()),
        ("/admin", admin::routes()),
    ]
}

#[cfg(test)]
mod tests {
    use rocket::figment::value::Value;

    use super::*;

    fn dict<const N: usize>(entries: [(&str, Value); N]) -> Dict {
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }

    fn read(rocket: &Dict) -> rocket::Config {
        figment(rocket, "[::1]:8081".parse().unwrap()).extract().unwrap()
    }

    #[test]
    fn what_rocket_cannot_read_is_named() {
        let problem = check_settings(&dict([("keep_alive", Value::from("soon"))])).unwrap_err();
        assert!(problem.contains("keep_alive"), "{problem}");
        assert_eq!(check_settings(&Dict::new()), Ok(()));
    }

    #[test]
    fn rocket_toml_overrides_our_defaults() {
        let shutdown = dict([("grace", Value::from(7u32))]);
        let config =
            read(&dict([("keep_alive", Value::from(9u32)), ("shutdown", Value::from(shutdown))]));
        assert_eq!((config.keep_alive, config.shutdown.grace), (9, 7));
        assert_eq!(config.shutdown.mercy, GRACE_SECS);
        assert_eq!(config.ip_header, None);
    }

    #[test]
    fn signals_the_banner_and_the_address_are_not_rockets_to_choose() {
        let shutdown = dict([("ctrlc", Value::from(true))]);
        let config = read(&dict([
            ("shutdown", Value::from(shutdown)),
            ("ident", Value::from("somebody")),
            ("port", Value::from(1u16)),
        ]));
        assert!(!config.shutdown.ctrlc && config.shutdown.signals.is_empty());
        assert_eq!(config.ident, rocket::config::Ident::none());
        assert_eq!((config.address.to_string().as_str(), config.port), ("::1", 8_081));
    }
}
