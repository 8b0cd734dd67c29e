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
//! [`Lease::keep`] puts one back, and that is called after an answer. A connection that is being
//! opened when its caller gives up is finished and put with the idle ones: over a long way that takes
//! more time than a query may.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::failure::Failure;
use super::reuse::{Past, Reuse, reuse};
use super::server::Server;
use super::session::{Session, Setting};

/// Longest wait for a place among the connections.
const PLACE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for an idle connection to prove that it still works, or so many of its round trips;
/// leaves time for a new one.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
const PING_ROUND_TRIPS: u32 = 4;

/// Up to a number of connections to one server, opened when they are needed.
#[derive(Clone)]
pub(super) struct Connections {
    server: Server,
    settings: &'static [Setting],
    /// How long an idle connection is believed to work without a question.
    trust: Duration,
    places: Arc<Semaphore>,
    home: SharedIdle,
}

type SharedIdle = Arc<IdleConnections>;

/// Where connections are between their uses.
#[derive(Default)]
struct IdleConnections {
    idle: Mutex<Vec<Idle>>,
    /// The version of the login that a connection must have been opened with to be used again.
    login: AtomicU64,
}

impl IdleConnections {
    /// A panic elsewhere cannot leave a list of connections half changed.
    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Idle {
    session: Session,
    opened: Opened,
    since: Instant,
}

impl Idle {
    fn past(&self) -> Past {
        let Opened { at, login } = self.opened;
        Past { age: at.elapsed(), idle: self.since.elapsed(), login }
    }
}

/// When a connection was opened, and with which version of the login.
#[derive(Clone, Copy)]
struct Opened {
    at: Instant,
    login: u64,
}

impl Connections {
    pub(super) fn new(
        server: Server,
        most: usize,
        settings: &'static [Setting],
        trust: Duration,
    ) -> Self {
        Self {
            server,
            settings,
            trust,
            places: Arc::new(Semaphore::new(most)),
            home: Arc::default(),
        }
    }

    /// Closes what is idle: it may lead to a server that does not count any more.
    pub(super) fn forget_idle(&self) {
        self.home.lock().clear();
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// From now on connections are used again only if they were opened with this version of the login.
    pub(super) fn retire_before(&self, login: u64) {
        self.home.login.store(login, Ordering::Release);
        self.home.lock().retain(|idle| idle.opened.login >= login);
    }

    /// A connection that has answered just now: an idle one, or else a new one.
    ///
    /// Cancellation-safe: a connection that is being opened is for the next caller.
    ///
    /// # Errors
    /// [`Failure::Unavailable`], after the time for connecting and a little more at the latest.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        let place = timeout(PLACE_TIMEOUT, Arc::clone(&self.places).acquire_owned());
        let place = match place.await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(Failure::unavailable("the connections are closed")),
            Err(_) => {
                return Err(Failure::unavailable(
                    "all connections to the database are busy, or still being opened",
                ));
            }
        };
        match self.usable_idle().await {
            Some(Idle { session, opened, .. }) => {
                Ok(Lease { session, opened, home: Arc::clone(&self.home), place })
            }
            None => self.open(place).await,
        }
    }

    async fn open(&self, place: OwnedSemaphorePermit) -> Result<Lease, Failure> {
        let (server, settings, home) = (self.server.clone(), self.settings, Arc::clone(&self.home));
        let (done, outcome) = oneshot::channel();
        tokio::spawn(async move {
            let opened = server.connect(settings).await.map(|(session, login)| Lease {
                session,
                opened: Opened { at: Instant::now(), login },
                home,
                place,
            });
            // Nobody waits for it any more.
            if let Err(Ok(lease)) = done.send(opened) {
                lease.keep();
            }
        });
        outcome.await.unwrap_or_else(|_| Err(Failure::unavailable("connecting was broken off")))
    }

    async fn usable_idle(&self) -> Option<Idle> {
        let mut idle = loop {
            let idle = self.home.lock().pop()?;
            let login = self.home.login.load(Ordering::Acquire);
            match reuse(idle.past(), self.trust, login) {
                Reuse::AtOnce => return Some(idle),
                Reuse::IfItAnswers => break idle,
                Reuse::No => {}
            }
        };
        let patience = PING_TIMEOUT.max(idle.session.round_trip() * PING_ROUND_TRIPS);
        if matches!(timeout(patience, idle.session.ping()).await, Ok(Ok(()))) {
            return Some(idle);
        }
        // What ended this one has most likely ended its neighbours.
        self.home.lock().clear();
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
    session: Session,
    opened: Opened,
    home: SharedIdle,
    place: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Puts the connection back as if it had just been opened: what was found out by way of it may not count.
    pub(super) fn keep_as_new(mut self) {
        self.session.set_new();
        self.keep();
    }

    /// Puts the connection back. To be called only when the last statement has been answered, and
    /// what was begun has been ended.
    pub(super) fn keep(self) {
        let Self { session, opened, home, place } = self;
        {
            let mut idle = home.lock();
            if opened.login >= home.login.load(Ordering::Acquire) {
                idle.push(Idle { session, opened, since: Instant::now() });
            }
        }
        // Only now, so that whoever waits for the place finds the connection.
        drop(place);
    }
}
