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
//! Locks, always taken in this order: `tip` (for a commit or a roll), `opening` (while a generation
//! is opened), `state` (short, never across I/O on blocks), `positions` (while they are noted).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::WalError;
use super::block::{Block, Encoder, Offset};
use super::sled::generation_id;
use super::storage::{Active, Generation, Known, Positions, Quarantined, Sealed, Storage};
use super::tail::Tail;
use crate::metrics::Metrics;
use crate::reading::{Reading, Timestamp};

/// A generation that grew beyond this while the database was down is left for a new one as soon
/// as hardly anything is pending in it.
const ROOMY_BYTES: u64 = 8 * 1024 * 1024;

/// "Hardly anything": about a megabyte of blocks.
const FEW_RECORDS: u64 = 30_000;

/// What a new generation and a commit group need at least.
const NEEDED_BYTES: u64 = 4 * 1024 * 1024;

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

/// The writing end; there is one.
pub struct Writer {
    shared: Arc<Shared>,
    encoder: Encoder,
    received_at: Vec<Timestamp>,
    readings: Vec<Reading>,
    /// The flushed offset in the newest durable block.
    removable: Offset,
}

/// Records read from the log, in order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Where reading began.
    pub from: Offset,
    /// Where to read on; offsets between that are in no span are lost, and were reported.
    pub next: Offset,
    spans: Vec<(Arc<Block>, Range<usize>)>,
}

impl Batch {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.iter().map(|(_, range)| range.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Adds what `block` holds from `self.next` on and below `to`.
    fn push(&mut self, block: Arc<Block>, to: Offset) {
        let index = |offset: Offset| usize::try_from(offset - block.first).unwrap_or(usize::MAX);
        let start = index(self.next.max(block.first));
        let end = index(to.max(block.first)).min(block.readings.len());
        if start < end {
            self.next = block.first + end as u64;
            self.spans.push((block, start..end));
        } else {
            // Everything up to `to` was lost.
            self.next = to;
        }
    }

    /// The records with their offsets.
    pub fn records(&self) -> impl Iterator<Item = (Offset, &Reading)> {
        self.spans.iter().flat_map(|(block, range)| {
            let readings = &block.readings[range.clone()];
            (block.first + range.start as u64..).zip(readings)
        })
    }

    /// Receipt times, each with the number of records that came with it.
    pub fn received_at(&self) -> impl Iterator<Item = (Timestamp, usize)> {
        self.spans.iter().map(|(block, range)| (block.received_at, range.len()))
    }
}

/// One generation, as `/admin/wal` shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GenerationStats {
    /// The name of its directory.
    pub id: String,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Records in it that are not flushed.
    pub pending_records: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// The log's state at one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The offset that the next record gets.
    pub next_offset: Offset,
    /// Every record below is in PostgreSQL or in the dead-letter store.
    pub flushed_offset: Offset,
    /// Committed and not flushed, less what was lost.
    pub pending_records: u64,
    /// What the blocks of the pending records come to, in proportion where a generation is flushed
    /// in part.
    pub pending_bytes: u64,
    /// Bytes of all generations on disk.
    pub disk_bytes: u64,
    /// The generations, oldest first.
    pub generations: Vec<GenerationStats>,
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
/// Only the newest generation is looked into, so this takes the same time however much waits.
///
/// # Errors
/// If the storage cannot be used at all. Damage is no such reason.
pub fn open(
    storage: Box<dyn Storage>,
    limits: Limits,
    metrics: &Metrics,
) -> Result<(Writer, Log), WalError> {
    let Positions { committed, mut flushed } = storage.noted().unwrap_or_default();
    let mut next = committed;
    let mut generations = BTreeMap::new();
    let ids = storage.list()?;
    for (at, first) in ids.iter().enumerate() {
        let disk_bytes = storage.disk_bytes(*first);
        let end = ids.get(at + 1).copied();
        generations.insert(*first, Slot::closed(end, disk_bytes));
    }
    if let Some(newest) = ids.last() {
        let sealed = storage.open(*newest, Known { flushed, committed, end: None })?;
        flushed = flushed.max(sealed.flushed);
        next = sealed.end;
        if next == *newest {
            // It never held a record.
            generations.remove(newest);
        } else if let Some(slot) = generations.get_mut(newest) {
            slot.end = Some(next);
            slot.damage = judge(*newest, &sealed, metrics);
            slot.block_bytes = sealed.block_bytes;
            slot.open = Some(sealed.generation);
        }
    }
    let oldest = generations.first_key_value().map_or(next, |(first, _)| *first);
    let flushed = flushed.clamp(oldest, next);
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
    });
    shared.note(|_| ());
    shared.drop_flushed(flushed)?;
    shared.check_room();
    let encoder =
        Encoder::new().map_err(|source| WalError::Io { what: "set up compression", source })?;
    let writer = Writer {
        shared: Arc::clone(&shared),
        encoder,
        received_at: Vec::new(),
        readings: Vec::new(),
        removable: 0,
    };
    Ok((writer, Log { shared }))
}

