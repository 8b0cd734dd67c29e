//! The disk under the log: the log's own engine in memory, and a mutant of it.

use std::sync::Arc;

use iot_ingestor::wal::contract::{
    Active, Bounds, Generation, Positions, Quarantined, Sealed, Storage,
};
use iot_ingestor::wal::engine::memory::MemoryStorage;
use iot_ingestor::wal::{Block, Offset, WalError};

/// A storage that tries a sync that failed again. The kernel has dropped the pages by then and reports
/// no error any more, so it is believed.
pub(crate) struct RetriesSyncs(pub(crate) MemoryStorage);

impl Storage for RetriesSyncs {
    fn list(&self) -> Result<Vec<Offset>, WalError> {
        self.0.list()
    }

    fn create(&self, first: Offset) -> Result<Arc<dyn Active>, WalError> {
        Ok(Arc::new(Retried(self.0.create(first)?)))
    }

    fn open(&self, first: Offset, bounds: Bounds) -> Result<Sealed, WalError> {
        self.0.open(first, bounds)
    }

    fn delete(&self, first: Offset) -> Result<(), WalError> {
        self.0.delete(first)
    }

    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError> {
        self.0.quarantine(first, report)
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>, WalError> {
        self.0.quarantined()
    }

    fn quarantine_bytes(&self) -> u64 {
        self.0.quarantine_bytes()
    }

    fn evict_quarantined(&self) -> Result<bool, WalError> {
        self.0.evict_quarantined()
    }

    fn disk_bytes(&self, first: Offset) -> Result<u64, WalError> {
        self.0.disk_bytes(first)
    }

    fn free_bytes(&self) -> Result<u64, WalError> {
        self.0.free_bytes()
    }

    fn write_positions(&self, positions: Positions) {
        self.0.write_positions(positions);
    }

    fn sync_positions(&self) {
        self.0.sync_positions();
    }

    fn read_positions(&self) -> Result<Option<Positions>, WalError> {
        self.0.read_positions()
    }

    fn mark_unreadable(&self, first: Offset) {
        self.0.mark_unreadable(first);
    }

    fn is_marked_unreadable(&self, first: Offset) -> bool {
        self.0.is_marked_unreadable(first)
    }

    fn unmark_unreadable(&self, first: Offset) {
        self.0.unmark_unreadable(first);
    }
}

struct Retried(Arc<dyn Active>);

impl Generation for Retried {
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        self.0.block_at(offset)
    }

    fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}

impl Active for Retried {
    fn insert(&self, first: Offset, frame: &[u8]) -> Result<(), WalError> {
        self.0.insert(first, frame)
    }

    fn sync(&self) -> Result<(), WalError> {
        self.0.sync().or_else(|_| self.0.sync())
    }

    fn remove_below(&self, flushed: Offset) -> Result<(), WalError> {
        self.0.remove_below(flushed)
    }

    fn as_generation(self: Arc<Self>) -> Arc<dyn Generation> {
        self
    }
}
