//! What is read from the log.

use std::ops::Range;
use std::sync::Arc;

use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::wal::frame::Block;
use crate::wal::offset::Offset;

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
    pub(super) fn starting_at(from: Offset) -> Self {
        Self { from, next: from, spans: Vec::new() }
    }

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
    pub(super) fn push(&mut self, block: Arc<Block>, to: Offset) {
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
    pub fn records(&self) -> impl Iterator<Item = (Offset, &Record)> {
        self.spans.iter().flat_map(|(block, range)| {
            let readings = &block.readings[range.clone()];
            (block.first + range.start as u64..).zip(readings)
        })
    }

    /// The records, each with the time of day when it was received.
    pub(super) fn records_received(&self) -> impl Iterator<Item = (Timestamp, &Record)> {
        self.spans.iter().flat_map(|(block, range)| {
            block.readings[range.clone()].iter().map(|reading| (block.received_at, reading))
        })
    }

    /// Receipt times, each with the offset of the first record that came then, and their number.
    pub(super) fn received_at(&self) -> impl Iterator<Item = (Offset, Timestamp, usize)> {
        let offset = |(block, range): &(Arc<Block>, Range<usize>)| {
            (block.first + range.start as u64, block.received_at, range.len())
        };
        self.spans.iter().map(offset)
    }
}
