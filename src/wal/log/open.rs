//! Opening the log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::ages::{Ages, Now};
use super::damage::report_lost;
use super::handle::Log;
use super::latest::Latest;
use super::receipts::{LeftReceipts, Places};
use super::retention::Retention;
use super::state::{End, Generation, Limits, Room, Shared, State, lock};
use super::stretches::Stretches;
use super::writer::Writer;
use crate::base::metrics::Metrics;
use crate::base::time::Clock;
use crate::wal::contract::{Bounds, Positions, Quarantined, Sealed, Storage, Unreadable};
use crate::wal::error::WalError;
use crate::wal::frame::{HEADER_BYTES, MOST_RECORDS};
use crate::wal::offset::{Offset, OffsetRange};
use crate::wal::recovery::{Recovered, recover, with_ends};
use crate::wal::tail::Tail;

/// More than a database without a record takes on disk.
const EMPTY_BYTES: u64 = 16 * 1024;

/// More records than a byte on disk can hold.
const RECORDS_A_BYTE: u64 = 16;

const _: () = assert!(MOST_RECORDS as u64 <= RECORDS_A_BYTE * HEADER_BYTES as u64);

/// Opens the log in `storage`, making it if there is none.
///
/// Only the newest generation with a record is looked into, so this takes the same time however much
/// waits.
///
/// # Errors
/// If the storage cannot be used at all, or the disk does not read what has to be known: the next process takes
/// for lost what it does not read either of a generation. Damage is no such reason.
pub(crate) fn open(
    storage: Box<dyn Storage>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    metrics: &Metrics,
) -> Result<(Writer, Log), WalError> {
    let shared = open_shared(storage, clock, limits, metrics)?;
    Ok(ready(shared, Places::default()))
}

/// As [`open`], for whoever gives readings the time of their arrival: with the receipts that an earlier
/// process has left, which takes longer by what holds them. If they are needed, the log keeps what holds
/// the last, also if nothing more comes; if not, only the newest time is told.
///
/// # Errors
/// As [`open`]. Receipts that are damaged are no such reason.
pub fn open_with_receipts(
    storage: Box<dyn Storage>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    metrics: &Metrics,
    are_needed: bool,
) -> Result<(Writer, Log, LeftReceipts), WalError> {
    let shared = open_shared(storage, clock, limits, metrics)?;
    let (mut left, mut places) = shared.read_receipts()?;
    if !are_needed {
        left.receipts.clear();
        places = Places::default();
    }
    let (writer, log) = ready(shared, places);
    Ok((writer, log, left))
}

fn open_shared(
    storage: Box<dyn Storage>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    metrics: &Metrics,
) -> Result<Arc<Shared>, WalError> {
    let listed = with_ends(&storage.list()?, &storage.quarantined()?);
    let mut generations = BTreeMap::new();
    for (first, end) in listed.iter().copied() {
        let unreadable = if storage.is_marked_unreadable(first) {
            Unreadable::IsLost
        } else {
            Unreadable::IsAnError
        };
        let disk_bytes = storage.disk_bytes(first)?;
        generations.insert(first, Generation::closed(end, disk_bytes, unreadable));
    }
    let unreadable = |first: Offset| {
        generations.get(&first).map_or(Unreadable::IsAnError, |kept: &Generation| kept.unreadable)
    };
    let open = |first, bounds| open_generation(&*storage, first, bounds);
    let recovered = recover(storage.read_positions()?, &listed, unreadable, open)?;
    let Recovered { flushed, mut next, without_records, newest, gone } = recovered;
    if let Some((first, sealed)) = without_records {
        generations.remove(&first);
        let disk_bytes = storage.disk_bytes(first)?;
        if disk_bytes > EMPTY_BYTES {
            let unknown_version = sealed.unknown_version;
            // Offsets that it may have held are not given out again.
            next = next.saturating_add(disk_bytes.saturating_mul(RECORDS_A_BYTE));
            let report = Quarantined {
                unknown_version,
                resumed_at: Some(next),
                ..Quarantined::new(first, clock.wall(), Vec::new())
            };
            tracing::error!(
                generation = report.id,
                unknown_version,
                "nothing in the newest WAL generation can be read: it is set aside in quarantine"
            );
            set_aside(&*storage, first, &report)?;
        }
    }
    if let Some(OffsetRange { from, to }) = gone {
        let report = Quarantined::new(from, clock.wall(), vec![OffsetRange { from, to }]);
        tracing::error!(generation = report.id, "the oldest WAL generations are gone");
        report_lost(&report, metrics);
        set_aside(&*storage, from, &report)?;
    }
    // If nothing is left, nothing waits below.
    let flushed = if generations.is_empty() { next } else { flushed };
    let active = match storage.create(next) {
        Ok(active) => {
            generations.insert(next, Generation::active(&active));
            Some(active)
        }
        Err(error) if error.is_disk_full() => None,
        Err(error) => return Err(error),
    };

    let oldest = generations.first_key_value().map_or(next, |(first, _)| *first);
    let retention = Retention::new(limits.retain, oldest, flushed, clock.monotonic());
    let (open, tail) = (Vec::new(), Tail::default());
    let stretches = Stretches::new(retention.trimmed(), next);
    let ages = Ages::new(next, Now::of(&*clock));
    let state = State { generations, open, flushed, retention, tail, oldest: None, ages };
    let shared = Arc::new(Shared {
        storage,
        clock,
        limits,
        metrics: metrics.clone(),
        end: Mutex::new(End { active, first: next, next }),
        opening: Mutex::new(()),
        state: Mutex::new(state),
        stretches: Mutex::new(stretches),
        latest: Latest::default(),
        positions: Mutex::new(Positions { committed: next, flushed }),
        committed: watch::Sender::new(next),
        room: watch::Sender::new(Room::Open),
        poisoned: AtomicBool::new(false),
        quarantine_bytes: AtomicU64::new(0),
    });
    if let Some((first, sealed)) = newest {
        shared.take_sealed(first, sealed);
    }
    shared.measure_quarantine();
    shared.write_positions(|_| ());
    Ok(shared)
}

