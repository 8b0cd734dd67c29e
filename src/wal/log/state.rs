//! What the log's writer, readers and observers share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::ages::Ages;
use super::latest::Latest;
use super::retention::Retention;
use super::stretches::Stretches;
use crate::base::metrics::Metrics;
use crate::base::time::{Clock, Timestamp};
use crate::wal::contract::{self, Active, Positions, Quarantined, Storage, Unreadable};
use crate::wal::offset::Offset;
use crate::wal::tail::Tail;

/// How much the log may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes on disk at which the log counts as full.
    pub max_bytes: u64,
    /// Free bytes of the filesystem under which it counts as full.
    pub min_free_bytes: u64,
    /// Size at which a new generation starts; at most a quarter of `max_bytes` is used, so that
    /// a full log can drain in steps.
    pub generation_bytes: u64,
    /// How long flushed records stay, see `retention`; at most an eighth of `max_bytes` is used for them.
    pub retain: Duration,
}

impl Limits {
    pub(super) fn generation(&self) -> u64 {
        self.generation_bytes.min(self.max_bytes / 4)
    }

    pub(super) fn retained_bytes(&self) -> u64 {
        self.max_bytes / 8
    }
}

/// Whether the log takes records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It takes writes.
    Open,
    /// It does not, for this reason; it will again once it has drained.
    Full(String),
}

pub(super) struct Shared {
    pub(super) storage: Box<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) end: Mutex<End>,
    /// Held while a generation is opened.
    pub(super) opening: Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) stretches: Mutex<Stretches>,
    pub(super) latest: Latest,
    pub(super) positions: Mutex<Positions>,
    pub(super) committed: watch::Sender<Offset>,
    pub(super) room: watch::Sender<Room>,
    pub(super) poisoned: AtomicBool,
    /// Bytes in quarantine, as last looked up.
    pub(super) quarantine_bytes: AtomicU64,
}

/// The end of the log, where it grows.
pub(super) struct End {
    /// `None` while the filesystem is so full that there is no generation to write to.
    pub(super) active: Option<Arc<dyn Active>>,
    /// Where the active generation begins.
    pub(super) first: Offset,
    /// The offset that the next record gets.
    pub(super) next: Offset,
}

pub(super) struct State {
    pub(super) generations: BTreeMap<Offset, Generation>,
    /// Of the generations that are only read, those that are open, the one used last at the end.
    pub(super) open: Vec<Offset>,
    pub(super) flushed: Offset,
    pub(super) retention: Retention,
    pub(super) tail: Tail,
    /// When the record at an offset was received, as last read from disk.
    pub(super) oldest: Option<(Offset, Timestamp)>,
    pub(super) ages: Ages,
}

/// A generation of the log.
pub(super) struct Generation {
    /// One past its last record; `None` for the active one, which still grows.
    pub(super) end: Option<Offset>,
    pub(super) open: Option<Arc<dyn contract::Generation>>,
    /// Of one that no longer grows.
    pub(super) disk_bytes: u64,
    /// What its blocks come to without sled's overhead; until it was looked into, `disk_bytes`.
    pub(super) block_bytes: u64,
    /// What was found to be lost in it.
    pub(super) damage: Option<Quarantined>,
    /// What is made of a page in it that the disk does not read. It stays what it was when this process
    /// began, whoever reads in vain meanwhile: marks that readers leave are for the next one. Once all of it was
    /// read, an earlier error says nothing any more.
    pub(super) unreadable: Unreadable,
}

impl Generation {
    pub(super) fn active(active: &Arc<dyn Active>) -> Self {
        let open = Some(Arc::clone(active).as_generation());
        let unreadable = Unreadable::IsAnError;
        Self { end: None, open, disk_bytes: 0, block_bytes: 0, damage: None, unreadable }
    }

    /// An older one, not opened yet.
    pub(super) fn closed(end: Option<Offset>, disk_bytes: u64, unreadable: Unreadable) -> Self {
        Self { end, open: None, disk_bytes, block_bytes: disk_bytes, damage: None, unreadable }
    }

    pub(super) fn bytes(&self) -> u64 {
        match (&self.open, self.end) {
            (Some(active), None) => active.disk_bytes(),
            _ => self.disk_bytes,
        }
    }

    pub(super) fn lost_from(&self, offset: Offset) -> u64 {
        let lost = self.damage.iter().flat_map(|damage| &damage.lost_ranges);
        lost.filter(|range| range.to >= offset).map(|r| r.to - r.from.max(offset) + 1).sum()
    }
}

/// Generations that are open at once at most, beside the active one: that of the flusher, and that of
/// whoever else reads.
const OPEN_AT_ONCE: usize = 2;

impl State {
    /// The generation `first`, if it is open, which it stays for as long as no two others are used.
    pub(super) fn opened(&mut self, first: Offset) -> Option<Arc<dyn contract::Generation>> {
        let open = self.generations.get(&first)?.open.clone()?;
        if let Some(at) = self.open.iter().position(|other| *other == first) {
            self.open[at..].rotate_left(1);
        }
        Some(open)
    }

    /// Up to where flushed records are to go so that those that stay take `most` bytes.
    pub(super) fn excess(&self, most: u64, committed: Offset) -> Offset {
        let trimmed = self.retention.trimmed();
        let mut left = most;
        for (first, generation) in self.generations.iter().rev() {
            let bytes = generation.bytes();
            let (kept, bytes) = match generation.end {
                // Whatever waits in it keeps it here.
                Some(end) if end > self.flushed => continue,
                Some(end) if end <= trimmed => break,
                Some(end) => (self.flushed - end, bytes),
                // In proportion to its records.
                None => {
                    let kept = self.flushed.saturating_sub(trimmed.max(*first));
                    let share = u128::from(bytes) * u128::from(kept);
                    let share = share.checked_div(u128::from(committed.saturating_sub(*first)));
                    (kept, share.map_or(0, |share| u64::try_from(share).unwrap_or(bytes)))
                }
            };
            if bytes > left {
                let stay = match generation.end {
                    Some(_) => u128::from(kept),
                    None => u128::from(kept) * u128::from(left) / u128::from(bytes),
                };
                return self.flushed - u64::try_from(stay).unwrap_or(0);
            }
            left -= bytes;
        }
        trimmed
    }

    /// Takes the generation `first` out of the log.
    pub(super) fn remove(&mut self, first: Offset) -> Option<Generation> {
        self.open.retain(|open| *open != first);
        self.generations.remove(&first)
    }

    /// Keeps the generation `first` open, at the cost of the one that was not used for longest.
    pub(super) fn keep_open(&mut self, first: Offset, generation: Arc<dyn contract::Generation>) {
        let Some(kept) = self.generations.get_mut(&first) else { return };
        kept.open = Some(generation);
        self.open.retain(|other| *other != first);
        self.open.push(first);
        while self.open.len() > OPEN_AT_ONCE {
            let closed = self.open.remove(0);
            if let Some(generation) = self.generations.get_mut(&closed) {
                generation.open = None;
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not turn into a second one here; the supervisor ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
