//! A request's way into Rocket and its answer's way out, reached through Rocket's local client.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use rocket::http::{Header, Method};
use rocket::local::asynchronous::Client;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::exchange::{Download, Exchange};

/// The body of an answer: held as a whole, or made while it is sent.
pub(super) type AnswerBody = Either<Full<Bytes>, Download>;

/// Requests that are being answered at once. What changes something runs to its end whatever its client
/// does meanwhile, so it is not connections that bound this.
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
    ) -> Response<AnswerBody> {
        let place = if takes_place(request.method(), request.uri().path()) {
            Arc::clone(&self.handlers).acquire_owned().await.ok()
        } else {
            None
        };
        let only_reads = only_reads(request.method());
        let answering = async move {
            let answer = dispatch(&self.rocket, remote, request).await;
            drop(place);
            answer
        };
        let answered =
            if only_reads { or_stop(answering).await } else { to_the_end(answering).await };
        answered.flatten().unwrap_or_else(|| {
            tracing::error!("a request could not be answered");
            let body = r#"{"error":"internal error; the reason is in the server's log"}"#;
            let mut answer = Response::new(Either::Left(Full::from(body)));
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        })
    }
}

/// Whether the request is one of those that [`HANDLERS`] bounds. Questions of health take no time, and are
/// asked when all else hangs.
fn takes_place(method: &hyper::Method, path: &str) -> bool {
    !(only_reads(method) && path.starts_with("/health/"))
}

fn only_reads(method: &hyper::Method) -> bool {
    matches!(*method, hyper::Method::GET | hyper::Method::HEAD)
}

/// Answers somebody who only reads: whoever has gone needs no answer, so dropping this ends the work.
async fn or_stop<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    AbortOnDropHandle::new(tokio::spawn(work)).await.ok()
}

/// Answers somebody who changes something, which is done whole or not begun: dropping this leaves the
/// work running.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    tokio::spawn(work).await.ok()
}

async fn dispatch(
    rocket: &Client,
    remote: SocketAddr,
    request: Request<Incoming>,
) -> Option<Response<AnswerBody>> {
    let (request, upload) = request.into_parts();
    // No route takes TRACE either: a method that Rocket has no name for ends as one that it has.
    let method = request.method.as_str().parse().unwrap_or(Method::Trace);
    let target = request.uri.path_and_query().map_or("", |target| target.as_str());
    let mut local = rocket.req(method, target).remote(remote);
    for (name, value) in &request.headers {
        // Nothing here reads a header that is not text.
        if let Ok(value) = value.to_str() {
            local.add_header(Header::new(name.as_str().to_owned(), value.to_owned()));
        }
    }
    let exchange = Exchange::of(upload);
    local.inner().local_cache(|| exchange.clone());
    let answer = local.dispatch().await;
    let mut response = Response::builder().status(answer.status().code);
    for header in answer.headers().iter() {
        response = response.header(header.name.as_str(), header.value());
    }
    let body = match exchange.take_download() {
        Some(download) => Either::Right(download),
        None => Either::Left(Full::from(answer.into_bytes().await.unwrap_or_default())),
    };
    response.body(body).ok()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_only_reads_ends_with_its_client_and_what_changes_something_does_not() {
        let (alive, ended) = oneshot::channel::<()>();
        let reading = or_stop(async move {
            let _alive = alive;
            pending::<()>().await;
        });
        assert!(timeout(Duration::from_millis(1), reading).await.is_err());
        assert!(ended.await.is_err(), "dropped with the work");
        let (go, begun) = oneshot::channel::<()>();
        let (done, outcome) = oneshot::channel();
        let changing = to_the_end(async move {
            begun.await.ok();
            done.send(()).ok();
        });
        assert!(timeout(Duration::from_millis(1), changing).await.is_err());
        go.send(()).unwrap();
        assert_eq!(outcome.await, Ok(()));
    }

    #[test]
    fn only_a_question_of_health_needs_no_place() {
        use hyper::Method;
        assert!(!takes_place(&Method::GET, "/health/live"));
        assert!(!takes_place(&Method::HEAD, "/health/ready"));
        assert!(takes_place(&Method::POST, "/health/live"));
        assert!(takes_place(&Method::GET, "/healthy"));
        assert!(takes_place(&Method::GET, "/api/v1/telemetry"));
    }

    #[tokio::test]
    async fn a_panic_is_no_answer() {
        assert_eq!(or_stop(async { panic!("on purpose") }).await, None::<()>);
        assert_eq!(to_the_end(async { panic!("on purpose") }).await, None::<()>);
    }
}
