//! Where in the log is what, for who looks for the newest readings.

use std::cmp::Reverse;
use std::time::Duration;

use super::handle::Log;
use super::heard::Heard;
use super::latest::{LastValues, Latest};
use super::state::lock;
use super::stretches::{Gone, Stretch};
use crate::base::time::Timestamp;
use crate::telemetry::validate::TimeOfDay;
use crate::wal::error::WalError;
use crate::wal::offset::Offset;

/// Records that are read in one go where nothing is known of them.
const STEP: u64 = 1_024;

/// A part of the log to be read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The offset of its first record.
    pub(crate) first: Offset,
    /// One past that of its last.
    pub(crate) end: Offset,
    /// The earliest and the latest time in it, if they are known.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
}

impl From<Stretch> for Piece {
    fn from(Stretch { first, end, oldest, newest }: Stretch) -> Self {
        Self { first, end, times: Some((oldest, newest)) }
    }
}

impl Log {
    /// The committed log from `from` on in pieces: first those of which something is known, the one with the
    /// latest time at the head, then the others, the one received last at the head.
    #[must_use]
    pub(crate) fn pieces(&self, from: Offset) -> Vec<Piece> {
        let committed = *self.shared.committed.borrow();
        let (known_from, chunks) = lock(&self.shared.stretches).beyond(from);
        let known = chunks.iter().flat_map(|chunk| chunk.iter().copied().map(Piece::from));
        let mut pieces: Vec<Piece> = known
            .rev()
            .filter(|piece| piece.end > from)
            .map(|piece| Piece { first: piece.first.max(from), ..piece })
            .collect();
        pieces.sort_by_key(|piece| Reverse(piece.times.map(|(_, newest)| newest)));
        let mut end = known_from.min(committed);
        while end > from {
            let first = end.saturating_sub(STEP).max(from);
            pieces.push(Piece { first, end, times: None });
            end = first;
        }
        pieces
    }

    /// The last value of each device, as far as it was committed by this process or found again.
    #[must_use]
    pub(crate) fn latest(&self) -> &Latest {
        &self.shared.latest
    }

    /// Keeps a row that was found in a table as the last value of its device, if that has none as new. The
    /// device was heard of then, as far as is known.
    pub(crate) fn offer_stored(
        &self,
        table: &str,
        device_id: &str,
        timestamp: Timestamp,
        values: LastValues,
    ) {
        let heard = self.heard(timestamp);
        self.shared.latest.offer_stored((table, device_id), timestamp, values, heard);
    }

    /// The clock by which devices are heard of.
    #[must_use]
    pub(crate) fn monotonic(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    fn heard(&self, at: Timestamp) -> Heard {
        let clock = &self.shared.clock;
        Heard::dated(at, clock.monotonic(), TimeOfDay::at(clock.wall()))
    }

    /// Reads a step further back in what earlier processes have left, for what the outline and the last
    /// values lack of it. Returns whether there is more. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn look_back(&self) -> Result<bool, WalError> {
        let retained = self.retained();
        let end = lock(&self.shared.stretches).known_from();
        if end <= retained {
            return Ok(false);
        }
        let first = end.saturating_sub(STEP).max(retained);
        let batch = self.read(first, end)?;
        let mut times: Option<(Timestamp, Timestamp)> = None;
        for (received_at, record) in batch.records_received() {
            let at = record.timestamp();
            self.shared.latest.offer(record, self.heard(received_at.max(at)));
            times = Some(times.map_or((at, at), |(old, new)| (old.min(at), new.max(at))));
        }
        let stretch = times.map(|(oldest, newest)| Stretch { first, end, oldest, newest });
        lock(&self.shared.stretches).extend_back(first, stretch);
        Ok(first > retained)
    }

    /// What is known of readings that were in the log and are not any more.
    #[must_use]
    pub(crate) fn gone(&self) -> Gone {
        lock(&self.shared.stretches).gone()
    }
}
