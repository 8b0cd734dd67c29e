//! The place in memory, and the switches for what goes wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Fate;
use super::faults::Faults;
use super::generation::MemoryGeneration;
use crate::wal::contract::{
    Active, Bounds, Positions, Quarantined, Sealed, Storage, generation_id,
};
use crate::wal::error::{ON_DIRECTORY, ON_POSITIONS, ON_REPORT, WalError};
#[cfg(test)]
use crate::wal::frame::HEADER_BYTES;
use crate::wal::offset::{Offset, OffsetRange};

/// A place in memory. Clones share it, so that a test keeps a hold on what the log was given.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Disk {
    generations: BTreeMap<Offset, Arc<MemoryGeneration>>,
    /// Of these the making failed, and a power cut may take them.
    half_made: BTreeSet<Offset>,
    marked_unreadable: BTreeSet<Offset>,
    quarantine: Vec<SetAside>,
    positions: Option<Positions>,
    /// What was last made durable.
    synced_positions: Option<Positions>,
}

struct SetAside {
    report: Quarantined,
    bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStorage {
    /// Makes the next sync fail, as fdatasync does after an I/O error. What it was to cover is durable
    /// no more, whatever later syncs say.
    pub fn fail_next_sync(&self) {
        lock(&self.faults).fail_next_sync = true;
    }

    /// Makes the next generation fail to be made, when its name is there already.
    #[cfg(test)]
    pub(in crate::wal) fn fail_next_create(&self) {
        lock(&self.faults).fail_next_create = true;
    }

    /// Bytes of blocks that the disk holds; `None` for as many as come.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.faults).capacity = bytes;
    }

    /// After so many more calls that change the disk the power goes, and all that follow fail. Then drop
    /// the log, call [`Self::cut_power`], and open it again.
    pub fn power_off_after(&self, calls: u32) {
        lock(&self.faults).power_left = Some(calls);
    }

    /// Cuts the power: each write that no completed sync covers is kept, dropped or torn, as `random`
    /// decides. The log that was open on it must not be used any more.
    pub fn cut_power(&self, random: &mut fastrand::Rng) {
        self.cut_power_with(&mut || match random.u8(..3) {
            0 => Fate::Kept,
            1 => Fate::Dropped,
            _ => Fate::Torn(random.f64()),
        });
    }

    /// Cuts the power so that everything is gone that no completed sync covers.
    #[cfg(test)]
    pub(in crate::wal) fn cut_power_dropping_all(&self) {
        self.cut_power_with(&mut || Fate::Dropped);
    }

    fn cut_power_with(&self, fate: &mut dyn FnMut() -> Fate) {
        let mut disk = lock(&self.disk);
        for generation in disk.generations.values() {
            generation.contents().cut_power(fate);
        }
        for first in std::mem::take(&mut disk.half_made) {
            if fate() != Fate::Kept {
                disk.generations.remove(&first);
            }
        }
        if disk.positions != disk.synced_positions {
            match fate() {
                Fate::Kept => {}
                Fate::Dropped => disk.positions = disk.synced_positions,
                Fate::Torn(_) => disk.positions = None,
            }
            disk.synced_positions = disk.positions;
        }
        let used = disk.generations.values().map(|generation| generation.contents().bytes()).sum();
        let mut faults = lock(&self.faults);
        *faults = Faults { capacity: faults.capacity, used, ..Faults::default() };
    }

    /// Flips a bit of a block that `random` chooses. Returns the offsets in it, or `None` if there is no
    /// block that was intact.
    pub fn flip_a_bit(&self, random: &mut fastrand::Rng) -> Option<OffsetRange> {
        let (generation, first) = self.any_block(random)?;
        let mut contents = generation.contents();
        let offsets = contents.offsets(first)?;
        contents.flip_bit(first, random.usize(..));
        Some(offsets)
    }

    /// Makes the next `times` reads of a block fail that `random` chooses, `u32::MAX` for all. Returns
    /// the offsets in it, or `None` if there is no intact block.
    pub fn fail_reads(&self, random: &mut fastrand::Rng, times: u32) -> Option<OffsetRange> {
        let (generation, first) = self.any_block(random)?;
        let mut contents = generation.contents();
        let offsets = contents.offsets(first)?;
        contents.fail_reads(first, times);
        Some(offsets)
    }

    /// Flips a bit of each block of the generation `first`.
    #[cfg(test)]
    pub(in crate::wal) fn spoil(&self, first: Offset) {
        let disk = lock(&self.disk);
        let mut contents = disk.generations[&first].contents();
        for block in contents.firsts() {
            contents.flip_bit(block, HEADER_BYTES * 8);
        }
    }

    /// Makes all reads of the generation `first` fail.
    #[cfg(test)]
    pub(in crate::wal) fn fail_reads_in(&self, first: Offset) {
        let disk = lock(&self.disk);
        let mut contents = disk.generations[&first].contents();
        for block in contents.firsts() {
            contents.fail_reads(block, u32::MAX);
        }
    }

    /// Whether from now on the disk reads blocks and nothing else.
    #[cfg(test)]
    pub(in crate::wal) fn read_only_blocks(&self, is_so: bool) {
        lock(&self.faults).reads_only_blocks = is_so;
    }

    /// Makes all reads work again.
    #[cfg(test)]
    pub(in crate::wal) fn mend_reads(&self) {
        for generation in lock(&self.disk).generations.values() {
            generation.contents().mend_reads();
        }
    }

