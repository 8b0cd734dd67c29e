//! Reading, from the tail in memory or from a generation.

use std::sync::Arc;

use super::batch::Batch;
use super::handle::Log;
use super::open::open_generation;
use super::state::{Shared, lock};
use crate::wal::contract::{Bounds, Generation, Sealed, Unreadable, generation_id};
use crate::wal::error::WalError;
use crate::wal::frame::Block;
use crate::wal::offset::{Offset, OffsetRange};
use crate::wal::recovery::bounds_of_older;

impl Log {
    /// The records with offsets from `from` up to, not including, `to`, as far as they are
    /// committed. Blocks on the disk if they are no longer in memory.
    ///
    /// # Errors
    /// If the disk fails, also when it is asked again: the caller stops, and the process that is started
    /// in its place tries once more. Damage is no error, it is reported and passed over.
    pub fn read(&self, from: Offset, to: Offset) -> Result<Batch, WalError> {
        let to = to.min(*self.shared.committed.borrow());
        let mut batch = Batch::starting_at(from);
        while batch.next < to {
            let Some(block) = self.shared.block_at(batch.next)? else {
                batch.next = self.shared.end_of_generation(batch.next).min(to);
                continue;
            };
            batch.push(block, to);
        }
        Ok(batch)
    }

    /// Of the records that were flushed last so many at most, as far as they are still here.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn last_flushed(&self, most: u64) -> Result<Batch, WalError> {
        let flushed = self.flushed();
        let from = flushed.saturating_sub(most).max(self.retained());
        self.read(from, flushed)
    }

    /// As [`Self::read`], but only if all of it is still in memory; never blocks for long.
    #[must_use]
    pub fn read_tail(&self, from: Offset, to: Offset) -> Option<Batch> {
        let to = to.min(*self.shared.committed.borrow());
        let mut batch = Batch::starting_at(from);
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
        // Who reads on in an open one does not wait for somebody who opens another.
        if let Some(generation) = lock(&self.state).opened(first) {
            return Ok(generation);
        }
        let _opening = lock(&self.opening);
        if let Some(generation) = lock(&self.state).opened(first) {
            return Ok(generation);
        }
        let bounds = self.bounds(first);
        let open = || open_generation(&*self.storage, first, bounds);
        let mut sealed = open()?;
        if !sealed.lost.is_empty() {
            // sled may still have been at work in it when it was read.
            sealed = open()?;
        }
        let generation = Arc::clone(&sealed.generation);
        self.take_sealed(first, sealed);
        Ok(generation)
    }

    fn bounds(&self, first: Offset) -> Bounds {
        let state = lock(&self.state);
        let generation = state.generations.get(&first);
        let unreadable = generation.map_or(Unreadable::IsAnError, |kept| kept.unreadable);
        match generation.and_then(|generation| generation.end) {
            Some(end) => bounds_of_older(first, end, state.flushed, unreadable),
            // It was drained and deleted meanwhile.
            None => Bounds { flushed: state.flushed, committed: first, end: None, unreadable },
        }
    }

    /// Keeps what was opened, and reports what is missing in it, unless it was drained and deleted
    /// meanwhile: then that was flushed.
    pub(super) fn take_sealed(&self, first: Offset, sealed: Sealed) {
        self.report_damage(first, &sealed);
        let mut state = lock(&self.state);
        if let Some(generation) = state.generations.get_mut(&first) {
            generation.end = Some(sealed.end);
            generation.block_bytes = sealed.block_bytes;
            if sealed.is_read_whole {
                generation.unreadable = Unreadable::IsAnError;
            }
        }
        state.keep_open(first, sealed.generation);
    }

    /// The block that holds `offset`, or the next one if damage took that; `None` if there is no
    /// further one in its generation.
    pub(super) fn block_at(&self, offset: Offset) -> Result<Option<Arc<Block>>, WalError> {
        let (first, is_active) = {
            let state = lock(&self.state);
            if let Some(block) = state.tail.get(offset) {
                return Ok(Some(block));
            }
            match state.generations.range(..=offset).next_back() {
                Some((first, generation)) => (*first, generation.end.is_none()),
                None => return Ok(None),
            }
        };
        if !is_active {
            return self.sealed_block_at(first, offset);
        }
        let found = self.generation(first)?.block_at(offset);
        let holds_it = matches!(&found, Ok(Some(block)) if block.first <= offset);
        // Others than the flusher also read below what is flushed, where blocks go at any time.
        if holds_it || offset < lock(&self.state).flushed {
            return Ok(found?.map(Arc::new));
        }
        // Committed, but sled cannot give it back: its file can.
        tracing::error!(
            generation = generation_id(first),
            offset,
            reason = found.err().map_or("it is not there".to_owned(), |error| error.to_string()),
            "the newest WAL generation cannot be read back: going on in a new one, reading this one's raw file"
        );
        self.roll(&mut lock(&self.end))?;
        self.sealed_block_at(first, offset)
    }

    /// As [`Self::block_at`], of the generation `first`, which is only read.
    fn sealed_block_at(
        &self,
        first: Offset,
        offset: Offset,
    ) -> Result<Option<Arc<Block>>, WalError> {
        let generation = self.generation(first)?;
        let mut offset = offset;
        // What was damaged after the generation was opened, as one range for as long as it goes on.
        let mut lost: Option<OffsetRange> = None;
        let report = |lost: Option<OffsetRange>| {
            if let Some(range) = lost {
                self.report_unreadable(first, range);
            }
        };
        loop {
            match generation.block_at(offset) {
                Err(WalError::Unreadable { range }) => {
                    lost = match lost {
                        Some(before) if before.to + 1 == range.from => {
                            Some(OffsetRange { from: before.from, to: range.to })
                        }
                        before => {
                            report(before);
                            Some(range)
                        }
                    };
                    offset = range.to + 1;
                }
                Err(error) => {
                    report(lost);
                    self.storage.mark_unreadable(first);
                    return Err(error);
                }
                Ok(block) => {
                    report(lost);
                    return Ok(block.map(Arc::new));
                }
            }
        }
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
    use std::sync::Arc;
    use std::time::Duration;

    use crate::base::metrics::Metrics;
    use crate::base::time::{SystemClock, Timestamp};
    use crate::telemetry::Reading;
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::open::{open_in, try_open_in};
    use crate::wal::log::{Limits, Writer, open};

    fn commit(writer: &mut Writer, count: usize) {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        for _ in 0..count {
            let device_id = "device".to_owned();
            writer.append(at, Reading { device_id, timestamp: at, values: [1.0, 2.0, 3.0] });
        }
        writer.commit().unwrap();
    }

    #[test]
    fn what_the_disk_does_not_read_is_lost_to_the_next_process_and_not_to_the_next_reader() {
        let metrics = Metrics::new().unwrap();
        let storage = MemoryStorage::default();
        let reopen = || open_in(&storage, &metrics);
        let (mut writer, log) = reopen();
        commit(&mut writer, 10);
        writer.maintain().unwrap();
        // Its only block by now.
        storage.fail_reads(&mut fastrand::Rng::with_seed(0), u32::MAX).unwrap();
        commit(&mut writer, 10);
        writer.maintain().unwrap();
        drop((writer, log));

        let (writer, log) = reopen();
        for reader in ["an observer", "the flusher"] {
            assert!(log.read(0, 20).is_err(), "{reader}");
            assert_eq!(metrics.wal_lost_records.get(), 0, "{reader}");
        }
        drop((writer, log));
        let (_writer, log) = reopen();
        assert_eq!(log.read(0, 20).unwrap().len(), 10);
        assert_eq!(metrics.wal_lost_records.get(), 10);
    }

    #[test]
    fn what_was_lost_when_the_log_was_opened_is_no_error_when_its_generation_is_opened_again() {
        let storage = MemoryStorage::default();
        let reopen = |metrics: &Metrics| open_in(&storage, metrics);
        let (mut writer, log) = reopen(&Metrics::new().unwrap());
        for _ in 0..3 {
            writer.maintain().unwrap();
            commit(&mut writer, 10);
        }
        drop((writer, log));
        storage.fail_reads_in(20);

        let metrics = Metrics::new().unwrap();
        assert!(try_open_in(&storage, &metrics).is_err());
        let (_writer, log) = reopen(&metrics);
        assert_eq!(metrics.wal_lost_records.get(), 10);
        for _ in 0..2 {
            // Others that are read in between have it closed.
            assert_eq!(log.read(0, 30).unwrap().len(), 20);
        }
        assert_eq!(metrics.wal_lost_records.get(), 10);
    }

    #[test]
    fn what_was_flushed_and_freed_under_a_readers_hands_is_no_damage() {
        let limits = Limits {
            max_bytes: u64::MAX,
            min_free_bytes: 0,
            generation_bytes: u64::MAX,
            retain: Duration::ZERO,
        };
        let metrics = Metrics::new().unwrap();
        let storage = Box::new(MemoryStorage::default());
        let (mut writer, log) =
            open(storage, Arc::new(SystemClock::default()), limits, &metrics).unwrap();
        commit(&mut writer, 1_000);
        log.flush_to(900);
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
