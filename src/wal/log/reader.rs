//! Reading, from the tail or from a generation.

use std::ops::Range;
use std::sync::Arc;

use super::{Log, Shared, judge, lock};
use crate::reading::{Reading, Timestamp};
use crate::wal::WalError;
use crate::wal::block::{Block, Offset};
use crate::wal::sled::generation_id;
use crate::wal::storage::{Generation, Known};

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
}
