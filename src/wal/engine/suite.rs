//! What every engine has to do, whatever it stores generations in: each rule of the
//! [`contract`](crate::wal::contract) is tried on sled and on its twin in memory, so that what holds over
//! the one in a simulation holds over the other on a disk.

use crate::base::time::Timestamp;
use crate::telemetry::{Reading, Record};
use crate::wal::contract::{
    Active, Bounds, Generation, Positions, Quarantined, Sealed, Storage, Unreadable, generation_id,
};
use crate::wal::frame::encode;
use crate::wal::offset::{Offset, OffsetRange};

/// Opens the same place again, as the next process does; what was opened before must have been dropped.
type Place<'p> = &'p dyn Fn() -> Box<dyn Storage>;

/// Has every engine keep these rules.
macro_rules! rules {
    ($($rule:ident,)*) => {
        mod on_disk {
            $(#[test]
            fn $rule() {
                let dir = tempfile::tempdir().unwrap();
                super::$rule(&|| Box::new(crate::wal::engine::sled::SledStorage::open(dir.path()).unwrap()));
            })*
        }

        mod in_memory {
            $(#[test]
            fn $rule() {
                let storage = crate::wal::engine::memory::MemoryStorage::default();
                super::$rule(&|| Box::new(storage.clone()));
            })*
        }
    };
}

rules! {
    generations_are_listed_oldest_first_until_they_are_deleted,
    a_block_is_found_by_every_offset_in_it_and_by_those_before_it,
    what_is_written_reads_the_same_while_it_grows_and_when_it_is_sealed,
    only_blocks_that_were_flushed_as_a_whole_are_removed,
    what_was_flushed_is_known_from_the_blocks_and_from_the_bounds,
    what_is_missing_below_the_end_is_lost_and_what_is_missing_behind_the_last_commit_is_not,
    a_generation_that_is_not_there_has_lost_all_that_was_not_flushed,
    what_is_set_aside_is_reported_and_can_be_given_up_but_for_its_report,
    what_a_newer_version_has_written_is_never_given_up,
    positions_are_read_back_as_they_were_written_last,
    a_generation_stays_marked_until_it_is_unmarked_deleted_or_made_anew,
    space_is_accounted_for,
}

const EVERYTHING: Bounds =
    Bounds { flushed: 0, committed: 0, end: None, unreadable: Unreadable::IsAnError };

fn readings(first: Offset, count: u64) -> Vec<Record> {
    let reading = |offset: Offset| {
        let timestamp = Timestamp::from_micros(1_759_667_696_000_000 + offset.cast_signed());
        let device_id = format!("device-{offset}");
        let timestamp = timestamp.unwrap();
        Record::from(Reading { device_id, timestamp, values: [0.5, 1.5, 2.5] })
    };
    (first..first + count).map(reading).collect()
}

/// Appends one block, whose header says that everything below `flushed` was flushed.
fn insert(generation: &dyn Active, first: Offset, count: u64, flushed: Offset) {
    let readings = readings(first, count);
    let received_at = vec![readings[0].timestamp(); readings.len()];
    let mut blocks = 0;
    encode(first, flushed, &received_at, &readings, &mut |first, _, frame| {
        blocks += 1;
        generation.insert(first, &frame).unwrap();
    })
    .unwrap();
    assert_eq!(blocks, 1);
}

/// A generation that begins at `first`, of blocks of ten records each, durable.
fn fill(storage: &dyn Storage, first: Offset, blocks: u64) {
    let generation = storage.create(first).unwrap();
    for block in 0..blocks {
        insert(&*generation, first + 10 * block, 10, 0);
        generation.sync().unwrap();
    }
}

/// Where the block begins and ends that is found by `offset`.
fn found(generation: &dyn Generation, offset: Offset) -> Option<(Offset, Offset)> {
    let block = generation.block_at(offset).unwrap()?;
    assert_eq!(block.readings, readings(block.first, block.end() - block.first));
    Some((block.first, block.end()))
}

fn range(from: Offset, to: Offset) -> OffsetRange {
    OffsetRange { from, to }
}

fn report(first: Offset) -> Quarantined {
    let at = Timestamp::from_micros(1_759_667_696_000_000).unwrap();
    Quarantined::new(first, at, vec![range(first, first + 4)])
}

