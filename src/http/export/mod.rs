//! All of an answer as a file, however long: CSV or NDJSON, made while it is sent.
//!
//! | what | bound |
//! |---|---|
//! | files that are made at once | [`FILES`] |
//! | connections to the database that they take, all together | [`QUERIES`], each for a page at a time |
//! | memory of a file | two pages of rows, and two pieces of text |
//! | a client that takes nothing | as for every answer, see `server` |
//!
//! What goes wrong before the first row is answered like any other error. What goes wrong behind it is tried
//! again for a while, and then breaks the transfer off, so that nobody takes a part for the whole.

use std::sync::Arc;

use rocket::Request;
use rocket::http::{ContentType, Header};
use rocket::response::{self, Responder, Response};
use rocket::serde::json::Json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::together::Partial;

mod devices;
mod format;
mod rows;
mod sending;
mod source;
mod telemetry;

pub(super) use devices::devices;
pub(super) use format::{Accepted, Format, Wanted};
pub(super) use telemetry::telemetry;

/// Files that are made at once.
const FILES: usize = 8;

/// Connections to the database that they take: the others are for whoever asks for a page.
const QUERIES: usize = 2;

/// An answer to a request for rows.
#[derive(rocket::Responder)]
pub(super) enum Answered<T> {
    /// A page of them.
    Page(Json<T>),
    /// All of them; the body passes by, see `exchange`.
    File(Box<File>),
}

/// The head of a file.
pub(super) struct File {
    kind: ContentType,
    /// What it is called, and what may be missing in it.
    headers: Vec<Header<'static>>,
}

/// That something may be missing, as `partial` and `complete_from` of a page say it.
const PARTIAL: &str = "X-Partial";
const COMPLETE_FROM: &str = "X-Complete-From";

impl File {
    /// `name` needs no quoting.
    fn new(format: Format, name: &str, partial: Option<Partial>) -> Box<Self> {
        let disposition = format!("attachment; filename=\"{name}.{}\"", format.extension());
        let mut headers = vec![Header::new("Content-Disposition", disposition)];
        if let Some(Partial { complete_from }) = partial {
            headers.push(Header::new(PARTIAL, "true"));
            headers.extend(complete_from.map(|at| Header::new(COMPLETE_FROM, at.to_string())));
        }
        Box::new(Self { kind: format.content_type(), headers })
    }
}

impl<'r> Responder<'r, 'static> for File {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let mut answer = Response::build();
        answer.header(self.kind);
        for header in self.headers {
            answer.header(header);
        }
        answer.ok()
    }
}

/// Whose turn it is to make a file.
pub(super) struct Turns {
    files: Arc<Semaphore>,
    queries: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { files: Arc::new(Semaphore::new(FILES)), queries: Arc::new(Semaphore::new(QUERIES)) }
    }
}

impl Turns {
    fn take(&self) -> Result<Turn, ApiError> {
        let file = Arc::clone(&self.files).try_acquire_owned().map_err(|_| {
            ApiError::unavailable("too many files are being sent already; try again in a moment")
        })?;
        Ok(Turn { _file: file, queries: Arc::clone(&self.queries) })
    }
}

/// Leave to make one file.
struct Turn {
    _file: OwnedSemaphorePermit,
    queries: Arc<Semaphore>,
}

impl Turn {
    /// Waits for leave to ask the database.
    async fn query(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.queries).acquire_owned().await.ok()
    }
}
