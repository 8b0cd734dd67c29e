//! The log itself: offsets, rotation, order and continuity over any [`Storage`].
//!
//! Writing: one [`Writer`] appends to the newest generation and commits in groups. At
//! [`Limits::generation_bytes`] a new generation starts, and also when little is pending in one
//! that an outage has blown up, since sled's files do not shrink.
//!
//! Reading: from the tail in memory, else from the generation that holds the offset, opened when
//! it is first needed. Offsets are continuous, so what damage took is known by offset: it is
//! reported as lost, once, and skipped.
//!
//! Opening: every process starts a generation of its own, so what an earlier one left behind is
//! only ever read. Of those, only the newest is looked into, to find the end of the log.
//!
//! Deletion: a generation whose records are all flushed is deleted, or set aside in quarantine if
//! it was damaged. Neither needs free space, so a full disk can always drain.
//!
//! Quarantine: a person may read out of a damaged generation what this program cannot, so it stays
//! there until somebody deletes it. But readings that are not stored yet are worth more: quarantine
//! counts for the limits, and where they are reached the oldest damaged generations go, each but for
//! its report. A generation of an unknown version holds readings that nobody else has, and is never
//! deleted here.
//!
//! Locks, always taken in this order: `tip` (for a commit or a roll), `opening` (while a generation
//! is opened), `state` (short, never across I/O on blocks), `positions` (while they are noted).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::WalError;
use super::contract::{Active, Generation, Known, Positions, Quarantined, Sealed, Storage};
use super::frame::{Offset, OffsetRange};
use super::tail::Tail;
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;

mod generations;
mod reader;
mod stats;
mod writer;

pub use reader::Batch;
pub use stats::{GenerationStats, Stats};
pub use writer::Writer;

/// More than a database without a record takes on disk.
const EMPTY_BYTES: u64 = 16 * 1024;

/// More records than a byte on disk can hold: a frame takes 52 bytes and holds 450 records at most.
const RECORDS_A_BYTE: u64 = 16;

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
}

impl Limits {
    fn generation(&self) -> u64 {
        self.generation_bytes.min(self.max_bytes / 4)
    }
}

/// Whether the log takes records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Room {
    /// It does.
    Open,
    /// It does not, for this reason; it will again once it has drained.
    Full(String),
}

/// The reading end of the log, and everybody's view of it. Clones share it.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Box<dyn Storage>,
    limits: Limits,
    metrics: Metrics,
    tip: Mutex<Tip>,
    opening: Mutex<()>,
    state: Mutex<State>,
    positions: Mutex<Positions>,
    committed: watch::Sender<Offset>,
    room: watch::Sender<Room>,
    poisoned: AtomicBool,
    /// Bytes in quarantine, as last looked up.
    quarantine_bytes: AtomicU64,
}

/// Where the log grows.
struct Tip {
    /// `None` while the filesystem is so full that there is no generation to write to.
    active: Option<Arc<dyn Active>>,
    first: Offset,
    next: Offset,
}

struct State {
    generations: BTreeMap<Offset, Slot>,
    flushed: Offset,
    tail: Tail,
    /// When the record at an offset was received, as last read from disk.
    oldest: Option<(Offset, Timestamp)>,
}

struct Slot {
    /// One past its last record; `None` for the newest, which still grows.
    end: Option<Offset>,
    open: Option<Arc<dyn Generation>>,
    /// Of a generation that no longer grows.
    disk_bytes: u64,
    /// What its blocks come to without sled's overhead; until it was looked into, `disk_bytes`.
    block_bytes: u64,
    damage: Option<Quarantined>,
}

impl Slot {
    fn active(active: &Arc<dyn Active>) -> Self {
        let open = Some(Arc::clone(active).as_generation());
        Self { end: None, open, disk_bytes: 0, block_bytes: 0, damage: None }
    }

    /// An older one, not opened yet.
    fn closed(end: Option<Offset>, disk_bytes: u64) -> Self {
        Self { end, open: None, disk_bytes, block_bytes: disk_bytes, damage: None }
    }

