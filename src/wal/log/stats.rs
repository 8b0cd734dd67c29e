//! What the log looks like from outside.

use std::sync::atomic::Ordering;

use super::ages::Now;
use super::batch::Batch;
use super::handle::Log;
use super::state::{Limits, lock};
use crate::wal::contract::{Quarantined, generation_id};
use crate::wal::error::WalError;
use crate::wal::offset::Offset;

/// One generation, as `/admin/wal` shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct GenerationStats {
    /// The name of its directory.
    pub(crate) id: String,
    /// Offset of its first record.
    pub(crate) first_offset: Offset,
    /// Records in it that are not flushed.
    pub(crate) pending_records: u64,
    /// Bytes on disk.
    pub(crate) disk_bytes: u64,
}

/// The log's state at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Stats {
    /// The offset that the next record gets.
    pub(crate) next_offset: Offset,
    /// Every record below is in PostgreSQL or in the dead-letter store.
    pub(crate) flushed_offset: Offset,
    /// Committed and not flushed, less what was lost.
    pub(crate) pending_records: u64,
    /// What the blocks of the pending records come to, in proportion where a generation is flushed
    /// in part.
    pub(crate) pending_bytes: u64,
    /// Bytes on disk of all generations, those in quarantine included.
    pub(crate) disk_bytes: u64,
    /// The generations, oldest first.
    pub(crate) generations: Vec<GenerationStats>,
}

impl Log {
    /// The log's state now.
    #[must_use]
    pub(crate) fn stats(&self) -> Stats {
        let state = lock(&self.shared.state);
        let committed = *self.shared.committed.borrow();
        let mut whole = Stats {
            next_offset: committed,
            flushed_offset: state.flushed,
            pending_records: 0,
            pending_bytes: 0,
            disk_bytes: self.shared.quarantine_bytes.load(Ordering::Relaxed),
            generations: Vec::with_capacity(state.generations.len()),
        };
        for (first, generation) in &state.generations {
            let from = state.flushed.max(*first);
            let end = generation.end.unwrap_or(committed);
            let unflushed = end.saturating_sub(from);
            let one = GenerationStats {
                id: generation_id(*first),
                first_offset: *first,
                pending_records: unflushed.saturating_sub(generation.lost_from(from)),
                disk_bytes: generation.bytes(),
            };
            whole.pending_records += one.pending_records;
            whole.disk_bytes += one.disk_bytes;
            let share = u128::from(generation.block_bytes) * u128::from(unflushed);
            let pending_bytes =
                share.checked_div(u128::from(end.saturating_sub(*first))).unwrap_or(0);
            whole.pending_bytes += u64::try_from(pending_bytes).unwrap_or(u64::MAX);
            whole.generations.push(one);
        }
        whole
    }

    /// How long the oldest pending record has waited, in seconds; 0 if none is pending. Never
    /// blocks; behind by a second or two for what is no longer in memory.
    #[must_use]
    pub(crate) fn oldest_pending_seconds(&self) -> f64 {
        let mut state = lock(&self.shared.state);
        let flushed = state.flushed;
        if flushed >= *self.shared.committed.borrow() {
            return 0.0;
        }
        let in_tail = state.tail.get(flushed).map(|block| (flushed, block.received_at));
        let oldest = in_tail.or(state.oldest);
        let now = Now::of(&*self.shared.clock);
        oldest.map_or(0.0, |(offset, since)| state.ages.seconds(offset, since, now))
    }

    /// How long ago the records of `batch` were received, in seconds, each with the number of records that
    /// came together; right whatever was done to the time of day.
    #[must_use]
    pub(crate) fn ages(&self, batch: &Batch) -> Vec<(f64, usize)> {
        let mut state = lock(&self.shared.state);
        let now = Now::of(&*self.shared.clock);
        let age = |(offset, at, records)| (state.ages.seconds(offset, at, now), records);
        batch.received_at().map(age).collect()
    }

    /// Finds out since when the oldest pending record waits, if that takes the disk.
    pub(super) fn look_up_oldest(&self) {
        let flushed = {
            let state = lock(&self.shared.state);
            let known = state.oldest.is_some_and(|(at, _)| at == state.flushed);
            let in_tail = state.tail.get(state.flushed).is_some();
            let none = state.flushed >= *self.shared.committed.borrow();
            if known || in_tail || none {
                return;
            }
            state.flushed
        };
        let Ok(batch) = self.read(flushed, flushed + 1) else { return };
        if let Some((_, since, _)) = batch.received_at().next() {
            lock(&self.shared.state).oldest = Some((flushed, since));
        }
    }

    /// Damaged generations: those in quarantine, and those that will be once they are drained. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// If the disk does not say.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, WalError> {
        let mut all = self.shared.storage.quarantined()?;
        let state = lock(&self.shared.state);
        all.extend(state.generations.values().filter_map(|generation| generation.damage.clone()));
        Ok(all)
    }

    /// How much it may take.
    #[must_use]
    pub(crate) fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// Bytes that are free on the log's filesystem.
    ///
    /// # Errors
    /// If the filesystem does not say.
    pub fn free_bytes(&self) -> Result<u64, WalError> {
        self.shared.storage.free_bytes()
    }
}
