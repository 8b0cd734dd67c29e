//! Connections: accepts them, bounds them, and hands their requests to Rocket.
//!
//! Rocket 0.5's own server waits for ever for a client that sends half a request, or none: a few
//! hundred of those would take the file descriptors that the log needs. So the connections are
//! hyper's, which Rocket's server is made of too, with every limit set here; routes, guards,
//! catchers and fairings are Rocket's (`dispatch`).
//!
//! | what | bound |
//! |---|---|
//! | connections at once, of one address, kept for this machine | `connection_limits` |
//! | requests that are being answered | `dispatch` |
//! | a TLS handshake | [`HANDSHAKE`] |
//! | a request's head, idle time between two requests | Rocket's `keep_alive` seconds |
//! | size of a head | [`HEAD_MAX_BYTES`], [`HEADERS_MAX`] headers |
//! | a body | see `upload`; no other is read, and the connection is closed behind the answer |
//! | a client that takes nothing of its answer | [`SILENCE`] |

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Either;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rocket::local::asynchronous::Client;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::connection_limits::{Activity, Admission, ConnectionLimits};
use super::dispatch::Dispatcher;
use super::failed_attempts::network;
use super::tls::Tls;
use super::wire::{self, JsonErrors, Plain, Stream};

/// Bytes of a request line and its headers.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// How long a client may leave an answer untouched before the kernel drops the connection.
const SILENCE: Duration = Duration::from_secs(20);

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// After an error of `accept`, which is mostly one of too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// How often an idle connection is looked for while no more may be opened.
const PLACE_PAUSE: Duration = Duration::from_millis(20);

/// How often what wrong tokens came in is told, if it is due.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// A listening socket and what answers on it.
pub(super) struct Server {
    listener: TcpListener,
    dispatcher: Arc<Dispatcher>,
    connections: http1::Builder,
    tls: Option<Arc<Tls>>,
    access: Arc<Access>,
    is_crowded: Arc<AtomicBool>,
    grace: Duration,
}

/// A connection, as seen by whoever may have to close it.
struct Connection {
    activity: Mutex<Activity>,
    /// Whether its answer is made while it is sent.
    has_download: Arc<AtomicBool>,
    close: CancellationToken,
}

impl Connection {
    fn set(&self, activity: Activity) {
        *self.activity.lock().unwrap_or_else(PoisonError::into_inner) = activity;
    }

    fn activity(&self) -> Activity {
        *self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) async fn bind(
        address: SocketAddr,
        rocket: Client,
        tls: Option<Arc<Tls>>,
        access: Arc<Access>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let config = rocket.rocket().config();
        let head_timeout = Duration::from_secs(config.keep_alive.max(1).into());
        let mut connections = http1::Builder::new();
        connections
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .keep_alive(config.keep_alive > 0)
            .max_buf_size(HEAD_MAX_BYTES)
            .max_headers(HEADERS_MAX);
        let grace = Duration::from_secs(u64::from(
            config.shutdown.grace.saturating_add(config.shutdown.mercy),
        ));
        let dispatcher = Arc::new(Dispatcher::new(rocket));
        let is_crowded = Arc::default();
        Ok(Self { listener, dispatcher, connections, tls, access, is_crowded, grace })
    }

