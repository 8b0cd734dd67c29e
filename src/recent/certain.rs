//! From when on the log has everything.
//!
//! Readings carry the times of their devices, so that a reading is in the log says nothing of older or newer
//! ones: what was measured later may have been received, flushed and trimmed earlier. What can be vouched for
//! is this: every reading that this service has received is in the log, unless it was trimmed. So if the
//! latest time among all that was trimmed is known, everything measured after it is in the log.
//!
//! Of what this process has trimmed, the log knows that. Of what earlier ones have, the database knows it:
//! when its newest row was seen, everything that was flushed until then was no newer. After a start during an
//! outage nobody knows, and nothing is certain. A reading that is dated ahead moves the time ahead for all:
//! too late a time is a true answer, too early a one is not. What others write into the table beside this
//! service is vouched for by nobody while the database is away.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::ask::Ask;
use super::scan::{Budget, Found, LogPart, Unread, scan};
use super::silence::Silence;
use crate::base::time::{Clock, Timestamp};
use crate::wal::{Log, Offset, WalError};

/// Questions that are answered at once: each may take a processor for as long as it is answered.
const AT_ONCE: usize = 2;

/// Answers from the log.
pub(crate) struct Recent {
    pub(super) log: Log,
    clock: Arc<dyn Clock>,
    /// A search keeps its place to its end, also when nobody waits for it any more.
    pub(super) places: Arc<Semaphore>,
    /// To read all of the log for a page: one does it at a time.
    whole: Arc<Semaphore>,
    /// For files, which are read for as long as it takes: no page waits for them.
    files: Arc<Semaphore>,
    pub(super) silence: Silence,
    /// Devices that are silent, as last counted.
    pub(super) silent: AtomicU64,
    /// The tables, and as `None` the log, in which last values of before the start were looked for.
    pub(super) found: Mutex<HashSet<Option<String>>>,
    tables: Mutex<HashMap<String, Seen>>,
}

/// The newest row of a table.
#[derive(Clone, Copy)]
struct Seen {
    newest: Option<Timestamp>,
    /// Everything below was in the table, or in the dead letters.
    flushed: Offset,
}

/// Why the log gives no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecentError {
    /// It cannot be read.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The search broke off.
    #[error("the search in the log broke off")]
    BrokenOff,
}

impl Recent {
    /// Of this log.
    #[must_use]
    pub(crate) fn new(log: Log, silence: Silence, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            log,
            clock,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            whole: Arc::new(Semaphore::new(1)),
            files: Arc::new(Semaphore::new(AT_ONCE)),
            silence,
            silent: AtomicU64::new(0),
            found: Mutex::default(),
            tables: Mutex::default(),
        })
    }

    /// Every record below is in the database, or in the dead letters.
    #[must_use]
    pub(crate) fn flushed(&self) -> Offset {
        self.log.flushed()
    }

    /// What the log has. At once, if everything that it is asked for was flushed.
    ///
    /// # Errors
    /// See [`RecentError`].
    pub(crate) async fn find(&self, ask: &Arc<Ask>, part: LogPart) -> Result<Found, RecentError> {
        let is_empty = part == LogPart::Pending && self.flushed() >= *self.log.committed().borrow();
        if is_empty {
            return Ok(Found { is_counted: true, ..Found::default() });
        }
        let place = place(&self.places).await?;
        self.search(Arc::clone(ask), part, Budget::OF_PAGE, place).await
    }

    /// As [`Self::find`], however long it takes and without counting: for a page that could not be made otherwise.
    ///
    /// # Errors
    /// See [`RecentError`].
    pub(crate) async fn find_whole(&self, ask: &Ask, part: LogPart) -> Result<Found, RecentError> {
        let turn = place(&self.whole).await?;
        let ask = Arc::new(Ask { counted: 0, ..ask.clone() });
        let found = self.search(ask, part, Budget::OF_FILE, turn).await?;
        Ok(Found { is_counted: false, ..found })
    }

    /// As [`Self::find`], however long it takes: only what is more than may be kept is left unread.
    ///
    /// # Errors
    /// See [`RecentError`].
    pub(crate) async fn find_all(&self, ask: Ask, part: LogPart) -> Result<Found, RecentError> {
        let is_empty = part == LogPart::Pending && self.flushed() >= *self.log.committed().borrow();
        if is_empty {
            return Ok(Found::default());
        }
        let place = place(&self.files).await?;
        self.search(Arc::new(ask), part, Budget::OF_FILE, place).await
    }

    async fn search(
        &self,
        ask: Arc<Ask>,
        part: LogPart,
        budget: Budget,
        place: OwnedSemaphorePermit,
    ) -> Result<Found, RecentError> {
        let (log, clock) = (self.log.clone(), Arc::clone(&self.clock));
        let search = move |stop: &CancellationToken| scan(&log, &ask, part, budget, &*clock, stop);
        Ok(blocking(place, search).await??)
    }

    /// The newest row of `table` has this time, and everything below `flushed` was in it by then.
    pub(crate) fn note_newest(&self, table: &str, newest: Option<Timestamp>, flushed: Offset) {
        let unknown_below = self.log.gone().unknown_below;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // What is trimmed since then is known, so the first one that covers the rest says the most.
        let does = |seen: &Seen| seen.flushed >= unknown_below;
        if flushed >= unknown_below && !tables.get(table).is_some_and(does) {
            tables.insert(table.to_owned(), Seen { newest, flushed });
        }
    }

    /// From when on nothing of `table` is missing in an answer from the log alone, of which that was not read.
    /// To be asked after the log was read. `None` if nothing is certain.
    #[must_use]
    pub(crate) fn complete_from(&self, table: &str, unread: Option<Unread>) -> Option<Timestamp> {
        let seen = *self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(table)?;
        let gone = self.log.gone();
        if seen.flushed < gone.unknown_below {
            return None;
        }
        let unread = match unread {
            Some(unread) => Some(unread.newest?),
            None => None,
        };
        let newest = seen.newest.max(gone.newest).max(unread);
        let after = newest.map(|newest| newest.as_micros().saturating_add(1));
        after.map_or(Some(Timestamp::UNIX_EPOCH), Timestamp::from_micros)
    }
}

/// Runs a search off the runtime. It keeps its place to its end, and is told to stop when nobody waits for it
/// any more.
pub(super) async fn blocking<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    search: impl FnOnce(&CancellationToken) -> T + Send + 'static,
) -> Result<T, RecentError> {
    let stop = CancellationToken::new();
    let _on_drop = stop.clone().drop_guard();
    let search = move || {
        let _place = place;
        search(&stop)
    };
    tokio::task::spawn_blocking(search).await.map_err(|_| RecentError::BrokenOff)
}

/// The next place that is free.
pub(super) async fn place(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, RecentError> {
    Arc::clone(of).acquire_owned().await.map_err(|_| RecentError::BrokenOff)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Handle;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_search_that_nobody_waits_for_is_told_to_stop_and_keeps_its_place_to_its_end() {
        let places = Arc::new(Semaphore::new(1));
        let (starting, started) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let (release, held) = mpsc::channel::<()>();
        let search = move |stop: &CancellationToken| {
            starting.send(()).unwrap();
            Handle::current().block_on(stop.cancelled());
            tell.send(()).unwrap();
            held.recv().unwrap_err();
        };
        let place = place(&places).await.unwrap();
        let client = tokio::spawn(blocking(place, search));
        started.await.unwrap();
        client.abort();
        assert!(client.await.is_err());
        told.await.unwrap();
        assert_eq!(places.available_permits(), 0);
        drop(release);
        drop(places.acquire().await.unwrap());
    }
}