    fn any_block(&self, random: &mut fastrand::Rng) -> Option<(Arc<MemoryGeneration>, Offset)> {
        let disk = lock(&self.disk);
        let blocks: Vec<_> = disk
            .generations
            .values()
            .flat_map(|generation| {
                let firsts = generation.contents().firsts();
                firsts.into_iter().map(move |first| (generation, first))
            })
            .collect();
        random.choice(blocks).map(|(generation, first)| (Arc::clone(generation), first))
    }

    /// Anything but a block is read.
    fn read(&self, name: &str, advice: &'static str) -> Result<(), WalError> {
        lock(&self.faults).read().map_err(WalError::unread(name, advice))
    }

    fn call(&self, what: &'static str) -> Result<(), WalError> {
        lock(&self.faults).call().map_err(|source| WalError::Io { what, source })
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> Result<Vec<Offset>, WalError> {
        Ok(lock(&self.disk).generations.keys().copied().collect())
    }

    fn create(&self, first: Offset) -> Result<Arc<dyn Active>, WalError> {
        let what = "make a new WAL generation";
        let io = |source| WalError::Io { what, source };
        let generation = Arc::new(MemoryGeneration::new(Arc::clone(&self.faults)));
        let mut faults = lock(&self.faults);
        // It takes at least a byte of room, as a directory does.
        faults.write(1).map_err(io)?;
        faults.free(1);
        let fails = std::mem::take(&mut faults.fail_next_create);
        drop(faults);
        let mut disk = lock(&self.disk);
        if let Some(replaced) = disk.generations.insert(first, Arc::clone(&generation)) {
            lock(&self.faults).free(replaced.contents().bytes());
        }
        disk.marked_unreadable.remove(&first);
        if fails {
            disk.half_made.insert(first);
            return Err(io(io::Error::other("injected: it was not made")));
        }
        disk.half_made.remove(&first);
        Ok(generation)
    }

    fn open(&self, first: Offset, bounds: Bounds) -> Result<Sealed, WalError> {
        let generation = lock(&self.disk).generations.get(&first).cloned();
        let generation =
            generation.unwrap_or_else(|| Arc::new(MemoryGeneration::new(Arc::clone(&self.faults))));
        if bounds.end.is_none() {
            // What the last process wrote and did not sync counts as committed from now on.
            self.call("sync the newest WAL generation")?;
            generation.contents().sync();
        }
        MemoryGeneration::open(&generation, first, bounds)
    }

    fn delete(&self, first: Offset) -> Result<(), WalError> {
        self.call("delete a WAL generation")?;
        let mut disk = lock(&self.disk);
        if let Some(deleted) = disk.generations.remove(&first) {
            lock(&self.faults).free(deleted.contents().bytes());
        }
        disk.half_made.remove(&first);
        disk.marked_unreadable.remove(&first);
        Ok(())
    }

    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError> {
        self.call("set a WAL generation aside")?;
        let mut disk = lock(&self.disk);
        let moved = disk.generations.remove(&first);
        let bytes = moved.map_or(0, |generation| generation.contents().bytes());
        disk.quarantine.push(SetAside { report: report.clone(), bytes });
        Ok(())
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>, WalError> {
        self.read("quarantine", ON_REPORT)?;
        let disk = lock(&self.disk);
        Ok(disk.quarantine.iter().map(|set_aside| set_aside.report.clone()).collect())
    }

    fn quarantine_bytes(&self) -> u64 {
        lock(&self.disk).quarantine.iter().map(|set_aside| set_aside.bytes).sum()
    }

    fn evict_quarantined(&self) -> Result<bool, WalError> {
        let mut disk = lock(&self.disk);
        let mut kept = disk.quarantine.iter_mut();
        let oldest = kept
            .find(|set_aside| set_aside.bytes > 0 && set_aside.report.unknown_version.is_none());
        let Some(oldest) = oldest else { return Ok(false) };
        lock(&self.faults).free(std::mem::take(&mut oldest.bytes));
        Ok(true)
    }

    fn disk_bytes(&self, first: Offset) -> Result<u64, WalError> {
        self.read(&generation_id(first), ON_DIRECTORY)?;
        let disk = lock(&self.disk);
        Ok(disk.generations.get(&first).map_or(0, |generation| generation.contents().bytes()))
    }

    fn free_bytes(&self) -> Result<u64, WalError> {
        let faults = lock(&self.faults);
        Ok(faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(faults.used)))
    }

    fn write_positions(&self, positions: Positions) {
        if self.call("write the positions").is_ok() {
            lock(&self.disk).positions = Some(positions);
        }
    }

    fn sync_positions(&self) {
        if self.call("sync the positions").is_ok() {
            let mut disk = lock(&self.disk);
            disk.synced_positions = disk.positions;
        }
    }

    fn read_positions(&self) -> Result<Option<Positions>, WalError> {
        self.read("positions", ON_POSITIONS)?;
        Ok(lock(&self.disk).positions)
    }

    fn mark_unreadable(&self, first: Offset) {
        if self.call("mark a WAL generation").is_ok() {
            tracing::debug!(generation = generation_id(first), "marked as unreadable");
            lock(&self.disk).marked_unreadable.insert(first);
        }
    }

    fn is_marked_unreadable(&self, first: Offset) -> bool {
        lock(&self.disk).marked_unreadable.contains(&first)
    }

    fn unmark_unreadable(&self, first: Offset) {
        if self.call("unmark a WAL generation").is_ok() {
            lock(&self.disk).marked_unreadable.remove(&first);
        }
    }
}