fn generations_are_listed_oldest_first_until_they_are_deleted(place: Place<'_>) {
    let storage = place();
    assert_eq!(storage.list().unwrap(), [0; 0]);
    for first in [0, 10, 1_000_000_000_000] {
        drop(storage.create(first).unwrap());
    }
    assert_eq!(storage.list().unwrap(), [0, 10, 1_000_000_000_000]);
    storage.delete(10).unwrap();
    drop(storage);
    assert_eq!(place().list().unwrap(), [0, 1_000_000_000_000]);
}

fn a_block_is_found_by_every_offset_in_it_and_by_those_before_it(place: Place<'_>) {
    let storage = place();
    let active = storage.create(100).unwrap();
    assert!(active.block_at(100).unwrap().is_none());
    for first in [100, 110, 130] {
        insert(&*active, first, 10, 0);
    }
    active.sync().unwrap();
    let look = |generation: &dyn Generation| {
        let at = |offset| found(generation, offset);
        assert_eq!(
            (at(0), at(100), at(109)),
            (Some((100, 110)), Some((100, 110)), Some((100, 110)))
        );
        assert_eq!((at(110), at(119)), (Some((110, 120)), Some((110, 120))));
        // What lies in a hole is found by what comes behind it.
        assert_eq!((at(120), at(139), at(140)), (Some((130, 140)), Some((130, 140)), None));
    };
    look(&*active.as_generation());
    look(&*storage.open(100, EVERYTHING).unwrap().generation);
}

fn what_is_written_reads_the_same_while_it_grows_and_when_it_is_sealed(place: Place<'_>) {
    let storage = place();
    let active = storage.create(0).unwrap();
    let reader = std::sync::Arc::clone(&active).as_generation();
    for block in 0..50 {
        insert(&*active, 10 * block, 10, 0);
        active.sync().unwrap();
        assert_eq!(found(&*reader, 10 * block), Some((10 * block, 10 * block + 10)));
    }
    drop((active, reader, storage));
    let Sealed { generation, flushed, end, records, block_bytes, lost, unknown_version, .. } =
        place().open(0, EVERYTHING).unwrap();
    assert_eq!((flushed, end, records, unknown_version), (0, 500, 500, None));
    assert!(lost.is_empty() && block_bytes > 0);
    for block in 0..50 {
        assert_eq!(found(&*generation, 10 * block + 9), Some((10 * block, 10 * block + 10)));
    }
}

fn only_blocks_that_were_flushed_as_a_whole_are_removed(place: Place<'_>) {
    let storage = place();
    let active = storage.create(0).unwrap();
    for block in 0..3 {
        insert(&*active, 10 * block, 10, 19);
    }
    active.sync().unwrap();
    active.remove_below(19).unwrap();
    assert_eq!(found(&*active.as_generation(), 0), Some((10, 20)));
    drop(storage);
    let sealed = place().open(0, EVERYTHING).unwrap();
    assert_eq!((sealed.flushed, sealed.end, sealed.records), (19, 30, 11));
    assert!(sealed.lost.is_empty());
}

fn what_was_flushed_is_known_from_the_blocks_and_from_the_bounds(place: Place<'_>) {
    let storage = place();
    let active = storage.create(0).unwrap();
    insert(&*active, 0, 10, 0);
    insert(&*active, 10, 10, 7);
    active.sync().unwrap();
    drop(active);
    assert_eq!(storage.open(0, EVERYTHING).unwrap().flushed, 7);
    let sealed = storage.open(0, Bounds { flushed: 15, ..EVERYTHING }).unwrap();
    assert_eq!((sealed.flushed, sealed.records), (15, 5));
}

fn what_is_missing_below_the_end_is_lost_and_what_is_missing_behind_the_last_commit_is_not(
    place: Place<'_>,
) {
    let storage = place();
    let active = storage.create(0).unwrap();
    insert(&*active, 0, 10, 0);
    insert(&*active, 20, 10, 0);
    active.sync().unwrap();
    drop(active);
    // The second block was written when everything below it was committed.
    let sealed = storage.open(0, EVERYTHING).unwrap();
    assert_eq!((sealed.end, sealed.lost), (30, vec![range(10, 19)]));
    let sealed = storage.open(0, Bounds { committed: 35, ..EVERYTHING }).unwrap();
    assert_eq!((sealed.end, sealed.lost), (35, vec![range(10, 19), range(30, 34)]));
    let sealed = storage.open(0, Bounds { end: Some(40), ..EVERYTHING }).unwrap();
    assert_eq!((sealed.end, sealed.lost), (40, vec![range(10, 19), range(30, 39)]));
    let sealed = storage.open(0, Bounds { flushed: 25, ..EVERYTHING }).unwrap();
    assert_eq!((sealed.end, sealed.lost), (30, vec![]));
}

