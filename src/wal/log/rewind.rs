//! Making flushed records pending again.
//!
//! For this process alone: what the disk says of how far the log was flushed stays as it is. A process that
//! starts before all of it has arrived has to be told again that the database went back, and is, since
//! whoever tells it remembers only a database that has everything.

use super::handle::Rewound;
use super::open::open_generation;
use super::state::{Shared, lock};
use crate::wal::contract::Unreadable;
use crate::wal::error::WalError;
use crate::wal::offset::Offset;
use crate::wal::recovery::bounds_of_older;

impl Shared {
    pub(super) fn rewind(&self) -> Result<Rewound, WalError> {
        let to = self.available()?;
        let mut state = lock(&self.state);
        // What gave way meanwhile is gone.
        let to = to.max(state.retention.trimmed()).min(state.flushed);
        let generations = state.generations.range(..state.flushed);
        let lost: u64 = generations
            .map(|(_, generation)| generation.lost_from(to) - generation.lost_from(state.flushed))
            .sum();
        let records = (state.flushed - to).saturating_sub(lost);
        state.flushed = to;
        state.retention.rewind(to);
        state.oldest = None;
        drop(state);
        self.write_positions(|positions| positions.flushed = to);
        Ok(Rewound { to, records })
    }

    /// From where on everything that was flushed is still here. What an earlier process left is looked for,
    /// newest first.
    fn available(&self) -> Result<Offset, WalError> {
        let (to, mut here) = {
            let state = lock(&self.state);
            (state.retention.trimmed(), state.retention.certain().min(state.flushed))
        };
        while here > to {
            let older = {
                let state = lock(&self.state);
                let older = state.generations.range(..here).next_back();
                older.and_then(|(first, kept)| Some((*first, kept.end?, kept.unreadable)))
            };
            let older = older.filter(|(_, end, _)| *end >= here);
            let Some((first, end, unreadable)) = older else { break };
            let bounds = bounds_of_older(first, end, here, unreadable);
            let found = open_generation(&*self.storage, first, bounds)?;
            if found.is_read_whole
                && let Some(kept) = lock(&self.state).generations.get_mut(&first)
            {
                kept.unreadable = Unreadable::IsAnError;
            }
            here = found.retained.min(here);
            if here > first {
                break;
            }
        }
        Ok(here.max(to))
    }
}