/// Opens a generation to be read. If the disk does not read it, the next process is told; and if it reads all of
/// one that it did not read before, the next process is told nothing any more.
///
/// # Errors
/// As [`Storage::open`].
pub(super) fn open_generation(
    storage: &dyn Storage,
    first: Offset,
    bounds: Bounds,
) -> Result<Sealed, WalError> {
    let opened = storage.open(first, bounds);
    match &opened {
        Ok(sealed) if sealed.is_read_whole && bounds.unreadable == Unreadable::IsLost => {
            storage.unmark_unreadable(first);
        }
        Err(WalError::Unread { .. }) => storage.mark_unreadable(first),
        _ => {}
    }
    opened
}

/// Deletes what is of no more use, and hands the log over.
fn ready(shared: Arc<Shared>, mut places: Places) -> (Writer, Log) {
    let end = *shared.committed.borrow();
    lock(&shared.state).retention.keep_from(places.oldest(end));
    shared.trim();
    let has_active = lock(&shared.end).active.is_some();
    if !has_active {
        // No generation says by its name where the log ends. Of what a sync that failed has left there a
        // power cut can take the last, whose offsets were seen and must not be given out again.
        shared.storage.sync_positions();
        shared.room.send_replace(Room::Full("its filesystem has no space left".to_owned()));
    }
    shared.check_room(has_active);
    (Writer::new(Arc::clone(&shared), places), Log { shared })
}

