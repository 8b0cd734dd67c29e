//! Starts the server, and what it is asked while it runs.

use std::net::SocketAddr;
use std::sync::Arc;

use rocket::local::asynchronous::Client;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::routes::build;
use super::server::Server;
use super::settings::{Settings, check_settings, figment};
use super::state::AppState;
use super::tls::Tls;

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
    tls: Option<Arc<Tls>>,
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

    /// Asks it to stop: no new connections, twice [`GRACE_SECS`](super::settings::GRACE_SECS) for those that
    /// there are. [`Self::finished`] tells when it has.
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
    let tls = settings.tls.clone().map(Tls::new).transpose();
    let tls = tls.map_err(|error| Error::Settings(error.to_string()))?.map(Arc::new);
    let server = Server::bind(settings.address, rocket, tls.clone(), Arc::clone(&access));
    let server = server.await.map_err(bind)?;
    let address = server.address().map_err(bind)?;
    let stop = CancellationToken::new();
    let server = tokio::spawn(server.run(stop.clone()));
    tracing::info!(%address, "listening for HTTP");
    Ok(Running { stop, server, secrets: Secrets { access, tls } })
}
