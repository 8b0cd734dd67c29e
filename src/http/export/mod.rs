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

use rocket::Responder;
use rocket::http::{ContentType, Header};
use rocket::serde::json::Json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

mod devices;
mod format;
mod rows;
mod telemetry;

pub(super) use devices::devices;
pub(super) use format::{Accepted, Format, Wanted};
pub(super) use telemetry::telemetry;

/// Files that are made at once.
const FILES: usize = 8;

/// Connections to the database that they take: the others are for whoever asks for a page.
const QUERIES: usize = 2;

/// An answer to a request for rows.
#[derive(Responder)]
pub(super) enum Answered<T> {
    /// A page of them.
    Page(Json<T>),
    /// All of them; the body passes by, see `exchange`.
    File(Box<File>),
}

/// The head of a file.
#[derive(Responder)]
pub(super) struct File {
    body: (),
    kind: ContentType,
    name: Header<'static>,
}

impl File {
    /// `name` needs no quoting.
    fn new(format: Format, name: &str) -> Box<Self> {
        let disposition = format!("attachment; filename=\"{name}.{}\"", format.extension());
        let name = Header::new("Content-Disposition", disposition);
        Box::new(Self { body: (), kind: format.content_type(), name })
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
            ApiError::unavailable("as many files as may be are being sent; try again in a moment")
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
