//! Reading, from the tail or from a generation.

use std::ops::Range;
use std::sync::Arc;

use super::{Log, Shared, judge, lock, report_lost};
use crate::base::time::Timestamp;
use crate::telemetry::Reading;
use crate::wal::WalError;
use crate::wal::contract::generation_id;
use crate::wal::contract::{Generation, Known, Quarantined};
use crate::wal::frame::{Block, Offset, OffsetRange};

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

impl Log {
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
}

impl Shared {
    /// The generation `first` to be read, opened now if it is not.
    pub(super) fn generation(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError> {
        let open = || lock(&self.state).generations.get(&first).and_then(|slot| slot.open.clone());
        // Who reads on in an open one does not wait for somebody who opens another.
        if let Some(generation) = open() {
            return Ok(generation);
        }
        let _opening = lock(&self.opening);
        if let Some(generation) = open() {
            return Ok(generation);
        }
        let known = {
            let state = lock(&self.state);
            let end = state.generations.get(&first).and_then(|slot| slot.end);
            Known { flushed: state.flushed, committed: end.unwrap_or(first), end }
        };
        let mut sealed = self.storage.open(first, known)?;
        if !sealed.lost.is_empty() {
            // sled may still have been at work in it when it was read.
            sealed = self.storage.open(first, known)?;
        }
        if !lock(&self.state).generations.contains_key(&first) {
            // Drained and deleted meanwhile: what is missing was flushed, not lost.
            return Ok(sealed.generation);
        }
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
        // Others than the flusher also read below what is flushed, where blocks go at any time.
        if is_active && !holds_it && offset >= lock(&self.state).flushed {
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
        match found {
            Err(WalError::Unreadable { range }) => {
                self.report_unreadable(first, range);
                self.block_at(range.to + 1)
            }
            found => Ok(found?.map(Arc::new)),
        }
    }

    /// A block was damaged after its generation was opened.
    fn report_unreadable(&self, first: Offset, range: OffsetRange) {
        let mut state = lock(&self.state);
        let Some(slot) = state.generations.get_mut(&first) else { return };
        let damage = slot.damage.get_or_insert_with(|| Quarantined::new(first, Vec::new()));
        if damage.lost_ranges.contains(&range) {
            return;
        }
        damage.lost_ranges.push(range);
        drop(state);
        report_lost(&Quarantined::new(first, vec![range]), &self.metrics);
    }

    /// Where the generation that holds `offset` ends.
    fn end_of_generation(&self, offset: Offset) -> Offset {
        let state = lock(&self.state);
        let next = state.generations.range(offset + 1..).next().map(|(first, _)| *first);
        next.unwrap_or(Offset::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::metrics::Metrics;
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::open;
    use crate::wal::{Limits, Writer};

    fn commit(writer: &mut Writer, count: usize) {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        for _ in 0..count {
            let device_id = "device".to_owned();
            writer.append(at, Reading { device_id, timestamp: at, values: [1.0, 2.0, 3.0] });
        }
        writer.commit().unwrap();
    }

    #[test]
    fn what_was_flushed_and_freed_under_a_readers_hands_is_no_damage() {
        let limits = Limits { max_bytes: u64::MAX, min_free_bytes: 0, generation_bytes: u64::MAX };
        let metrics = Metrics::new().unwrap();
        let storage = Box::new(MemoryStorage::default());
        let (mut writer, log) = open(storage, limits, &metrics).unwrap();
        commit(&mut writer, 1_000);
        log.trim(900);
        commit(&mut writer, 10);
        writer.maintain().unwrap();
        let batch = log.read(0, 1_010).unwrap();
        assert_eq!(batch.next, 1_010);
        assert!(batch.records().map(|(offset, _)| offset).eq(1_010 - batch.len() as u64..1_010));
        assert!((110..1_010).contains(&batch.len()), "{}", batch.len());
        assert_eq!(log.stats().generations.len(), 1, "a new one was started");
        assert_eq!(metrics.wal_lost_records.get(), 0);
    }
}
