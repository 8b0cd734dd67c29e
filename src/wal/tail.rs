//! The newest blocks, kept in memory so that in normal operation the flusher reads nothing back
//! from disk and decodes nothing twice.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::Block;
use super::offset::Offset;

/// About 100 bytes a record in memory.
const MAX_RECORDS: usize = 50_000;

/// A bounded run of consecutive blocks; when it is full the oldest go, they are on disk.
#[derive(Default)]
pub(super) struct Tail {
    blocks: VecDeque<Arc<Block>>,
    records: usize,
}

impl Tail {
    /// Adds the block that follows the last one.
    pub(super) fn push(&mut self, block: Block) {
        self.records += block.readings.len();
        self.blocks.push_back(Arc::new(block));
        while self.records > MAX_RECORDS {
            self.pop();
        }
    }

    /// The block that holds `offset`, if it is still here.
    pub(super) fn get(&self, offset: Offset) -> Option<Arc<Block>> {
        let behind = self.blocks.partition_point(|block| block.first <= offset);
        let block = self.blocks.get(behind.checked_sub(1)?)?;
        (block.end() > offset).then(|| Arc::clone(block))
    }

    /// Lets go of the blocks that end at or below `flushed`.
    pub(super) fn trim(&mut self, flushed: Offset) {
        while self.blocks.front().is_some_and(|block| block.end() <= flushed) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(block) = self.blocks.pop_front() {
            self.records -= block.readings.len();
        }
    }
}
