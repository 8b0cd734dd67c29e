//! Receipts in the log: finding them again, and keeping what holds them.
//!
//! What is flushed stays for the last [`MOST_RECEIPTS`] of them, beside what is retained for its time: by
//! the same rule that it takes at most an eighth of the log's limit and gives way, oldest first, where its
//! room is needed. A broker asks for the newest alone, those of messages that it has not heard
//! acknowledged, so what gave way is missed only if a process ends without its acknowledgements just when
//! the log or its disk is full.

use std::collections::VecDeque;

use super::state::{Shared, lock};
use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::wal::error::WalError;
use crate::wal::frame::Block;
use crate::wal::offset::Offset;
use crate::wal::receipt::{MOST_RECEIPTS, Receipt};

/// No further back than so many records, whatever they are: 16 a receipt. Bounds how long a log takes to
/// open, and how much is kept of one that other records fill.
const MOST_RECORDS_BACK: u64 = 16 * MOST_RECEIPTS as u64;

/// A message with many readings gets as many times, a microsecond apart; within this span.
const SPAN_MICROS: i64 = 1_000_000;

/// What an earlier process has left.
#[derive(Debug, Default)]
pub struct LeftReceipts {
    /// Oldest first.
    pub receipts: Vec<Receipt>,
    /// The newest time of arrival that is known to be given.
    pub newest: Option<Timestamp>,
}

/// Where the receipts lie that are still needed.
#[derive(Default)]
pub(super) struct Places {
    /// Blocks with receipts, and how many.
    blocks: VecDeque<(Offset, usize)>,
    total: usize,
}

impl Places {
    /// There are receipts in the block that begins at `first`.
    pub(super) fn add(&mut self, first: Offset, receipts: &[Receipt]) {
        let count = count(receipts);
        if count > 0 {
            self.blocks.push_back((first, count));
            self.total += count;
        }
    }

    /// Where the oldest lies that is needed in a log that ends at `end`; its end if there is none.
    pub(super) fn oldest(&mut self, end: Offset) -> Offset {
        while let Some((first, count)) = self.blocks.front() {
            let is_too_old = *first + MOST_RECORDS_BACK < end;
            if !is_too_old && self.total - count < MOST_RECEIPTS {
                return *first;
            }
            self.total -= count;
            self.blocks.pop_front();
        }
        Offset::MAX
    }
}

impl Shared {
    /// The receipts that an earlier process has left, as far as they are needed.
    ///
    /// # Errors
    /// If the disk fails. Without them a message that the broker delivers again is stored a second time.
    pub(super) fn read_receipts(&self) -> Result<(LeftReceipts, Places), WalError> {
        let generations: Vec<(Offset, Offset)> = {
            let state = lock(&self.state);
            let ended = state.generations.iter().rev();
            ended.filter_map(|(first, generation)| Some((*first, generation.end?))).collect()
        };
        let end = *self.committed.borrow();
        // Newest first.
        let mut found: Vec<Vec<(Offset, Vec<Receipt>)>> = Vec::new();
        let (mut newest, mut total) = (None, 0);
        for (first, to) in generations {
            if total >= MOST_RECEIPTS || to + MOST_RECORDS_BACK < end {
                break;
            }
            let mut of_generation = Vec::new();
            let mut at = first.max(end.saturating_sub(MOST_RECORDS_BACK));
            while at < to {
                let Some(block) = self.block_at(at)? else { break };
                at = block.end();
                newest = newest.max(newest_time(&block));
                if !block.receipts.is_empty() {
                    total += count(&block.receipts);
                    of_generation.push((block.first, block.receipts.clone()));
                }
            }
            found.push(of_generation);
        }
        let mut left = LeftReceipts { receipts: Vec::with_capacity(total), newest };
        let mut places = Places::default();
        for (first, receipts) in found.into_iter().rev().flatten() {
            places.add(first, &receipts);
            left.receipts.extend(receipts);
        }
        Ok((left, places))
    }
}

/// How many a broker may ask for again.
fn count(receipts: &[Receipt]) -> usize {
    receipts.iter().filter(|receipt| receipt.is_of_packet()).count()
}