/// Reports what is missing in a generation, if anything is.
fn judge(first: Offset, sealed: &Sealed, metrics: &Metrics) -> Option<Quarantined> {
    if sealed.lost.is_empty() {
        return None;
    }
    let id = generation_id(first);
    tracing::error!(
        generation = id,
        salvaged_records = sealed.records,
        lost_ranges = sealed.lost.len(),
        "a WAL generation is damaged: what is intact in it is stored as usual, then it is set aside in quarantine"
    );
    for lost in &sealed.lost {
        tracing::error!(
            generation = id,
            from = lost.from,
            to = lost.to,
            "offsets lost to damage: these readings cannot be read back and will not reach the database"
        );
        metrics.wal_lost_records.inc_by(lost.records());
    }
    metrics.wal_salvaged_records.inc_by(sealed.records);
    Some(Quarantined {
        id,
        at: Timestamp::now().to_string(),
        salvaged_records: sealed.records,
        lost_ranges: sealed.lost.clone(),
    })
}

impl Writer {
    /// Adds a reading to the group that the next [`Self::commit`] makes durable.
    pub fn append(&mut self, received_at: Timestamp, reading: Reading) {
        self.received_at.push(received_at);
        self.readings.push(reading);
    }

    /// Makes everything appended so far durable and readable. An empty group costs nothing.
    ///
    /// # Errors
    /// If that is not certain. The log is poisoned then: no commit succeeds before a restart.
    pub fn commit(&mut self) -> Result<(), WalError> {
        if self.readings.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(WalError::Poisoned);
        }
        let started = Instant::now();
        let mut tip = lock(&shared.tip);
        let Some(active) = &tip.active else {
            self.abandon();
            return Err(WalError::DiskFull);
        };
        let flushed = lock(&shared.state).flushed;
        let (at, encoder) = (tip.next, &mut self.encoder);
        let written = write(encoder, &**active, at, flushed, &self.received_at, &self.readings);
        let (cuts, block_bytes) = match written {
            Ok(written) => written,
            Err(error) if error.is_disk_full() => {
                shared.close_full(&mut tip);
                drop(tip);
                self.abandon();
                return Err(WalError::DiskFull);
            }
            Err(error) => {
                shared.poisoned.store(true, Ordering::Release);
                return Err(error);
            }
        };
        self.removable = flushed;
        let records = self.readings.len();
        let mut readings = self.readings.drain(..);
        let mut received_at = self.received_at.drain(..);
        let mut state = lock(&shared.state);
        for count in cuts {
            let received: Vec<Timestamp> = received_at.by_ref().take(count).collect();
            let block = Block {
                first: tip.next,
                received_at: received.first().copied().unwrap_or_else(Timestamp::now),
                readings: readings.by_ref().take(count).collect(),
            };
            tip.next = block.end();
            state.tail.push(block);
        }
        if let Some(slot) = state.generations.get_mut(&tip.first) {
            slot.block_bytes += block_bytes;
        }
        drop(state);
        shared.note(|positions| positions.committed = tip.next);
        shared.committed.send_replace(tip.next);
        shared.metrics.wal_commit.observe(started.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a histogram's value")]
        shared.metrics.wal_commit_records.observe(records as f64);
        Ok(())
    }

    /// Forgets what was appended and not committed.
    pub fn abandon(&mut self) {
        self.readings.clear();
        self.received_at.clear();
    }

