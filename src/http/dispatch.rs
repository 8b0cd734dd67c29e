//! A request's way into Rocket and its answer's way out, reached through Rocket's local client.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use rocket::http::{Header, Method};
use rocket::local::asynchronous::Client;
use tokio::sync::Semaphore;

/// Requests that are being answered at once. Whatever a client does meanwhile, what answers it runs to
/// its end, so it is not connections that bound this.
const HANDLERS: u32 = 128;

/// What answers requests.
pub(super) struct Dispatcher {
    rocket: Client,
    handlers: Arc<Semaphore>,
}

impl Dispatcher {
    pub(super) fn new(rocket: Client) -> Self {
        Self { rocket, handlers: Arc::new(Semaphore::new(HANDLERS as usize)) }
    }

    /// Waits until nothing is being answered any more. Cancellation-safe.
    pub(super) async fn idle(&self) {
        // It is never closed.
        drop(self.handlers.acquire_many(HANDLERS).await);
    }

    /// Has Rocket answer a request.
    pub(super) async fn answer(
        self: Arc<Self>,
        remote: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let is_health = request.uri().path().starts_with("/health/");
        // These take no time, and are asked when all else hangs.
        let place =
            if is_health { None } else { Arc::clone(&self.handlers).acquire_owned().await.ok() };
        let answering = tokio::spawn(async move {
            let answer = dispatch(&self.rocket, remote, &request).await;
            drop(place);
            answer
        });
        answering.await.ok().flatten().unwrap_or_else(|| {
            tracing::error!("a request could not be answered");
            let body = r#"{"error":"internal error; the reason is in the server's log"}"#;
            let mut answer = Response::new(Full::from(body));
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        })
    }
}

async fn dispatch(
    rocket: &Client,
    remote: SocketAddr,
    request: &Request<Incoming>,
) -> Option<Response<Full<Bytes>>> {
    // No route takes TRACE either: a method that Rocket has no name for ends as one that it has.
    let method = request.method().as_str().parse().unwrap_or(Method::Trace);
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let mut local = rocket.req(method, target).remote(remote);
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
