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
//! Connections, and what bounds them, are in `server` and `connection_limits`, who may ask in `access`.
//! Rocket runs on the runtime it is started on; it listens to no signal, prints nothing, and does not
//! say which server it is.

use std::net::SocketAddr;
use std::sync::Arc;

use rocket::figment::Figment;
use rocket::local::asynchronous::Client;
use rocket::{Build, Rocket, Route};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::base::metrics::Metrics;
use crate::base::time::Clock;
use crate::dead_letters::DeadLetters;
use crate::flusher::Control;
use crate::intake::seen::Seen;
use crate::postgres::Database;
use crate::recent::Recent;
use crate::status::health::Health;
use crate::status::history::History;
use crate::wal::Log;

mod access;
mod admin;
mod connection_limits;
mod described;
mod device_page;
mod devices;
mod dispatch;
mod error;
mod exchange;
mod export;
mod failed_attempts;
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
mod selection;
mod server;
mod settings;
mod status;
mod tables;
mod telemetry;
mod tls;
mod together;
mod upload;
mod wire;

pub(crate) use access::Access;
pub(crate) use admin::Replayer;
pub(crate) use inlet::Inlet;
pub(crate) use openapi::Description;
pub(crate) use settings::{SETTINGS, Settings};
pub(crate) use tables::Tables;

use settings::{check_settings, figment};

/// What handlers may use.
#[derive(Clone)]
pub(crate) struct AppState {
    /// Which of several ingestors this is: what it calls itself to the broker.
    pub(crate) instance: Arc<str>,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
    /// What `/metrics` shows.
    pub(crate) metrics: Metrics,
    /// What `/health/ready` shows.
    pub(crate) health: Arc<Health>,
    /// What rates and charts are made of.
    pub(crate) history: Arc<History>,
    /// Where telemetry and devices are read.
    pub(crate) database: Database,
    /// What they read from the log.
    pub(crate) recent: Arc<Recent>,
    /// The tables that can be asked for.
    pub(crate) tables: Arc<Tables>,
    /// What mappings have done.
    pub(crate) seen: Seen,
    /// The OpenAPI document of them.
    pub(crate) description: Description,
    /// Brings gauges that are only worth computing when somebody looks up to date; called before
    /// `/metrics` is rendered. It must not block.
    pub(crate) refresh: Arc<dyn Fn() + Send + Sync>,
    /// Who may ask.
    pub(crate) access: Arc<Access>,
    /// What waits to be flushed.
    pub(crate) log: Log,
    /// The flusher's handle.
    pub(crate) flusher: Arc<Control>,
    /// What was rejected.
    pub(crate) dead_letters: Arc<DeadLetters>,
    /// Puts readings into the log.
    pub(crate) inlet: Arc<Inlet>,
    /// Puts what was rejected back.
    pub(crate) replayer: Arc<Replayer>,
}

/// Why HTTP does not run; each ends the process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address is in use, is not this machine's, or needs a right: correct `HTTP_ADDR`.
    #[error("cannot listen on {address} (HTTP_ADDR): {reason}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// The operating system's.
        reason: String,
    },
    /// A value among Rocket's own keys in `Rocket.toml`, or a certificate's file: correct it.
    #[error("{0}")]
    Settings(String),
    /// The server ended by itself, or could not be started: nothing that a setting causes.
    #[error("the HTTP server failed: {0}")]
    Server(String),
}

/// The server, listening.
pub(crate) struct Running {
    stop: CancellationToken,
    server: JoinHandle<()>,
    secrets: Secrets,
}

/// The tokens and the certificate; clones are the same.
#[derive(Clone)]
pub(crate) struct Secrets {
    access: Arc<Access>,
    tls: Option<Arc<tls::Tls>>,
}

impl Secrets {
    /// From now on the tokens of `settings` count, and what is in the certificate's files now is what new
    /// connections are greeted with. Returns the settings whose content has changed. Blocks on the disk.
    ///
    /// # Errors
    /// A sentence, if the certificate cannot be used: it stays as it was.
    pub(crate) fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, String> {
        let mut changes = self.access.set(settings.tokens.clone());
        if let Some(tls) = &self.tls {
            changes.extend(tls.reload()?);
        }
        Ok(changes)
    }
}

impl Running {
    /// What has tokens and the certificate read again.
    #[must_use]
    pub(crate) fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    /// Asks it to stop: no new connections, twice [`settings::GRACE_SECS`] for those that there are.
    /// [`Self::finished`] tells when it has.
    pub(crate) fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Waits until it has ended, whether asked to or not. Cancellation-safe; to be called until
    /// it has returned once, and not again.
    ///
    /// # Errors
    /// [`Error::Server`] if it ended by a failure.
    pub(crate) async fn finished(&mut self) -> Result<(), Error> {
        (&mut self.server).await.map_err(|panic| Error::Server(panic.to_string()))
    }
}

/// Starts the server on the current runtime; when this returns it is listening.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn serve(settings: &Settings, state: AppState) -> Result<Running, Error> {
    check_settings(&settings.rocket).map_err(Error::Settings)?;
    let access = Arc::clone(&state.access);
    let rocket = Client::untracked(build(figment(&settings.rocket, settings.address), state)).await;
    let rocket = rocket.map_err(|error| Error::Server(error.to_string()))?;
    let bind = |error: std::io::Error| Error::Bind {
        address: settings.address,
        reason: error.to_string(),
    };
    let tls = settings.tls.clone().map(tls::Tls::new).transpose();
    let tls = tls.map_err(|error| Error::Settings(error.to_string()))?.map(Arc::new);
    let server = server::Server::bind(settings.address, rocket, tls.clone(), Arc::clone(&access));
    let server = server.await.map_err(bind)?;
    let address = server.address().map_err(bind)?;
    let stop = CancellationToken::new();
    let server = tokio::spawn(server.run(stop.clone()));
    tracing::info!(%address, "listening for HTTP");
    Ok(Running { stop, server, secrets: Secrets { access, tls } })
}

fn build(figment: Figment, state: AppState) -> Rocket<Build> {
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
fn mounts() -> Vec<(&'static str, Vec<Route>)> {
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
