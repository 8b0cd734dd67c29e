//! The log's twin in memory, with switches for the faults a disk has. For tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::WalError;
use super::block::{self, Block, Offset};
use super::sled::generation_id;
use super::storage::{Generation, Quarantined, Salvage, Storage};

/// A place in memory. Clones share it, so that a test keeps a hold on what the log was given.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    generations: BTreeMap<Offset, Arc<Mutex<Contents>>>,
    quarantined: Vec<Quarantined>,
    committed: Option<Offset>,
    fail_next_sync: bool,
}

#[derive(Default)]
struct Contents {
    /// First offset → frame, and whether it was synced.
    blocks: BTreeMap<Offset, (Vec<u8>, bool)>,
    trimmed: Offset,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStorage {
    /// Makes the next sync fail, as fdatasync does after an I/O error.
    pub fn fail_next_sync(&self) {
        lock(&self.shared).fail_next_sync = true;
    }

    /// Cuts the power: what was not synced is gone.
    pub fn cut_power(&self) {
        for contents in lock(&self.shared).generations.values() {
            lock(contents).blocks.retain(|_, (_, synced)| *synced);
        }
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> Result<Vec<Offset>, WalError> {
        Ok(lock(&self.shared).generations.keys().copied().collect())
    }

    fn create(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError> {
        let contents = Arc::new(Mutex::new(Contents { trimmed: first, ..Contents::default() }));
        lock(&self.shared).generations.insert(first, Arc::clone(&contents));
        Ok(Arc::new(MemoryGeneration { contents, storage: self.clone() }))
    }

    fn open(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError> {
        let contents = lock(&self.shared).generations.get(&first).cloned();
        let missing = || WalError::Damaged { what: "it is missing".to_owned() };
        let contents = contents.ok_or_else(missing)?;
        Ok(Arc::new(MemoryGeneration { contents, storage: self.clone() }))
    }

    fn salvage(&self, first: Offset, _: Offset, end: Offset) -> Result<Salvage, WalError> {
        let generation = self.open(first)?;
        Ok(Salvage { generation, end, records: 0, lost: Vec::new() })
    }

    fn delete(&self, first: Offset) -> Result<(), WalError> {
        lock(&self.shared).generations.remove(&first);
        Ok(())
    }

    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError> {
        assert_eq!(report.id, generation_id(first));
        let mut shared = lock(&self.shared);
        shared.generations.remove(&first);
        shared.quarantined.push(report.clone());
        Ok(())
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        lock(&self.shared).quarantined.clone()
    }

    fn disk_bytes(&self, first: Offset) -> u64 {
        self.open(first).map_or(0, |generation| generation.disk_bytes())
    }

    fn free_bytes(&self) -> Result<u64, WalError> {
        Ok(u64::MAX)
    }

    fn note_committed(&self, next: Offset) {
        lock(&self.shared).committed = Some(next);
    }

    fn last_committed(&self) -> Option<Offset> {
        lock(&self.shared).committed
    }
}

struct MemoryGeneration {
    contents: Arc<Mutex<Contents>>,
    storage: MemoryStorage,
}

impl Generation for MemoryGeneration {
    fn insert(&self, first: Offset, frame: &[u8]) -> Result<(), WalError> {
        lock(&self.contents).blocks.insert(first, (frame.to_vec(), false));
        Ok(())
    }

    fn sync(&self) -> Result<(), WalError> {
        if std::mem::take(&mut lock(&self.storage.shared).fail_next_sync) {
            let source = io::Error::other("injected");
            return Err(WalError::Io { what: "sync the WAL", source });
        }
        lock(&self.contents).blocks.values_mut().for_each(|(_, synced)| *synced = true);
        Ok(())
    }

    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        let contents = lock(&self.contents);
        let below = contents.blocks.range(..=offset).next_back();
        let above = contents.blocks.range(offset..).next();
        for (_, (frame, _)) in below.into_iter().chain(above) {
            let block = decode(frame)?;
            if block.end() > offset {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    fn end(&self) -> Result<Offset, WalError> {
        let contents = lock(&self.contents);
        contents.blocks.values().next_back().map_or(Ok(0), |(frame, _)| Ok(decode(frame)?.end()))
    }

    fn trim(&self, flushed: Offset) -> Result<(), WalError> {
        let mut contents = lock(&self.contents);
        contents.trimmed = flushed;
        contents
            .blocks
            .retain(|_, (frame, _)| block::check(frame).is_ok_and(|header| header.end() > flushed));
        Ok(())
    }

    fn trimmed(&self) -> Offset {
        lock(&self.contents).trimmed
    }

    fn disk_bytes(&self) -> u64 {
        lock(&self.contents).blocks.values().map(|(frame, _)| frame.len() as u64).sum()
    }
}

fn decode(frame: &[u8]) -> Result<Block, WalError> {
    block::decode(frame).map_err(|error| WalError::Damaged { what: error.to_string() })
}
