//! Connections: accepts them, bounds them, and hands their requests to Rocket.
//!
//! Rocket 0.5's own server waits for ever for a client that sends half a request, or none: a few
//! hundred of those would take the file descriptors that the log needs. So the connections are
//! hyper's, which Rocket's server is made of too, with every limit set here; routes, guards,
//! catchers and fairings are Rocket's, reached through its local client.
//!
//! | what | bound |
//! |---|---|
//! | connections at once | [`CONNECTIONS`], more wait to be accepted |
//! | a request's head, idle time between two requests | Rocket's `keep_alive` seconds |
//! | size of a head | [`HEAD_MAX_BYTES`], [`HEADERS_MAX`] headers |
//! | a body | none is read; the connection is closed behind the answer if one was sent |
//! | a client that takes nothing of its answer | [`SILENCE`] |

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rocket::http::{Header, Method};
use rocket::local::asynchronous::Client;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections that are served at once.
const CONNECTIONS: usize = 128;

/// Bytes of a request line and its headers.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// How long a client may leave an answer untouched before the kernel drops the connection.
const SILENCE: Duration = Duration::from_secs(20);

/// After an error of `accept`, which is mostly one of too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// A listening socket and what answers on it.
pub(super) struct Server {
    listener: TcpListener,
    rocket: Arc<Client>,
    connections: http1::Builder,
    grace: Duration,
}

impl Server {
    /// Listens on `address`.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) async fn bind(address: SocketAddr, rocket: Client) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let config = rocket.rocket().config();
        let patience = Duration::from_secs(config.keep_alive.max(1).into());
        let mut connections = http1::Builder::new();
        connections
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .keep_alive(config.keep_alive > 0)
            .max_buf_size(HEAD_MAX_BYTES)
            .max_headers(HEADERS_MAX);
        let grace = Duration::from_secs(u64::from(
            config.shutdown.grace.saturating_add(config.shutdown.mercy),
        ));
        Ok(Self { listener, rocket: Arc::new(rocket), connections, grace })
    }

    /// Where it listens; the port is a real one, also if 0 was asked for.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop, then ends what is under way within the grace.
    pub(super) async fn run(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                (stream, place) = self.accept(&places) => {
                    let serving = self.serve(stream, stop.clone());
                    open.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Some(_) = open.join_next() => {}
            }
        }
        drop(self.listener);
        let ended = async { while open.join_next().await.is_some() {} };
        // Who has not taken their answer by then is cut off when the set is dropped.
        tokio::time::timeout(self.grace, ended).await.ok();
    }

    /// The next connection, as soon as there is a place for it. Cancellation-safe.
    async fn accept(&self, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
        let place = Arc::clone(places).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return (stream, place),
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
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        // A connection on which that fails has just been closed.
        stream.set_nodelay(true).ok();
        let silence = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&stream, silence).ok();
        let rocket = Arc::clone(&self.rocket);
        let connection = self.connections.serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| answer(Arc::clone(&rocket), request)),
        );
        async move {
            tokio::pin!(connection);
            let outcome = tokio::select! {
                outcome = &mut connection => outcome,
                () = stop.cancelled() => {
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

/// Has Rocket answer a request; whatever the client does meanwhile, its handler runs to its end.
async fn answer(
    rocket: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answering = tokio::spawn(async move { dispatch(&rocket, &request).await });
    let answer = answering.await.ok().flatten();
    Ok(answer.unwrap_or_else(|| {
        tracing::error!("a request could not be answered");
        let body = r#"{"error":"internal error; the reason is in the server's log"}"#;
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }))
}

async fn dispatch(rocket: &Client, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    // No route takes TRACE either: a method that Rocket has no name for ends as one that it has.
    let method = request.method().as_str().parse().unwrap_or(Method::Trace);
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let mut local = rocket.req(method, target);
    for (name, value) in request.headers() {
        // Nothing here reads a header that is not text.
        if let Ok(value) = value.to_str() {
            local.add_header(Header::new(name.as_str().to_owned(), value.to_owned()));
        }
    }
    let answer = local.dispatch().await;
    let mut response = Response::builder().status(answer.status().code);
    for header in answer.headers().iter() {
        response = response.header(header.name.as_str(), header.value());
    }
    let body = answer.into_bytes().await.unwrap_or_default();
    response.body(Full::from(body)).ok()
}
