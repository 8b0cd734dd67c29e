//! The dead-letter store: what was rejected, on stable storage before its message is acknowledged.
//!
//! `WAL_DIR/dead-letters/` holds segments of lines. Lines can be read with `cut` and `jq` when nothing
//! else works, and one that is damaged takes none of its neighbours with it. Only the position of each
//! line is kept in memory. Ids rise by one and are never used again.
//!
//! The store is bounded by `DEAD_LETTER_MAX_BYTES`, in three classes with segments of their own:
//!
//! - what was rejected by decoding or validation (`<first id, 20 digits>.log`) is a ring: past the bound
//!   its oldest segment goes, and its letters are counted;
//! - what no mapping takes (`<first id>.unmatched.log`) is a ring of an eighth of the bound, so that noise
//!   pushes nothing else out;
//! - what the database refused (`<first id>.database.log`) are acknowledged readings. They never go by
//!   themselves, and for their sake the oldest others do. Where they would take more than three quarters,
//!   the append fails ([`DeadLetterError::is_full`]) and the row stays in the log.
//!
//! Segments of earlier versions hold letters of every stage; such a one stays while a letter in it is an
//! acknowledged reading.
//!
//! A full disk fails the append and evicts nothing: somebody else may have filled it. Letters are removed
//! by one byte that is written over, and a segment without letters is deleted, so a full disk can be
//! cleared.
//!
//! What one message makes is bounded, whatever it holds: topic and reason are cut off, and a message of
//! which many parts are rejected is stored once, with the place of each part in it.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::base::metrics::Metrics;
use crate::telemetry::rejection::Stage;

mod letter;
mod line;
mod room;
mod segment;
mod settings;
mod store;

pub use letter::RejectedMessage;
pub(crate) use letter::{
    DeadLetter, DeadLetterError, NewDeadLetter, PAYLOAD_MAX_BYTES, Page, REASON_MAX_BYTES,
    RejectedPart, TOPIC_MAX_BYTES,
};
pub(crate) use settings::{SETTINGS, Settings};

use line::Entry;
use store::Store;

/// The store.
pub(crate) struct DeadLetters {
    metrics: Metrics,
    store: Mutex<Store>,
    /// Why a removal may not be durable.
    failure: watch::Sender<Option<String>>,
}

impl DeadLetters {
    /// Opens the store in `dir`, making it if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be used, or a segment in it not be read: damage is no such reason.
    pub(crate) fn open(
        dir: &Path,
        max_bytes: u64,
        metrics: &Metrics,
    ) -> Result<Self, DeadLetterError> {
        let store = Store::open(dir, max_bytes)?;
        metrics.dead_letter_max_bytes.set(i64::try_from(max_bytes).unwrap_or(i64::MAX));
        let failure = watch::Sender::new(None);
        let letters = Self { metrics: metrics.clone(), store: Mutex::new(store), failure };
        letters.update_gauges(&letters.lock());
        Ok(letters)
    }

    /// Stores `letters`; when this returns they survive a power cut. Blocks on the disk.
    ///
    /// # Errors
    /// If that is not certain.
    pub(crate) fn append(&self, letters: &[NewDeadLetter<'_>]) -> Result<(), DeadLetterError> {
        self.write(&letters.iter().cloned().map(Entry::Letter).collect::<Vec<_>>())
    }

    /// Stores what was rejected of `messages`, as [`Self::append`] does.
    ///
    /// # Errors
    /// If that is not certain.
    pub(crate) fn append_messages(
        &self,
        messages: &[RejectedMessage<'_>],
    ) -> Result<(), DeadLetterError> {
        self.write(&messages.iter().copied().flat_map(Entry::of).collect::<Vec<_>>())
    }

    fn write(&self, entries: &[Entry<'_>]) -> Result<(), DeadLetterError> {
        let mut store = self.lock();
        let stored = store.append(entries, &mut |letters| self.report_evicted(letters));
        self.update_gauges(&store);
        stored?;
        for stage in entries.iter().flat_map(Entry::stages) {
            self.metrics.dead_lettered(stage.as_str());
        }
        Ok(())
    }

    /// Up to `limit` letters with ids above `after`. Blocks on the disk.
    ///
    /// # Errors
    /// If they cannot be read; damaged ones are skipped.
    pub(crate) fn page(&self, after: Option<u64>, limit: usize) -> Result<Page, DeadLetterError> {
        self.lock().page(after, limit).map_err(failed_to("read dead letters"))
    }

    /// The letter `id`, if it is there. Blocks on the disk.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn get(&self, id: u64) -> Result<Option<DeadLetter>, DeadLetterError> {
        self.lock().get(id).map_err(failed_to("read dead letters"))
    }

    /// Removes the letter `id`, durably; false if it is not there. Blocks on the disk; works on a
    /// full one, too.
    ///
    /// # Errors
    /// If that is not certain; see [`Self::failed`].
    pub(crate) fn remove(&self, id: u64) -> Result<bool, DeadLetterError> {
        let mut store = self.lock();
        let failed_before = store.failed();
        let removed = store.remove(id).map_err(failed_to("remove a dead letter"));
        self.update_gauges(&store);
        // What failed before was told, or was no removal.
        if let Err(error) = &removed
            && store.failed() > failed_before
        {
            self.failure.send_replace(Some(error.to_string()));
        }
        removed
    }

    /// Waits until a removal has failed so that nobody knows whether it is durable, and says why: the process is
    /// to end in order then, and the next start sees what is there. Cancellation-safe.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        // The sender is there for as long as this is.
        let failure = failure.wait_for(Option::is_some).await.ok();
        failure.and_then(|failure| failure.clone()).unwrap_or_default()
    }

    fn report_evicted(&self, letters: u64) {
        if letters > 0 {
            self.metrics.dead_letters_evicted.inc_by(letters);
            tracing::warn!(
                letters,
                "the dead-letter store is full: its oldest letters were dropped; those that the database refused are kept"
            );
        }
    }

    fn update_gauges(&self, store: &Store) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.dead_letters.set(gauge(store.live()));
        for stage in Stage::ALL {
            self.metrics.set_dead_letter_bytes(stage.as_str(), gauge(store.bytes_of(stage)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed_to(what: &'static str) -> impl FnOnce(io::Error) -> DeadLetterError {
    move |source| DeadLetterError::Io { what, source }
}

#[cfg(test)]
mod tests;