    /// Frees flushed blocks, starts a new generation if it is time, and checks the limits. To be
    /// called between commits, when nobody waits for an ack.
    ///
    /// # Errors
    /// If the log is poisoned, by this or before.
    pub fn maintain(&mut self) -> Result<(), WalError> {
        let shared = &self.shared;
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(WalError::Poisoned);
        }
        let mut tip = lock(&shared.tip);
        let removed =
            tip.active.as_ref().map_or(Ok(()), |active| active.remove_below(self.removable));
        match removed {
            Ok(()) => shared.roll_if_due(&mut tip),
            Err(error) if error.is_disk_full() => shared.close_full(&mut tip),
            Err(error) => {
                shared.poisoned.store(true, Ordering::Release);
                return Err(error);
            }
        }
        drop(tip);
        shared.check_room();
        Ok(())
    }
}

/// Writes and syncs one group; returns how many records went into each block, and the bytes of
/// all of them.
fn write(
    encoder: &mut Encoder,
    active: &dyn Active,
    next: Offset,
    flushed: Offset,
    received_at: &[Timestamp],
    readings: &[Reading],
) -> Result<(Vec<usize>, u64), WalError> {
    let mut cuts = Vec::new();
    let mut block_bytes = 0;
    let mut outcome = Ok(());
    encoder
        .encode(next, flushed, received_at, readings, &mut |first, count, frame| {
            if outcome.is_ok() {
                outcome = active.insert(first, &frame);
            }
            cuts.push(count);
            block_bytes += frame.len() as u64;
        })
        .map_err(|source| WalError::Io { what: "encode a block", source })?;
    outcome?;
    active.sync()?;
    Ok((cuts, block_bytes))
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

    /// The records with offsets from `from` up to, not including, `to`, as far as they are
    /// committed. Blocks on the disk if they are no longer in memory.
    ///
    /// # Errors
    /// If the disk fails; damage is salvaged and skipped.
    pub fn read(&self, from: Offset, to: Offset) -> Result<Batch, WalError> {
        let to = to.min(*self.shared.committed.borrow());
        let mut batch = Batch { from, next: from, spans: Vec::new() };
        while batch.next < to {
            let Some(block) = self.shared.block_at(batch.next)? else {
                batch.next = self.shared.end_of_generation(batch.next).min(to);
                continue;
            };
            batch.push(block, to);
        }
        Ok(batch)
    }

    /// As [`Self::read`], but only if all of it is still in memory; never blocks for long.
    #[must_use]
    pub fn read_tail(&self, from: Offset, to: Offset) -> Option<Batch> {
        let to = to.min(*self.shared.committed.borrow());
        let mut batch = Batch { from, next: from, spans: Vec::new() };
        let state = lock(&self.shared.state);
        while batch.next < to {
            batch.push(state.tail.get(batch.next)?, to);
        }
        Some(batch)
    }

    /// Records that everything below `flushed` is in PostgreSQL or in the dead-letter store, and
    /// frees what it took. Blocks on the disk. Called by the flusher alone.
    ///
    /// # Errors
    /// If a generation cannot be trimmed, deleted or set aside.
    pub fn trim(&self, flushed: Offset) -> Result<(), WalError> {
        self.shared.trim(flushed)
    }

    /// Looks at the limits, which others on the same filesystem can change; to be called now and
    /// then. Blocks on the disk.
    pub fn maintain(&self) {
        self.shared.maintain();
    }

    /// How long the oldest pending record has waited, in seconds; 0 if none is pending.
    #[must_use]
    pub fn oldest_pending_seconds(&self) -> f64 {
        let flushed = self.flushed();
        let known = {
            let state = lock(&self.shared.state);
            let in_tail = state.tail.get(flushed).map(|block| block.received_at);
            in_tail.or(state.oldest.filter(|(at, _)| *at == flushed).map(|(_, since)| since))
        };
        let since = known.or_else(|| {
            let batch = self.read(flushed, flushed + 1).ok()?;
            let (since, _) = batch.received_at().next()?;
            lock(&self.shared.state).oldest = Some((flushed, since));
            Some(since)
        });
        since.map_or(0.0, |since| Timestamp::now().seconds_since(since).max(0.0))
    }

    /// The log's state now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let committed = *self.shared.committed.borrow();
        let state = lock(&self.shared.state);
        let mut stats = Stats {
            next_offset: committed,
            flushed_offset: state.flushed,
            pending_records: 0,
            pending_bytes: 0,
            disk_bytes: 0,
            generations: Vec::with_capacity(state.generations.len()),
        };
        for (first, slot) in &state.generations {
            let from = state.flushed.max(*first);
            let end = slot.end.unwrap_or(committed);
            let unflushed = end.saturating_sub(from);
            let one = GenerationStats {
                id: generation_id(*first),
                first_offset: *first,
                pending_records: unflushed.saturating_sub(slot.lost_from(from)),
                disk_bytes: slot.bytes(),
            };
            stats.pending_records += one.pending_records;
            stats.disk_bytes += one.disk_bytes;
            let share = u128::from(slot.block_bytes) * u128::from(unflushed);
            let pending_bytes = share.checked_div(u128::from(end - first)).unwrap_or(0);
            stats.pending_bytes += u64::try_from(pending_bytes).unwrap_or(u64::MAX);
            stats.generations.push(one);
        }
        stats
    }

    /// Damaged generations: those in quarantine, and those that will be once they are drained.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let mut all = self.shared.storage.quarantined();
        let state = lock(&self.shared.state);
        all.extend(state.generations.values().filter_map(|slot| slot.damage.clone()));
        all
    }

    /// Bytes that are free on the log's filesystem.
    ///
    /// # Errors
    /// If the filesystem does not say.
    pub fn free_bytes(&self) -> Result<u64, WalError> {
        self.shared.storage.free_bytes()
    }
}

