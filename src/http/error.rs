//! Every error as `{"error":"…"}`: one sentence that says what to change, without internals.

use std::borrow::Cow;

use rocket::http::{Header, Method, Status};
use rocket::response::Responder;
use rocket::serde::json::Json;
use rocket::{Catcher, Request, Response, catch, catchers, response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::postgres::Failure;
use crate::status::health::Health;

/// Why a request was not answered; one status each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    /// 400: the request has to change; names the parameter.
    #[error("{0}")]
    BadRequest(String),
    /// 404: what the path names is not there.
    #[error("{0}")]
    NotFound(&'static str),
    /// 413: less has to be sent at once.
    #[error("{0}")]
    TooLarge(String),
    /// 415: the body has to be of another kind.
    #[error("{0}")]
    Unsupported(String),
    /// 422: the request is understood, but what it names is not fit for it.
    #[error("{0}")]
    Unfit(String),
    /// 503: the client tries again later.
    #[error("{0}")]
    Unavailable(Cow<'static, str>),
    /// 500: the table is not as it should be; says which column.
    #[error("{0}")]
    Table(String),
    /// 500: the reason is in the log, where it was put before this was made.
    #[error("internal error; the reason is in the server's log")]
    Internal,
}

impl ApiError {
    /// Turns a query that failed into its answer, and logs it. `name` is the parameter whose text was
    /// compared with names in the table.
    pub(super) fn of_query(health: &Health, failure: &Failure, name: &str) -> Self {
        if failure.is_untranslatable() {
            return Self::BadRequest(format!(
                "`{name}` contains a character that the database's encoding lacks, so nothing there \
                 has that name"
            ));
        }
        if failure.is_mismatch() {
            tracing::error!(%failure, "a request failed");
            return Self::Table(failure.to_string());
        }
        if failure.is_missing_table() {
            tracing::warn!(%failure, "a query found no table");
            return Self::unavailable("the database schema is not ready; try again in a moment");
        }
        if failure.is_configuration() || matches!(failure, Failure::Refused(_)) {
            return Self::internal(failure);
        }
        // An outage is the flusher's to report. It has, unless it had nothing to write.
        if health.is_database_up() {
            tracing::warn!(%failure, "a query failed");
        } else {
            tracing::debug!(%failure, "a query failed");
        }
        Self::unavailable("the database does not answer; try again in a moment")
    }

    /// Whether the database does not answer, or has no table yet, rather than refuse what it is asked.
    pub(super) fn is_outage(failure: &Failure) -> bool {
        let is_refusal = failure.is_configuration() || matches!(failure, Failure::Refused(_));
        let is_answer = failure.is_untranslatable() || failure.is_mismatch() || is_refusal;
        failure.is_missing_table() || !is_answer
    }

    /// A 503 that says no more than this.
    pub(super) fn unavailable(problem: &'static str) -> Self {
        Self::Unavailable(Cow::Borrowed(problem))
    }

    /// The same with `more` behind it, if it is a sentence of ours.
    pub(super) fn with(self, more: &str) -> Self {
        match self {
            Self::BadRequest(what) => Self::BadRequest(format!("{what}; {more}")),
            Self::TooLarge(what) => Self::TooLarge(format!("{what}; {more}")),
            Self::Unavailable(what) => Self::Unavailable(format!("{what}; {more}").into()),
            other => other,
        }
    }

    /// Logs what is hidden from the client.
    pub(super) fn internal(reason: &dyn std::fmt::Display) -> Self {
        tracing::error!(%reason, "a request failed");
        Self::Internal
    }

    fn status(&self) -> Status {
        match self {
            Self::BadRequest(_) => Status::BadRequest,
            Self::NotFound(_) => Status::NotFound,
            Self::TooLarge(_) => Status::PayloadTooLarge,
            Self::Unsupported(_) => Status::UnsupportedMediaType,
            Self::Unfit(_) => Status::UnprocessableEntity,
            Self::Unavailable(_) => Status::ServiceUnavailable,
            Self::Table(_) | Self::Internal => Status::InternalServerError,
        }
    }
}

impl<'r> Responder<'r, 'static> for ApiError {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let mut answer = Response::build_from(Body::of(&self.to_string()).respond_to(request)?);
        answer.status(self.status());
        if matches!(self, Self::Unavailable(_)) {
            answer.header(Header::new("Retry-After", "5"));
        }
        answer.ok()
    }
}

/// Everything that goes wrong outside a handler: no route, no right, a panic.
pub(super) fn catchers() -> Vec<Catcher> {
    catchers![unauthorized, otherwise]
}

#[derive(rocket::Responder)]
struct Challenge {
    body: Json<Body>,
    scheme: Header<'static>,
}

pub(super) const ADMIN_UNAUTHORIZED: &str =
    "the admin token is missing or wrong; send `Authorization: Bearer <ADMIN_TOKEN>`";
pub(super) const READ_UNAUTHORIZED: &str =
    "the token is missing or wrong; send `Authorization: Bearer <READ_TOKEN>`";

#[catch(401)]
fn unauthorized(request: &Request<'_>) -> Challenge {
    let is_admin = request.uri().path().starts_with("/admin") || request.method() != Method::Get;
    let problem = if is_admin { ADMIN_UNAUTHORIZED } else { READ_UNAUTHORIZED };
    Challenge { body: Body::of(problem), scheme: Header::new("WWW-Authenticate", "Bearer") }
}

#[catch(default)]
fn otherwise(status: Status, _: &Request<'_>) -> Json<Body> {
    Body::of(match status.code {
        400 => "the request is not valid HTTP; check the path and the query for stray characters",
        403 => "admin is switched off; set ADMIN_TOKEN and start the service again",
        404 => "there is no such route; check the path and the method",
        500 => "internal error; the reason is in the server's log",
        _ => status.reason_lossy(),
    })
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct Body {
    /// One sentence that says what went wrong and what to change.
    #[schema(example = "`limit` must be a whole number from 1 to 1000")]
    error: String,
}

impl Body {
    fn of(error: &str) -> Json<Self> {
        Json(Self { error: error.to_owned() })
    }
}
