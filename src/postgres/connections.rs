//! A bounded set of connections that never keeps a doubtful one.
//!
//! sqlx's own pool is not used, for three reasons found in its source (0.9, `pool/inner.rs` and
//! `pool/connection.rs`). It retries a refused connection until its acquire timeout and then
//! reports only that timeout: a query would take 3 s to fail instead of none, and the log could
//! not say why. It takes a connection back after any outcome, also when the future that used it
//! was dropped between a statement and its answer. And it tests what it takes back with a ping
//! that nothing bounds, so a half-open connection would hold its place for many minutes.
//!
//! Here a [`Lease`] owns its connection, and dropping it closes the connection. Only
//! [`Lease::keep`] puts one back, and that is called after an answer. No task runs in the
//! background.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection_string::ConnectionString;
use super::failure::Failure;

/// Longest wait for a lease, whether for a place among the connections or for the server.
const LEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for an idle connection to prove that it still works; leaves time for a new one.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// Firewalls forget connections that are idle for longer, without telling either end.
const MAX_IDLE: Duration = Duration::from_secs(5 * 60);
/// So that a failover, or a new address in DNS, reaches a connection that never idles.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// Where the database is and how to log in.
#[derive(Clone)]
pub(super) struct Server {
    options: PgConnectOptions,
    /// A session is ours from one statement to the next: false behind PgBouncer in transaction
    /// mode.
    keeps_session: bool,
}

impl Server {
    pub(super) fn new(string: &ConnectionString) -> Result<Self, Failure> {
        let unreadable =
            || Failure::unavailable("the driver cannot read the connection string in DATABASE_URL");
        let host = string.hosts().first().ok_or_else(unreadable)?;
        let options = PgConnectOptions::from_str(&host.url).map_err(|_| unreadable())?;
        // The driver hands the brackets of an IPv6 address to the resolver.
        let host = options.get_host().trim_matches(['[', ']']).to_owned();
        let mut options = options.host(&host).disable_statement_logging();
        if options.get_application_name().is_none() {
            options = options.application_name("iot-ingestor");
        }
        Ok(Self { options, keeps_session: !string.denies_sessions() })
    }

    /// Opens a connection and makes `settings` for its session.
    pub(super) async fn connect(&self, settings: &'static str) -> Result<PgConnection, Failure> {
        let failed = |error| Failure::of_connection(&self.address(), error);
        let mut connection = self.options.connect().await.map_err(failed)?;
        if self.keeps_session {
            sqlx::raw_sql(settings).execute(&mut connection).await.map_err(failed)?;
        }
        Ok(connection)
    }

    fn address(&self) -> Cow<'_, str> {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        match self.options.get_socket() {
            Some(socket) => socket.to_string_lossy(),
            None if host.contains(':') => format!("[{host}]:{port}").into(),
            None => format!("{host}:{port}").into(),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

/// Up to a number of connections to one server, opened when they are needed.
#[derive(Clone)]
pub(super) struct Connections {
    server: Server,
    settings: &'static str,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

struct Idle {
    connection: PgConnection,
    opened: Instant,
    since: Instant,
}

impl Connections {
    pub(super) fn new(server: Server, most: usize, settings: &'static str) -> Self {
        Self { server, settings, places: Arc::new(Semaphore::new(most)), idle: Arc::default() }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// A connection that has just answered: an idle one, or else a new one.
    ///
    /// Cancellation-safe: whatever was begun is closed.
    ///
    /// # Errors
    /// [`Failure::Unavailable`], after [`LEASE_TIMEOUT`] at the latest.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        match timeout(LEASE_TIMEOUT, self.lease_in_time()).await {
            Ok(outcome) => outcome,
            Err(_) if self.places.available_permits() == 0 => {
                Err(Failure::unavailable("all connections to the database are busy"))
            }
            Err(_) => Err(Failure::unavailable(format!(
                "{} did not answer within {} s",
                self.server.address(),
                LEASE_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn lease_in_time(&self) -> Result<Lease, Failure> {
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| Failure::unavailable("the connections are closed"))?;
        let (connection, opened) = match self.usable_idle().await {
            Some(idle) => (idle.connection, idle.opened),
            None => (self.server.connect(self.settings).await?, Instant::now()),
        };
        Ok(Lease { connection, opened, home: Arc::clone(&self.idle), place })
    }

    async fn usable_idle(&self) -> Option<Idle> {
        let mut idle = loop {
            let idle = lock(&self.idle).pop()?;
            if idle.since.elapsed() < MAX_IDLE && idle.opened.elapsed() < MAX_AGE {
                break idle;
            }
        };
        if matches!(timeout(PING_TIMEOUT, idle.connection.ping()).await, Ok(Ok(()))) {
            return Some(idle);
        }
        // What ended this one has most likely ended its neighbours.
        lock(&self.idle).clear();
        None
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A connection for one use. Dropping it closes it.
pub(super) struct Lease {
    connection: PgConnection,
    opened: Instant,
    home: Arc<Mutex<Vec<Idle>>>,
    place: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Puts the connection back. To be called only when the last statement has been answered.
    pub(super) fn keep(self) {
        let Self { connection, opened, home, place } = self;
        lock(&home).push(Idle { connection, opened, since: Instant::now() });
        // Only now, so that whoever waits for the place finds the connection.
        drop(place);
    }
}

/// A panic elsewhere cannot leave a list of connections half changed.
fn lock(idle: &Mutex<Vec<Idle>>) -> MutexGuard<'_, Vec<Idle>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
