//! How many files are made at once, and how many of them ask the database.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::ApiError;

/// Files that are made at once.
const FILES: usize = 8;

/// Connections to the database that they take: the others are for whoever asks for a page.
const QUERIES: usize = 2;

/// Whose turn it is to make a file.
pub(in crate::http) struct Turns {
    files: Arc<Semaphore>,
    queries: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { files: Arc::new(Semaphore::new(FILES)), queries: Arc::new(Semaphore::new(QUERIES)) }
    }
}

impl Turns {
    pub(super) fn take(&self) -> Result<Turn, ApiError> {
        let file = Arc::clone(&self.files).try_acquire_owned().map_err(|_| {
            ApiError::unavailable("too many files are being sent already; try again in a moment")
        })?;
        Ok(Turn { _file: file, queries: Arc::clone(&self.queries) })
    }
}

/// Leave to make one file.
pub(super) struct Turn {
    _file: OwnedSemaphorePermit,
    queries: Arc<Semaphore>,
}

impl Turn {
    /// Waits for leave to ask the database.
    pub(super) async fn query(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.queries).acquire_owned().await.ok()
    }
}