    /// Where it listens; the port is a real one, also if 0 was asked for.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop, then ends what is under way within the grace.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut limits = ConnectionLimits::new();
        let mut open = JoinSet::new();
        let mut report = tokio::time::interval(REPORT_PAUSE);
        let mut connections: HashMap<Id, Arc<Connection>> = HashMap::new();
        loop {
            let is_full = limits.is_full();
            if is_full && let Some(idle) = limits.longest_idle(Instant::now()) {
                close(&connections, idle);
            }
            self.is_crowded.store(limits.is_crowded(), Ordering::Relaxed);
            tokio::select! {
                () = stop.cancelled() => break,
                (stream, remote) = self.accept(), if !is_full => {
                    let address = network(remote.ip());
                    match limits.admit(address, Instant::now()) {
                        Admission::Accept => {}
                        Admission::Evict(idle) => close(&connections, idle),
                        Admission::Refuse => {
                            refuse(stream).await;
                            continue;
                        }
                    }
                    let connection = Arc::new(Connection {
                        activity: Mutex::new(Activity::Opened(Instant::now())),
                        has_download: Arc::default(),
                        close: CancellationToken::new(),
                    });
                    let serving = self.serve(stream, remote, Arc::clone(&connection), stop.clone());
                    let id = open.spawn(serving).id();
                    connections.insert(id, Arc::clone(&connection));
                    let activity =
                        move || (!connection.close.is_cancelled()).then(|| connection.activity());
                    limits.add(id, address, activity);
                }
                Some(ended) = open.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    connections.remove(&id);
                    limits.remove(id);
                }
                () = tokio::time::sleep(PLACE_PAUSE), if is_full => {}
                _ = report.tick() => self.access.report(),
            }
        }
        drop(self.listener);
        let ended = async {
            while open.join_next().await.is_some() {}
            self.dispatcher.idle().await;
        };
        // Who has not taken their answer by then is cut off when the set is dropped.
        tokio::time::timeout(self.grace, ended).await.ok();
    }

    /// The next connection. Cancellation-safe.
    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Answers what comes in on a connection until either side has enough.
    fn serve(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        open: Arc<Connection>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        // A connection on which that fails has just been closed.
        stream.set_nodelay(true).ok();
        let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, silence).ok();
        let (dispatcher, is_crowded) = (Arc::clone(&self.dispatcher), Arc::clone(&self.is_crowded));
        let (connections, tls) = (self.connections.clone(), self.tls.clone());
        let close = open.close.clone();
        let asked = Arc::clone(&open);
        let service = service_fn(move |request| {
            asked.set(Activity::Busy);
            let (dispatcher, is_crowded) = (Arc::clone(&dispatcher), Arc::clone(&is_crowded));
            let open = Arc::clone(&asked);
            async move {
                let mut answer = dispatcher.answer(remote, request).await;
                let mut closes = is_crowded.load(Ordering::Relaxed);
                match answer.body_mut() {
                    Either::Left(_) => open.set(Activity::Answered(Instant::now())),
                    // The last one on its connection, the end of which tells whether it is whole, see `wire`.
                    Either::Right(download) => {
                        closes = true;
                        open.has_download.store(true, Ordering::Relaxed);
                        download.when_over(move || open.set(Activity::Answered(Instant::now())));
                    }
                }
                if closes {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        async move {
            let greeted = tokio::select! {
                greeted = greet(stream, tls, &open.has_download) => greeted,
                () = close.cancelled() => return,
            };
            let Some(stream) = greeted else { return };
            let has_download = Arc::clone(&open.has_download);
            let connection = connections
                .serve_connection(TokioIo::new(JsonErrors::new(stream, has_download)), service);
            tokio::pin!(connection);
            let outcome = tokio::select! {
                outcome = &mut connection => outcome,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = close.cancelled() => {
                    if matches!(open.activity(), Activity::Opened(_)) {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "an HTTP connection ended early");
            }
        }
    }
}

fn close(connections: &HashMap<Id, Arc<Connection>>, id: Id) {
    if let Some(connection) = connections.get(&id) {
        connection.close.cancel();
    }
}

/// Tells a client that it has connections enough, if it takes that at once.
async fn refuse(mut stream: TcpStream) {
    const PROBLEM: &str = "this address has too many connections open; close some";
    let answer = wire::response("503 Service Unavailable", PROBLEM);
    let told = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(Duration::from_millis(10), told).await.ok();
}

/// The stream itself, after its handshake if there is one.
async fn greet(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    has_download: &Arc<AtomicBool>,
) -> Option<Stream> {
    let Some(tls) = tls else {
        return Some(Stream::Plain(Plain::new(stream, Arc::clone(has_download))));
    };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}