/// A full disk is no reason not to start.
fn set_aside(storage: &dyn Storage, first: Offset, report: &Quarantined) -> Result<(), WalError> {
    match storage.quarantine(first, report) {
        Err(error) if error.is_disk_full() => {
            tracing::warn!(%error, generation = report.id, "a WAL generation could not be moved to quarantine: it stays where it is for now");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Opens a log in memory whose generations may end after each commit, and which keeps nothing that was flushed.
#[cfg(test)]
pub(super) fn open_in(
    storage: &crate::wal::engine::memory::MemoryStorage,
    metrics: &Metrics,
) -> (Writer, Log) {
    try_open_in(storage, metrics).unwrap()
}

/// As [`open_in`], where that may fail.
#[cfg(test)]
pub(super) fn try_open_in(
    storage: &crate::wal::engine::memory::MemoryStorage,
    metrics: &Metrics,
) -> Result<(Writer, Log), WalError> {
    let retain = std::time::Duration::ZERO;
    let limits = Limits { max_bytes: u64::MAX, min_free_bytes: 0, generation_bytes: 1, retain };
    let clock = Arc::new(crate::base::time::SystemClock::default());
    open(Box::new(storage.clone()), clock, limits, metrics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::telemetry::Reading;
    use crate::wal::contract::generation_id;
    use crate::wal::engine::memory::MemoryStorage;

    fn commit(writer: &mut Writer, count: i32) {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        for number in 0..count {
            let device_id = format!("device-{number}");
            let values = [f64::from(number) * 0.37, 1.0 / f64::from(number + 1), 50.0];
            writer.append(at, Reading { device_id, timestamp: at, values });
        }
        writer.commit().unwrap();
    }

    #[test]
    fn offsets_skipped_behind_a_generation_that_could_not_be_read_are_no_loss_to_later_processes() {
        let storage = MemoryStorage::default();
        let reopen = |metrics: &Metrics| open_in(&storage, metrics);
        let (mut writer, log) = reopen(&Metrics::new().unwrap());
        commit(&mut writer, 10);
        writer.maintain().unwrap();
        commit(&mut writer, 10_000);
        assert!(storage.disk_bytes(10).unwrap() > EMPTY_BYTES);
        drop((writer, log));
        storage.spoil(10);
        // Nothing says any more how far the log had come.
        storage.cut_power_dropping_all();

        let mut waiting = 10;
        for _ in 0..3 {
            let metrics = Metrics::new().unwrap();
            let (mut writer, log) = reopen(&metrics);
            assert!(log.stats().next_offset > 10_010);
            assert_eq!(log.read(0, Offset::MAX).unwrap().len(), waiting);
            assert_eq!(log.stats().pending_records, waiting as u64);
            assert_eq!(metrics.wal_lost_records.get(), 0);
            assert_eq!(log.quarantined().unwrap().len(), 1);
            commit(&mut writer, 5);
            waiting += 5;
        }
        // Nor when the older generation is flushed and freed, and then what lies behind them.
        for is_all in [false, true, true] {
            let metrics = Metrics::new().unwrap();
            let (mut writer, log) = reopen(&metrics);
            log.flush_to(if is_all { log.stats().next_offset } else { 10 });
            writer.maintain().unwrap();
            let left = if is_all { 0 } else { waiting - 10 };
            assert_eq!(log.read(log.flushed(), Offset::MAX).unwrap().len(), left);
            assert_eq!(log.stats().pending_records, left as u64);
            assert_eq!(metrics.wal_lost_records.get(), 0);
        }
    }
    /// The log's two generations of ten records each, by a process that has ended.
    fn left() -> MemoryStorage {
        let storage = MemoryStorage::default();
        let (mut writer, log) = open_in(&storage, &Metrics::new().unwrap());
        for _ in 0..2 {
            commit(&mut writer, 10);
            writer.maintain().unwrap();
        }
        drop((writer, log));
        storage
    }

    #[test]
    fn a_newest_generation_that_the_disk_does_not_read_ends_the_start_and_is_lost_to_the_next_one()
    {
        for is_mended in [true, false] {
            let storage = left();
            storage.fail_reads_in(10);
            let metrics = Metrics::new().unwrap();
            let Err(refused) = try_open_in(&storage, &metrics) else { panic!("it was opened") };
            let said = refused.to_string();
            assert!(said.contains(&generation_id(10)), "{said}");
            assert_eq!(metrics.wal_lost_records.get(), 0);
            assert_eq!(storage.quarantined().unwrap(), []);

            if is_mended {
                storage.mend_reads();
            }
            let (_writer, log) = try_open_in(&storage, &metrics).unwrap();
            let lost = if is_mended { 0 } else { 10 };
            assert_eq!(log.read(0, 20).unwrap().len(), 20 - lost);
            assert_eq!(metrics.wal_lost_records.get(), lost as u64);
        }
    }

    #[test]
    fn a_newest_generation_that_was_read_again_is_no_loss_at_the_next_error() {
        let storage = left();
        let metrics = Metrics::new().unwrap();
        for _ in 0..2 {
            storage.fail_reads_in(10);
            assert!(matches!(try_open_in(&storage, &metrics), Err(WalError::Unread { .. })));
            assert!(storage.is_marked_unreadable(10));
            storage.mend_reads();
            drop(try_open_in(&storage, &metrics).unwrap());
            assert!(!storage.is_marked_unreadable(10));
        }
        assert_eq!(metrics.wal_lost_records.get(), 0);
    }

    #[test]
    fn an_older_generation_that_was_read_again_is_no_loss_to_the_same_process_either() {
        let storage = MemoryStorage::default();
        let (mut writer, log) = open_in(&storage, &Metrics::new().unwrap());
        for _ in 0..4 {
            commit(&mut writer, 10);
            writer.maintain().unwrap();
        }
        drop((writer, log));
        storage.mark_unreadable(0);
        let metrics = Metrics::new().unwrap();
        let (_writer, log) = open_in(&storage, &metrics);
        assert!(storage.is_marked_unreadable(0), "it was not looked into yet");
        // The others that are read take its place among those that are open.
        assert_eq!(log.read(0, 40).unwrap().len(), 40);
        assert!(!storage.is_marked_unreadable(0));
        storage.fail_reads_in(0);
        assert!(matches!(log.read(0, 10), Err(WalError::Unread { .. })));
        assert_eq!(metrics.wal_lost_records.get(), 0);
        assert!(storage.is_marked_unreadable(0));
    }

    #[test]
    fn a_disk_that_reads_neither_positions_nor_reports_nor_sizes_is_no_log_without_them() {
        let storage = left();
        let metrics = Metrics::new().unwrap();
        storage.read_only_blocks(true);
        for _ in 0..3 {
            assert!(matches!(try_open_in(&storage, &metrics), Err(WalError::Unread { .. })));
        }
        storage.read_only_blocks(false);
        let (_writer, log) = try_open_in(&storage, &metrics).unwrap();
        assert_eq!((log.flushed(), log.read(0, 20).unwrap().len()), (0, 20));
        assert_eq!(metrics.wal_lost_records.get(), 0);
        assert_eq!(storage.quarantined().unwrap(), []);
    }
}