/// The newest time of arrival that is given in a block, if there is one.
fn newest_time(block: &Block) -> Option<Timestamp> {
    let newest = block.receipts.iter().map(|receipt| receipt.time).max()?;
    let is_of_it = |time: &Timestamp| {
        let behind = time.as_micros().saturating_sub(newest.as_micros());
        (0..SPAN_MICROS).contains(&behind)
    };
    block.readings.iter().map(Record::timestamp).filter(is_of_it).max().or(Some(newest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::base::metrics::Metrics;
    use crate::base::time::ManualClock;
    use crate::telemetry::mapping::{MappedReading, SilentAfter, TableShape};
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::{Limits, Log, Rewound, Writer, open, open_with_receipts};
    use crate::wal::receipt::NO_PACKET;

    const RETAIN: Duration = Duration::ZERO;

    fn limits(max_bytes: u64) -> Limits {
        Limits { max_bytes, min_free_bytes: 0, generation_bytes: 1, retain: RETAIN }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(1_759_667_696_000_000 + micros).unwrap()
    }

    fn receipt(packet_id: u16, micros: i64) -> Receipt {
        Receipt { packet_id, hash: u64::MAX - u64::from(packet_id), time: at(micros) }
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(at(0)))
    }

    fn reopen(storage: &MemoryStorage, max_bytes: u64) -> (Writer, Log, LeftReceipts) {
        let metrics = Metrics::new().unwrap();
        let storage = Box::new(storage.clone());
        open_with_receipts(storage, clock(), limits(max_bytes), &metrics, true).unwrap()
    }

    /// A message of so many readings.
    fn commit(writer: &mut Writer, receipt: Option<Receipt>, readings: i64) {
        let table = Arc::new(TableShape { name: "t".to_owned(), columns: Vec::new() });
        for index in 0..readings {
            let (device_id, cells) = ("d".to_owned(), Vec::new());
            let base = receipt.map_or(0, |receipt| receipt.time.as_micros());
            let timestamp = Timestamp::from_micros(base + index).unwrap();
            let table = Arc::clone(&table);
            let silent_after = SilentAfter::OfTable;
            let row = MappedReading { table, device_id, timestamp, cells, silent_after };
            writer.append_arrived(at(0), Record::from(row), receipt);
        }
        writer.commit().unwrap();
        writer.maintain().unwrap();
    }

    #[test]
    fn receipts_are_found_again_although_all_is_flushed() {
        let storage = MemoryStorage::default();
        let (mut writer, log, left) = reopen(&storage, u64::MAX);
        assert_eq!((left.receipts, left.newest), (vec![], None));
        commit(&mut writer, None, 3);
        commit(&mut writer, Some(receipt(7, 10)), 2);
        commit(&mut writer, Some(receipt(8, 20)), 1);
        commit(&mut writer, Some(receipt(NO_PACKET, 30)), 1);
        log.flush_to(7);
        log.maintain();
        // What lies before the first receipt is not needed.
        assert_eq!((log.retained(), log.flushed()), (3, 7));
        drop((writer, log));
        for _ in 0..3 {
            let (_writer, log, left) = reopen(&storage, u64::MAX);
            let expected = [receipt(7, 10), receipt(8, 20), receipt(NO_PACKET, 30)];
            assert_eq!(left.receipts, expected);
            assert_eq!(left.newest, Some(at(30)));
            assert_eq!((log.flushed(), log.stats().pending_records), (7, 0));
            // Each generation still ends where it ended.
            for _ in 0..2 {
                assert_eq!(log.rewind().unwrap(), Rewound { to: 3, records: 4 });
                assert_eq!(log.read(3, 7).unwrap().len(), 4);
                log.flush_to(7);
            }
        }
        // Nothing is held up for whoever has left the broker in order.
        let metrics = Metrics::new().unwrap();
        let copy = Box::new(storage.clone());
        let (_, log, left) =
            open_with_receipts(copy, clock(), limits(u64::MAX), &metrics, false).unwrap();
        assert_eq!((left.receipts, left.newest), (vec![], Some(at(30))));
        assert_eq!(log.stats().generations.len(), 1);
        drop(log);
        // Nor for whoever does not ask.
        let metrics = Metrics::new().unwrap();
        let storage = Box::new(storage);
        let (_writer, log) = open(storage, clock(), limits(u64::MAX), &metrics).unwrap();
        assert_eq!(log.stats().generations.len(), 1);
    }

    #[test]
    fn the_newest_time_is_that_of_the_last_element() {
        let storage = MemoryStorage::default();
        let (mut writer, log, _) = reopen(&storage, u64::MAX);
        commit(&mut writer, Some(receipt(7, 10)), 50);
        drop((writer, log));
        assert_eq!(reopen(&storage, u64::MAX).2.newest, Some(at(59)));
    }

    #[test]
    fn where_the_room_is_needed_the_oldest_receipts_give_way_and_the_log_goes_on() {
        let storage = MemoryStorage::default();
        let (mut writer, log, _) = reopen(&storage, 4_000);
        for number in 1..=60 {
            commit(&mut writer, Some(receipt(number, i64::from(number) * 10)), 1);
            log.flush_to(u64::from(number));
            log.maintain();
        }
        assert!((1..60).contains(&log.retained()), "{}", log.retained());
        drop((writer, log));
        let (_writer, log, left) = reopen(&storage, 4_000);
        assert!((1..60).contains(&left.receipts.len()), "{}", left.receipts.len());
        assert_eq!(left.receipts.last(), Some(&receipt(60, 600)));
        assert!(log.stats().disk_bytes <= 4_000);
    }

    #[test]
    fn no_more_is_kept_than_there_are_packet_ids() {
        let mut places = Places::default();
        let many = vec![receipt(1, 0); 30_000];
        for first in [100, 200, 300] {
            places.add(first, &many);
        }
        assert_eq!(places.oldest(400), 100);
        places.add(400, &many);
        assert_eq!(places.oldest(500), 200);
        places.add(500, &[receipt(NO_PACKET, 0)]);
        assert_eq!(places.oldest(600), 200);
        assert_eq!(places.oldest(250 + MOST_RECORDS_BACK), 300);
        assert_eq!(places.oldest(1_000 + MOST_RECORDS_BACK), Offset::MAX);
    }
}