fn a_generation_that_is_not_there_has_lost_all_that_was_not_flushed(place: Place<'_>) {
    let storage = place();
    let bounds = Bounds { flushed: 5, end: Some(20), ..EVERYTHING };
    let sealed = storage.open(0, bounds).unwrap();
    assert_eq!((sealed.end, sealed.records, sealed.lost), (20, 0, vec![range(5, 19)]));
    assert!(sealed.generation.block_at(0).unwrap().is_none());
}

fn what_is_set_aside_is_reported_and_can_be_given_up_but_for_its_report(place: Place<'_>) {
    let storage = place();
    fill(&*storage, 0, 3);
    fill(&*storage, 30, 1);
    storage.quarantine(0, &report(0)).unwrap();
    // Of one that is gone only the report is kept.
    storage.quarantine(50, &report(50)).unwrap();
    assert_eq!(storage.list().unwrap(), [30]);
    let bytes = storage.quarantine_bytes();
    assert!(bytes > 0);
    drop(storage);
    let storage = place();
    let mut ids: Vec<_> =
        storage.quarantined().unwrap().into_iter().map(|report| report.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [generation_id(0), generation_id(50)]);
    assert!(storage.evict_quarantined().unwrap());
    assert!(storage.quarantine_bytes() < bytes);
    assert!(!storage.evict_quarantined().unwrap());
    let kept = storage.quarantined().unwrap();
    assert!(kept.contains(&report(0)) && kept.len() == 2, "{kept:?}");
}

fn what_a_newer_version_has_written_is_never_given_up(place: Place<'_>) {
    let storage = place();
    fill(&*storage, 0, 1);
    let newer = Quarantined { unknown_version: Some(9), ..report(0) };
    storage.quarantine(0, &newer).unwrap();
    assert!(!storage.evict_quarantined().unwrap());
    assert_eq!(storage.quarantined().unwrap(), [newer]);
}

fn positions_are_read_back_as_they_were_written_last(place: Place<'_>) {
    let storage = place();
    assert_eq!(storage.read_positions().unwrap(), None);
    let last = Positions { committed: 9, flushed: 4 };
    storage.write_positions(Positions { committed: 7, flushed: 3 });
    storage.write_positions(last);
    assert_eq!(storage.read_positions().unwrap(), Some(last));
    storage.sync_positions();
    drop(storage);
    assert_eq!(place().read_positions().unwrap(), Some(last));
}

fn a_generation_stays_marked_until_it_is_unmarked_deleted_or_made_anew(place: Place<'_>) {
    let storage = place();
    for first in [0, 10, 20] {
        fill(&*storage, first, 1);
        assert!(!storage.is_marked_unreadable(first));
        storage.mark_unreadable(first);
    }
    drop(storage);
    let storage = place();
    assert!(storage.is_marked_unreadable(0) && storage.is_marked_unreadable(10));
    storage.unmark_unreadable(20);
    assert!(!storage.is_marked_unreadable(20));
    storage.delete(0).unwrap();
    assert!(!storage.is_marked_unreadable(0));
    drop(storage.create(10).unwrap());
    assert!(!storage.is_marked_unreadable(10));
}

fn space_is_accounted_for(place: Place<'_>) {
    let storage = place();
    assert_eq!(storage.disk_bytes(0).unwrap(), 0);
    assert!(storage.free_bytes().unwrap() > 0);
    let active = storage.create(0).unwrap();
    insert(&*active, 0, 10, 0);
    active.sync().unwrap();
    assert!(active.disk_bytes() > 0);
    drop(active);
    assert!(storage.disk_bytes(0).unwrap() > 0);
    assert_eq!(storage.quarantine_bytes(), 0);
    storage.delete(0).unwrap();
    assert_eq!(storage.disk_bytes(0).unwrap(), 0);
}