    fn bytes(&self) -> u64 {
        match (&self.open, self.end) {
            (Some(newest), None) => newest.disk_bytes(),
            _ => self.disk_bytes,
        }
    }

    fn lost_from(&self, offset: Offset) -> u64 {
        let lost = self.damage.iter().flat_map(|damage| &damage.lost_ranges);
        lost.filter(|range| range.to >= offset).map(|r| r.to - r.from.max(offset) + 1).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not turn into a second one here; the supervisor ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the log in `storage`, making it if there is none.
///
/// Only the newest generation with a record is looked into, so this takes the same time however much
/// waits.
///
/// # Errors
/// If the storage cannot be used at all. Damage is no such reason.
pub fn open(
    storage: Box<dyn Storage>,
    limits: Limits,
    metrics: &Metrics,
) -> Result<(Writer, Log), WalError> {
    let noted = storage.noted();
    let Positions { committed, mut flushed } = noted.unwrap_or_default();
    let mut next = committed;
    let mut generations = BTreeMap::new();
    let ids = storage.list()?;
    for (at, first) in ids.iter().enumerate() {
        let disk_bytes = storage.disk_bytes(*first);
        let end = ids.get(at + 1).copied();
        generations.insert(*first, Slot::closed(end, disk_bytes));
    }
    let mut unreadable_bytes = 0;
    if let Some(newest) = ids.last() {
        let sealed = storage.open(*newest, Known { flushed, committed, end: None })?;
        flushed = flushed.max(sealed.flushed);
        next = sealed.end;
        if next == *newest {
            // It never held a record, or none that this version can read.
            generations.remove(newest);
            let disk_bytes = storage.disk_bytes(*newest);
            if disk_bytes > EMPTY_BYTES {
                unreadable_bytes = disk_bytes;
                let unknown_version = sealed.unknown_version;
                let report =
                    Quarantined { unknown_version, ..Quarantined::new(*newest, Vec::new()) };
                tracing::error!(
                    generation = report.id,
                    unknown_version,
                    "nothing in the newest WAL generation can be read: it is set aside in quarantine"
                );
                set_aside(&*storage, *newest, &report)?;
            }
            // The note may be older than what the blocks before it say: it is not synced.
            if let Some((before, _)) = generations.last_key_value() {
                let known = Known { flushed, committed, end: Some(*newest) };
                flushed = storage.open(*before, known).map_or(flushed, |sealed| sealed.flushed);
            }
        } else if let Some(slot) = generations.get_mut(newest) {
            slot.end = Some(next);
            slot.damage = judge(*newest, &sealed, metrics);
            slot.block_bytes = sealed.block_bytes;
            slot.open = Some(sealed.generation);
        }
    }
    let oldest = generations.first_key_value().map_or(next, |(first, _)| *first);
    // The note is never behind what was deleted; without it nobody knows.
    if noted.is_some() && flushed < oldest {
        let report = Quarantined::new(flushed, vec![OffsetRange { from: flushed, to: oldest - 1 }]);
        tracing::error!(generation = report.id, "the oldest WAL generations are gone");
        report_lost(&report, metrics);
        set_aside(&*storage, flushed, &report)?;
    }
    // Offsets that it may have held are not given out again.
    next = next.saturating_add(unreadable_bytes.saturating_mul(RECORDS_A_BYTE));
    // If nothing else is left, nothing waits below.
    let flushed = if generations.is_empty() { next } else { flushed.clamp(oldest, next) };
    let active = match storage.create(next) {
        Ok(active) => {
            generations.insert(next, Slot::active(&active));
            Some(active)
        }
        Err(error) if error.is_disk_full() => None,
        Err(error) => return Err(error),
    };

    let state = State { generations, flushed, tail: Tail::default(), oldest: None };
    let shared = Arc::new(Shared {
        storage,
        limits,
        metrics: metrics.clone(),
        tip: Mutex::new(Tip { active, first: next, next }),
        opening: Mutex::new(()),
        state: Mutex::new(state),
        positions: Mutex::new(Positions { committed: next, flushed }),
        committed: watch::Sender::new(next),
        room: watch::Sender::new(Room::Open),
        poisoned: AtomicBool::new(false),
        quarantine_bytes: AtomicU64::new(0),
    });
    shared.measure_quarantine();
    shared.note(|_| ());
    shared.drop_flushed(flushed);
    let has_active = lock(&shared.tip).active.is_some();
    if !has_active {
        shared.room.send_replace(Room::Full("its filesystem has no space left".to_owned()));
    }
    shared.check_room(has_active);
    let writer = Writer::new(Arc::clone(&shared))?;
    Ok((writer, Log { shared }))
}

/// A full disk is no reason not to start.
fn set_aside(storage: &dyn Storage, first: Offset, report: &Quarantined) -> Result<(), WalError> {
    match storage.quarantine(first, report) {
        Err(error) if error.is_disk_full() => {
            tracing::warn!(%error, generation = report.id, "it stays where it is for now");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Reports what is missing in a generation, if anything is.
fn judge(first: Offset, sealed: &Sealed, metrics: &Metrics) -> Option<Quarantined> {
    if sealed.lost.is_empty() {
        return None;
    }
    let report = Quarantined {
        salvaged_records: sealed.records,
        unknown_version: sealed.unknown_version,
        ..Quarantined::new(first, sealed.lost.clone())
    };
    let (generation, salvaged_records) = (&report.id, report.salvaged_records);
    let lost_ranges = report.lost_ranges.len();
    match report.unknown_version {
        None => tracing::error!(
            generation,
            salvaged_records,
            lost_ranges,
            "a WAL generation is damaged: what is intact in it is stored as usual, then it is set aside in quarantine"
        ),
        Some(block_version) => tracing::error!(
            generation,
            block_version,
            salvaged_records,
            lost_ranges,
            "a WAL generation was written by a newer version of this program: what this one can read of it is stored as usual, then it is set aside in quarantine, where it stays until somebody exports it with the newer version"
        ),
    }
    report_lost(&report, metrics);
    metrics.wal_salvaged_records.inc_by(sealed.records);
    Some(report)
}

/// Each range is one line in the log.
fn report_lost(report: &Quarantined, metrics: &Metrics) {
    for lost in &report.lost_ranges {
        metrics.wal_lost_records.inc_by(lost.records());
        let (generation, OffsetRange { from, to }) = (&report.id, *lost);
        if report.unknown_version.is_some() {
            tracing::error!(
                generation,
                from,
                to,
                "offsets cannot be read by this version: these readings are set aside in quarantine and will not reach the database from here"
            );
        } else {
            tracing::error!(
                generation,
                from,
                to,
                "offsets lost to damage: these readings cannot be read back and will not reach the database"
            );
        }
    }
}

impl Log {
    /// Follows the end of the committed log: one past the last record that can be read.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Offset> {
        self.shared.committed.subscribe()
    }

    /// Follows whether the log takes records.
    #[must_use]
    pub fn room(&self) -> watch::Receiver<Room> {
        self.shared.room.subscribe()
    }

    /// Whether a commit has failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }

    /// Where the flusher starts: every record below is flushed.
    #[must_use]
    pub fn flushed(&self) -> Offset {
        lock(&self.shared.state).flushed
    }

    /// Records that everything below `flushed` is in PostgreSQL or in the dead-letter store, and
    /// frees what it took. Blocks on the disk. Called by the flusher alone.
    pub fn trim(&self, flushed: Offset) {
        self.shared.trim(flushed);
    }

    /// Looks at the limits, which others on the same filesystem can change; to be called now and
    /// then. Blocks on the disk.
    pub fn maintain(&self) {
        self.shared.measure_quarantine();
        self.shared.maintain();
        self.look_up_oldest();
    }
}
