//! The log's twin in memory, with switches for the faults a disk has. For tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::wal::contract::{Active, Generation, Known, Positions, Quarantined, Sealed, Storage};
use crate::wal::error::WalError;
use crate::wal::frame::{self, Block, Offset};

/// A place in memory. Clones share it, so that a test keeps a hold on what the log was given.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    generations: BTreeMap<Offset, Arc<MemoryGeneration>>,
    quarantined: Vec<Quarantined>,
    positions: Option<Positions>,
    fail_next_sync: bool,
    fail_next_create: bool,
}

struct MemoryGeneration {
    /// First offset → frame, and whether it was synced.
    blocks: Mutex<BTreeMap<Offset, (Vec<u8>, bool)>>,
    storage: MemoryStorage,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStorage {
    /// Makes the next sync fail, as fdatasync does after an I/O error.
    pub fn fail_next_sync(&self) {
        lock(&self.shared).fail_next_sync = true;
    }

    /// Makes the next generation fail to be made, when its name is there already.
    pub fn fail_next_create(&self) {
        lock(&self.shared).fail_next_create = true;
    }

    /// Cuts the power: what was not synced is gone, and the note of the positions too.
    pub fn cut_power(&self) {
        let mut shared = lock(&self.shared);
        shared.positions = None;
        for generation in shared.generations.values() {
            lock(&generation.blocks).retain(|_, (_, synced)| *synced);
        }
    }

    fn generation(&self, first: Offset) -> Result<Arc<MemoryGeneration>, WalError> {
        let missing = || WalError::Io {
            what: "open a WAL generation",
            source: io::Error::from(io::ErrorKind::NotFound),
        };
        lock(&self.shared).generations.get(&first).cloned().ok_or_else(missing)
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> Result<Vec<Offset>, WalError> {
        Ok(lock(&self.shared).generations.keys().copied().collect())
    }

    fn create(&self, first: Offset) -> Result<Arc<dyn Active>, WalError> {
        let blocks = Mutex::default();
        let generation = Arc::new(MemoryGeneration { blocks, storage: self.clone() });
        let mut shared = lock(&self.shared);
        shared.generations.insert(first, Arc::clone(&generation));
        if std::mem::take(&mut shared.fail_next_create) {
            let source = io::Error::other("injected");
            return Err(WalError::Io { what: "make a new WAL generation", source });
        }
        Ok(generation)
    }

    fn open(&self, first: Offset, known: Known) -> Result<Sealed, WalError> {
        let generation = self.generation(first)?;
        let mut flushed = known.flushed;
        let mut end = first.max(known.committed);
        for (frame, synced) in lock(&generation.blocks).values_mut() {
            *synced = true;
            if let Ok(header) = frame::check(frame) {
                flushed = flushed.max(header.flushed);
                end = end.max(header.end());
            }
        }
        let records = end - first.max(flushed);
        let block_bytes = generation.disk_bytes();
        Ok(Sealed {
            generation,
            flushed,
            end,
            records,
            block_bytes,
            lost: Vec::new(),
            unknown_version: None,
        })
    }

    fn delete(&self, first: Offset) -> Result<(), WalError> {
        lock(&self.shared).generations.remove(&first);
        Ok(())
    }

    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError> {
        lock(&self.shared).quarantined.push(report.clone());
        self.delete(first)
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        lock(&self.shared).quarantined.clone()
    }

    fn quarantine_bytes(&self) -> u64 {
        0
    }

    fn evict_quarantined(&self) -> Result<bool, WalError> {
        Ok(false)
    }

    fn disk_bytes(&self, first: Offset) -> u64 {
        self.generation(first).map_or(0, |generation| generation.disk_bytes())
    }

    fn free_bytes(&self) -> Result<u64, WalError> {
        Ok(u64::MAX)
    }

    fn note(&self, positions: Positions) {
        lock(&self.shared).positions = Some(positions);
    }

    fn settle_note(&self) {}

    fn noted(&self) -> Option<Positions> {
        lock(&self.shared).positions
    }
}

impl Generation for MemoryGeneration {
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        let blocks = lock(&self.blocks);
        let below = blocks.range(..=offset).next_back();
        let above = blocks.range(offset..).next();
        let decoded = below.into_iter().chain(above).map(|(_, (frame, _))| frame::decode(frame));
        decoded
            .into_iter()
            .find(|block| block.as_ref().map_or(true, |block| block.end() > offset))
            .transpose()
            .map_err(|error| WalError::Io {
                what: "read back from the WAL",
                source: io::Error::new(io::ErrorKind::InvalidData, error),
            })
    }

    fn disk_bytes(&self) -> u64 {
        lock(&self.blocks).values().map(|(frame, _)| frame.len() as u64).sum()
    }
}

impl Active for MemoryGeneration {
    fn insert(&self, first: Offset, frame: &[u8]) -> Result<(), WalError> {
        lock(&self.blocks).insert(first, (frame.to_vec(), false));
        Ok(())
    }

    fn sync(&self) -> Result<(), WalError> {
        if std::mem::take(&mut lock(&self.storage.shared).fail_next_sync) {
            let source = io::Error::other("injected");
            return Err(WalError::Io { what: "sync the WAL", source });
        }
        lock(&self.blocks).values_mut().for_each(|(_, synced)| *synced = true);
        Ok(())
    }

    fn remove_below(&self, flushed: Offset) -> Result<(), WalError> {
        lock(&self.blocks).retain(|_, (frame, _)| {
            !frame::check(frame).is_ok_and(|header| header.end() <= flushed)
        });
        Ok(())
    }

    fn as_generation(self: Arc<Self>) -> Arc<dyn Generation> {
        self
    }
}
