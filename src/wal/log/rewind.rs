//! Making flushed records pending again.
//!
//! The blocks that were written before say that they are flushed. So a new generation is begun, and it
//! is written down durably that what blocks of the ones before it say of that counts no more.

use super::state::{Shared, lock};
use crate::wal::contract::{Bounds, Rewind, Unreadable};
use crate::wal::error::WalError;
use crate::wal::offset::Offset;

impl Shared {
    pub(super) fn rewind(&self, to: Offset) -> Result<Offset, WalError> {
        let to = self.available(to)?;
        let mut end = lock(&self.end);
        let (to, flushed) = {
            let state = lock(&self.state);
            (to.max(state.retention.trimmed()), state.flushed)
        };
        if to >= flushed {
            return Ok(flushed);
        }
        if let Err(error) = self.roll(&mut end) {
            // Nothing more is written to the old one nevertheless.
            tracing::warn!(%error, "no new WAL generation could be started while flushed readings were made pending again: taking nothing until one can");
        }
        let rewind = Rewind { flushed: to, boundary: end.next };
        self.write_positions(|positions| positions.flushed = to);
        self.storage.sync_positions()?;
        self.storage.write_rewind(rewind)?;
        let mut state = lock(&self.state);
        state.flushed = to;
        state.rewind = Some(rewind);
        state.retention.rewind(to);
        state.oldest = None;
        Ok(to)
    }

    /// From where on, at `to` or behind it, everything that was flushed is still here. What an earlier
    /// process left is looked for, newest first.
    fn available(&self, to: Offset) -> Result<Offset, WalError> {
        let (to, mut here) = {
            let state = lock(&self.state);
            (to.max(state.retention.trimmed()), state.retention.certain().min(state.flushed))
        };
        while here > to {
            let older = {
                let state = lock(&self.state);
                let older = state.generations.range(..here).next_back();
                older.and_then(|(first, generation)| Some((*first, generation.end?)))
            };
            let Some((first, end)) = older.filter(|(_, end)| *end >= here) else { break };
            let found = self.storage.open(
                first,
                Bounds {
                    flushed: here,
                    committed: first,
                    end: Some(end),
                    tells_flushed: false,
                    unreadable: Unreadable::IsLost,
                },
            )?;
            let is_whole = found.retained <= first;
            here = found.retained;
            if !is_whole {
                break;
            }
        }
        Ok(here.max(to))
    }
}