impl Shared {
    /// The generation `first` to be read, opened now if it is not.
    fn generation(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError> {
        let _opening = lock(&self.opening);
        let (open, known) = {
            let state = lock(&self.state);
            let slot = state.generations.get(&first);
            let end = slot.and_then(|slot| slot.end);
            let known = Known { flushed: state.flushed, committed: end.unwrap_or(first), end };
            (slot.and_then(|slot| slot.open.clone()), known)
        };
        if let Some(generation) = open {
            return Ok(generation);
        }
        let sealed = self.storage.open(first, known)?;
        let damage = judge(first, &sealed, &self.metrics);
        if let Some(slot) = lock(&self.state).generations.get_mut(&first) {
            slot.open = Some(Arc::clone(&sealed.generation));
            slot.block_bytes = sealed.block_bytes;
            slot.damage = damage;
        }
        Ok(sealed.generation)
    }

    /// The block that holds `offset`, or the next one if damage took that; `None` if there is no
    /// further one in its generation.
    fn block_at(&self, offset: Offset) -> Result<Option<Arc<Block>>, WalError> {
        let (first, is_active) = {
            let state = lock(&self.state);
            if let Some(block) = state.tail.get(offset) {
                return Ok(Some(block));
            }
            match state.generations.range(..=offset).next_back() {
                Some((first, slot)) => (*first, slot.end.is_none()),
                None => return Ok(None),
            }
        };
        let found = self.generation(first)?.block_at(offset);
        let holds_it = matches!(&found, Ok(Some(block)) if block.first <= offset);
        if is_active && !holds_it {
            // Committed, but sled cannot give it back: its file can.
            tracing::error!(
                generation = generation_id(first),
                offset,
                reason =
                    found.err().map_or("it is not there".to_owned(), |error| error.to_string()),
                "the newest WAL generation cannot be read back: going on in a new one, reading this one's raw file"
            );
            self.roll(&mut lock(&self.tip))?;
            return Ok(self.generation(first)?.block_at(offset)?.map(Arc::new));
        }
        Ok(found?.map(Arc::new))
    }

    /// Where the generation that holds `offset` ends.
    fn end_of_generation(&self, offset: Offset) -> Offset {
        let state = lock(&self.state);
        let next = state.generations.range(offset + 1..).next().map(|(first, _)| *first);
        next.unwrap_or(Offset::MAX)
    }

    fn trim(&self, flushed: Offset) -> Result<(), WalError> {
        {
            let mut state = lock(&self.state);
            if flushed <= state.flushed {
                return Ok(());
            }
            state.flushed = flushed;
            state.tail.trim(flushed);
        }
        self.note(|positions| positions.flushed = flushed);
        self.drop_flushed(flushed)?;
        self.maintain();
        Ok(())
    }

    fn maintain(&self) {
        self.check_room();
        // A busy writer does this itself.
        if let Ok(mut tip) = self.tip.try_lock() {
            self.roll_if_due(&mut tip);
        }
    }

    fn note(&self, change: impl FnOnce(&mut Positions)) {
        let mut positions = lock(&self.positions);
        change(&mut positions);
        self.storage.note(*positions);
    }

    /// Deletes generations that end at or below `flushed`, or sets them aside if damaged.
    fn drop_flushed(&self, flushed: Offset) -> Result<(), WalError> {
        loop {
            let done = {
                let mut state = lock(&self.state);
                let oldest = state.generations.first_key_value();
                let done = oldest.and_then(|(first, slot)| Some((*first, slot.end?)));
                match done.filter(|(_, end)| *end <= flushed) {
                    Some((first, _)) => state.generations.remove(&first).map(|slot| (first, slot)),
                    None => None,
                }
            };
            let Some((first, slot)) = done else { return Ok(()) };
            match slot.damage {
                None => self.storage.delete(first)?,
                Some(report) => {
                    self.storage.quarantine(first, &report)?;
                    tracing::warn!(
                        generation = report.id,
                        "damaged WAL generation drained and set aside in quarantine: inspect it with `ingestor wal`, delete it when it is of no more use"
                    );
                }
            }
        }
    }

    fn roll_if_due(&self, tip: &mut Tip) {
        let due = match &tip.active {
            // As soon as there is room again.
            None => *self.room.borrow() == Room::Open,
            Some(active) => {
                let bytes = active.disk_bytes();
                let flushed = lock(&self.state).flushed;
                let few_pending = tip.next - flushed.clamp(tip.first, tip.next) <= FEW_RECORDS;
                let due = bytes >= self.limits.generation() || (bytes > ROOMY_BYTES && few_pending);
                due && tip.next > tip.first
            }
        };
        if !due {
            return;
        }
        match self.roll(tip) {
            Ok(()) => {}
            Err(error) if error.is_disk_full() => self.close_full(tip),
            Err(error) => tracing::warn!(
                %error,
                "no new WAL generation could be started: going on in the old one, trying again later"
            ),
        }
    }

    /// Starts a new generation at the end of the log.
    fn roll(&self, tip: &mut Tip) -> Result<(), WalError> {
        if tip.active.is_some() && tip.next == tip.first {
            return Ok(());
        }
        let active = self.storage.create(tip.next)?;
        self.seal(tip);
        let flushed = {
            let mut state = lock(&self.state);
            state.generations.insert(tip.next, Slot::active(&active));
            state.flushed
        };
        *tip = Tip { active: Some(active), first: tip.next, next: tip.next };
        if let Err(error) = self.drop_flushed(flushed) {
            tracing::warn!(%error, "a flushed WAL generation could not be deleted: trying again at the next start");
        }
        Ok(())
    }

    /// Writes no more to the newest generation: from now on it is read as any other.
    fn seal(&self, tip: &mut Tip) {
        let Some(active) = tip.active.take() else { return };
        let mut state = lock(&self.state);
        if tip.next == tip.first {
            state.generations.remove(&tip.first);
        } else if let Some(slot) = state.generations.get_mut(&tip.first) {
            slot.disk_bytes = active.disk_bytes();
            slot.end = Some(tip.next);
            slot.open = None;
        }
    }

    /// The filesystem is full: sled takes nothing more after that error, so its database is
    /// closed. What a failed commit left in it lies behind its end and does not count.
    fn close_full(&self, tip: &mut Tip) {
        self.seal(tip);
        let reason = "its filesystem has no space left".to_owned();
        self.room.send_replace(Room::Full(reason));
    }

    fn check_room(&self) {
        let used: u64 = lock(&self.state).generations.values().map(Slot::bytes).sum();
        let free = self.storage.free_bytes().unwrap_or(u64::MAX);
        let Limits { max_bytes, min_free_bytes, .. } = self.limits;
        self.room.send_if_modified(|room| {
            // It comes back below 90 % only, or it would come and go with every batch.
            let (max, min_free) = match room {
                Room::Open => (max_bytes, min_free_bytes),
                Room::Full(_) => (max_bytes / 10 * 9, (min_free_bytes / 10 * 11).max(NEEDED_BYTES)),
            };
            let now = if used >= max {
                Room::Full(format!("it takes {used} bytes of at most {max_bytes}"))
            } else if free < min_free {
                Room::Full(format!(
                    "its filesystem has {free} bytes free, {min_free_bytes} must be"
                ))
            } else {
                Room::Open
            };
            let changed = matches!(room, Room::Open) != matches!(now, Room::Open);
            if changed {
                *room = now;
            }
            changed
        });
    }
}
