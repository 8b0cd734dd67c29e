//! When generations begin and end.

use super::state::{End, Generation, Room, Shared, lock};
use crate::wal::contract::Positions;
use crate::wal::error::WalError;
use crate::wal::offset::Offset;

/// A generation that grew beyond this while the database was down is left for a new one as soon
/// as hardly anything is kept in it.
const ROOMY_BYTES: u64 = 8 * 1024 * 1024;

/// "Hardly anything": about a megabyte of blocks.
const FEW_RECORDS: u64 = 30_000;

impl Shared {
    pub(super) fn flush_to(&self, flushed: Offset) {
        {
            let mut state = lock(&self.state);
            if flushed <= state.flushed {
                return;
            }
            state.flushed = flushed;
            state.retention.flushed(flushed, self.clock.monotonic());
            state.tail.trim(flushed);
            state.ages.trim(flushed);
        }
        self.write_positions(|positions| positions.flushed = flushed);
        self.maintain();
    }

    pub(super) fn maintain(&self) {
        self.trim();
        // A busy writer does this itself.
        if let Ok(mut end) = self.end.try_lock() {
            self.roll_if_due(&mut end);
            self.check_room(end.active.is_some());
        }
    }

    /// Deletes what was retained for its time, and what is more than may be retained.
    pub(super) fn trim(&self) {
        let committed = *self.committed.borrow();
        let trimmed = {
            let mut state = lock(&self.state);
            let excess = state.excess(self.limits.retained_bytes(), committed);
            state.retention.give_up(excess);
            state.retention.due()
        };
        self.drop_trimmed(trimmed);
    }

    /// Deletes of what is retained what is oldest, because its room is needed. Returns whether there was
    /// something.
    pub(super) fn give_way(&self) -> bool {
        let (oldest, trimmed) = {
            let mut state = lock(&self.state);
            let flushed = state.flushed;
            if state.retention.trimmed() >= flushed {
                return false;
            }
            let oldest = state.generations.first_key_value().map(|(first, _)| *first);
            let end = state.generations.values().next().and_then(|oldest| oldest.end);
            state.retention.give_up(end.map_or(flushed, |end| end.min(flushed)));
            (oldest, state.retention.trimmed())
        };
        self.drop_trimmed(trimmed);
        lock(&self.state).generations.first_key_value().map(|(first, _)| *first) != oldest
    }

    /// Below the oldest generation nothing waits, also where its name skips offsets that an unreadable one
    /// may have held. The positions say so, or else the next process would miss records there.
    pub(super) fn write_positions(&self, change: impl FnOnce(&mut Positions)) {
        let state = lock(&self.state);
        let mut positions = lock(&self.positions);
        change(&mut positions);
        let oldest = state.generations.first_key_value();
        let start = oldest.map_or(positions.committed, |(first, _)| *first);
        positions.flushed = positions.flushed.max(start);
        drop(state);
        self.storage.write_positions(*positions);
    }

    /// Deletes generations that end at or below `trimmed`, or sets them aside if damaged. One that
    /// cannot be deleted stays, and is tried again with the next.
    pub(super) fn drop_trimmed(&self, trimmed: Offset) {
        lock(&self.stretches).trim(trimmed);
        loop {
            let done = {
                let mut state = lock(&self.state);
                let oldest = state.generations.first_key_value();
                let done = oldest.and_then(|(first, oldest)| Some((*first, oldest.end?)));
                match done.filter(|(_, end)| *end <= trimmed) {
                    Some((first, _)) => state.remove(first).map(|done| (first, done)),
                    None => None,
                }
            };
            let Some((first, done)) = done else { return };
            self.write_positions(|positions| positions.flushed = positions.flushed.max(trimmed));
            self.storage.sync_positions();
            let dropped = match &done.damage {
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
                lock(&self.state).generations.insert(first, done);
                return;
            }
        }
    }

    pub(super) fn roll_if_due(&self, end: &mut End) {
        let due = match &end.active {
            // As soon as there is room again.
            None => self.room_now() == Room::Open,
            Some(active) => {
                let bytes = active.disk_bytes();
                let trimmed = lock(&self.state).retention.trimmed();
                let few_kept = end.next - trimmed.clamp(end.first, end.next) <= FEW_RECORDS;
                let due = bytes >= self.limits.generation() || (bytes > ROOMY_BYTES && few_kept);
                due && end.next > end.first
            }
        };
        if !due {
            return;
        }
        if let Err(error) = self.roll(end)
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
    pub(super) fn roll(&self, end: &mut End) -> Result<(), WalError> {
        if end.active.is_some() && end.next == end.first {
            return Ok(());
        }
        let active = self.storage.create(end.next).inspect_err(|error| {
            if error.is_disk_full() {
                self.close_full(end);
            } else {
                self.close(end, format!("no new generation could be started: {error}"));
            }
        })?;
        self.seal(end);
        lock(&self.state).generations.insert(end.next, Generation::active(&active));
        *end = End { active: Some(active), first: end.next, next: end.next };
        self.trim();
        Ok(())
    }

    /// Writes no more to the newest generation: from now on it is read as any other.
    fn seal(&self, end: &mut End) {
        let Some(active) = end.active.take() else { return };
        let mut state = lock(&self.state);
        if end.next == end.first {
            state.remove(end.first);
        } else if let Some(sealed) = state.generations.get_mut(&end.first) {
            sealed.disk_bytes = active.disk_bytes();
            sealed.end = Some(end.next);
            sealed.open = None;
        }
    }

    /// The filesystem is full: sled takes nothing more after that error, so its database is
    /// closed. What a failed commit left in it lies behind its end and does not count.
    pub(super) fn close_full(&self, end: &mut End) {
        self.close(end, "its filesystem has no space left".to_owned());
    }

    fn close(&self, end: &mut End, reason: String) {
        self.seal(end);
        self.room.send_replace(Room::Full(reason));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::base::metrics::Metrics;
    use crate::base::time::{Clock, SystemClock, Timestamp};
    use crate::telemetry::Reading;
    use crate::wal::engine::memory::MemoryStorage;
    use crate::wal::log::open;
    use crate::wal::{Limits, Room, WalError, Writer};

    fn clock() -> Arc<dyn Clock> {
        Arc::new(SystemClock::default())
    }

    fn append(writer: &mut Writer) {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let device_id = "device".to_owned();
        writer.append(at, Reading { device_id, timestamp: at, values: [1.0, 2.0, 3.0] });
    }

    #[test]
    fn a_generation_that_was_only_half_made_hides_nothing_that_comes_after_it() {
        let limits = Limits {
            max_bytes: u64::MAX,
            min_free_bytes: 0,
            generation_bytes: 1,
            retain: Duration::ZERO,
        };
        let metrics = Metrics::new().unwrap();
        let storage = MemoryStorage::default();
        let (mut writer, log) = open(Box::new(storage.clone()), clock(), limits, &metrics).unwrap();
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
        let (_writer, log) = open(Box::new(storage), clock(), limits, &metrics).unwrap();
        assert_eq!(log.stats().next_offset, 2);
        assert_eq!(log.read(0, 10).unwrap().len(), 2);
    }
}
