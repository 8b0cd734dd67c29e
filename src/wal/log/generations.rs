//! When generations begin and end, and when the log is full.

use std::sync::atomic::Ordering;

use super::{Limits, Room, Shared, Slot, Tip, lock};
use crate::wal::WalError;
use crate::wal::contract::Positions;
use crate::wal::frame::Offset;

/// A generation that grew beyond this while the database was down is left for a new one as soon
/// as hardly anything is pending in it.
const ROOMY_BYTES: u64 = 8 * 1024 * 1024;

/// "Hardly anything": about a megabyte of blocks.
const FEW_RECORDS: u64 = 30_000;

/// What a new generation and a commit group need at least.
const NEEDED_BYTES: u64 = 4 * 1024 * 1024;

impl Shared {
    pub(super) fn trim(&self, flushed: Offset) {
        {
            let mut state = lock(&self.state);
            if flushed <= state.flushed {
                return;
            }
            state.flushed = flushed;
            state.tail.trim(flushed);
        }
        self.note(|positions| positions.flushed = flushed);
        self.drop_flushed(flushed);
        self.maintain();
    }

    pub(super) fn maintain(&self) {
        // A busy writer does this itself.
        if let Ok(mut tip) = self.tip.try_lock() {
            self.roll_if_due(&mut tip);
            self.check_room(tip.active.is_some());
        }
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Positions)) {
        let mut positions = lock(&self.positions);
        change(&mut positions);
        self.storage.note(*positions);
    }

    /// Deletes generations that end at or below `flushed`, or sets them aside if damaged. One that
    /// cannot be deleted stays, and is tried again with the next.
    pub(super) fn drop_flushed(&self, flushed: Offset) {
        loop {
            let done = {
                let mut state = lock(&self.state);
                let oldest = state.generations.first_key_value();
                let done = oldest.and_then(|(first, slot)| Some((*first, slot.end?)));
                match done.filter(|(_, end)| *end <= flushed) {
                    Some((first, _)) => state.generations.remove(&first).map(|slot| (first, slot)),
                    None => None,
                }
            };
            let Some((first, slot)) = done else { return };
            self.note(|positions| positions.flushed = positions.flushed.max(flushed));
            self.storage.settle_note();
            let dropped = match &slot.damage {
                None => self.storage.delete(first),
                Some(report) => self.storage.quarantine(first, report).inspect(|()| {
                    self.measure_quarantine();
                    tracing::warn!(
                        generation = report.id,
                        "damaged WAL generation drained and set aside in quarantine: inspect it with `ingestor wal`, delete it when it is of no more use"
                    );
                }),
            };
            if let Err(error) = dropped {
                tracing::warn!(%error, "a flushed WAL generation could not be removed: it stays for now");
                lock(&self.state).generations.insert(first, slot);
                return;
            }
        }
    }

    pub(super) fn roll_if_due(&self, tip: &mut Tip) {
        let due = match &tip.active {
            // As soon as there is room again.
            None => self.room_now() == Room::Open,
            Some(active) => {
                let bytes = active.disk_bytes();
                let flushed = lock(&self.state).flushed;
                let few_pending = tip.next - flushed.clamp(tip.first, tip.next) <= FEW_RECORDS;
                let due = bytes >= self.limits.generation() || (bytes > ROOMY_BYTES && few_pending);
                due && tip.next > tip.first
            }
        };
        if !due {
            return;
        }
        if let Err(error) = self.roll(tip)
            && !error.is_disk_full()
        {
            tracing::error!(
                %error,
                "no new WAL generation could be started: taking nothing until one can, trying again"
            );
        }
    }

    /// Starts a new generation at the end of the log. If that fails the log takes nothing until it
    /// succeeds: the directory may be there, and what went into the old one from here on would be
    /// looked for in the new one after a restart.
    pub(super) fn roll(&self, tip: &mut Tip) -> Result<(), WalError> {
        if tip.active.is_some() && tip.next == tip.first {
            return Ok(());
        }
        let active = self.storage.create(tip.next).inspect_err(|error| {
            if error.is_disk_full() {
                self.close_full(tip);
            } else {
                self.close(tip, format!("no new generation could be started: {error}"));
            }
        })?;
        self.seal(tip);
        let flushed = {
            let mut state = lock(&self.state);
            state.generations.insert(tip.next, Slot::active(&active));
            state.flushed
        };
        *tip = Tip { active: Some(active), first: tip.next, next: tip.next };
        self.drop_flushed(flushed);
        Ok(())
    }

    /// Writes no more to the newest generation: from now on it is read as any other.
    fn seal(&self, tip: &mut Tip) {
        let Some(active) = tip.active.take() else { return };
        let mut state = lock(&self.state);
        if tip.next == tip.first {
            state.generations.remove(&tip.first);
        } else if let Some(slot) = state.generations.get_mut(&tip.first) {
            slot.disk_bytes = active.disk_bytes();
            slot.end = Some(tip.next);
            slot.open = None;
        }
    }

    /// The filesystem is full: sled takes nothing more after that error, so its database is
    /// closed. What a failed commit left in it lies behind its end and does not count.
    pub(super) fn close_full(&self, tip: &mut Tip) {
        self.close(tip, "its filesystem has no space left".to_owned());
    }

    fn close(&self, tip: &mut Tip, reason: String) {
        self.seal(tip);
        self.room.send_replace(Room::Full(reason));
    }

    /// Says whether the log takes records, which it cannot without a generation to write to.
    pub(super) fn check_room(&self, has_active: bool) {
        let now = self.room_now();
        if now == Room::Open && !has_active {
            return;
        }
        self.room.send_if_modified(|room| {
            let changed = matches!(room, Room::Open) != matches!(now, Room::Open);
            if changed {
                *room = now;
            }
            changed
        });
    }

    pub(super) fn measure_quarantine(&self) {
        self.quarantine_bytes.store(self.storage.quarantine_bytes(), Ordering::Relaxed);
    }

    /// Whether the log can take records, if need be at the cost of what is in quarantine.
    fn room_now(&self) -> Room {
        loop {
            let room = self.measure_room();
            if room == Room::Open || !self.evict_quarantined() {
                return room;
            }
        }
    }

    fn evict_quarantined(&self) -> bool {
        if self.quarantine_bytes.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let evicted = self.storage.evict_quarantined().unwrap_or_else(|error| {
            tracing::warn!(%error, "no room could be made in quarantine");
            false
        });
        self.measure_quarantine();
        evicted
    }

    fn measure_room(&self) -> Room {
        let set_aside = self.quarantine_bytes.load(Ordering::Relaxed);
        let used: u64 = lock(&self.state).generations.values().map(Slot::bytes).sum();
        let used = used + set_aside;
        let free = self.storage.free_bytes().unwrap_or(u64::MAX);
        let Limits { max_bytes, min_free_bytes, .. } = self.limits;
        // It comes back below 90 % only, or it would come and go with every batch.
        let (max, min_free) = match &*self.room.borrow() {
            Room::Open => (max_bytes, min_free_bytes),
            Room::Full(_) => (max_bytes / 10 * 9, (min_free_bytes / 10 * 11).max(NEEDED_BYTES)),
        };
        if used >= max {
            let of_these = if set_aside > 0 {
                format!(", {set_aside} of them in quarantine")
            } else {
                String::new()
            };
            Room::Full(format!("it takes {used} bytes of at most {max_bytes}{of_these}"))
        } else if free < min_free {
            Room::Full(format!("its filesystem has {free} bytes free, {min_free_bytes} must be"))
        } else {
            Room::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::base::metrics::Metrics;
    use crate::base::time::Timestamp;
    use crate::telemetry::Reading;
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::open;
    use crate::wal::{Limits, Room, WalError, Writer};

    fn append(writer: &mut Writer) {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let device_id = "device".to_owned();
        writer.append(at, Reading { device_id, timestamp: at, values: [1.0, 2.0, 3.0] });
    }

    #[test]
    fn a_generation_that_was_only_half_made_hides_nothing_that_comes_after_it() {
        let limits = Limits { max_bytes: u64::MAX, min_free_bytes: 0, generation_bytes: 1 };
        let metrics = Metrics::new().unwrap();
        let storage = MemoryStorage::default();
        let (mut writer, log) = open(Box::new(storage.clone()), limits, &metrics).unwrap();
        append(&mut writer);
        writer.commit().unwrap();
        storage.fail_next_create();
        writer.maintain().unwrap();

        // The half of it is there, and would end the old one for whoever opens the log.
        assert!(matches!(*log.room().borrow(), Room::Full(_)));
        append(&mut writer);
        assert!(matches!(writer.commit(), Err(WalError::DiskFull)));

        // It comes back by itself.
        writer.maintain().unwrap();
        assert_eq!(*log.room().borrow(), Room::Open);
        append(&mut writer);
        writer.commit().unwrap();
        assert_eq!(log.read(0, 10).unwrap().len(), 2);
        drop((writer, log));
        let (_writer, log) = open(Box::new(storage), limits, &metrics).unwrap();
        assert_eq!(log.stats().next_offset, 2);
        assert_eq!(log.read(0, 10).unwrap().len(), 2);
    }
}
