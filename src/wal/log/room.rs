//! Whether the log takes records.

use std::sync::atomic::Ordering;

use super::state::{Generation, Limits, Room, Shared, lock};

/// What a new generation and a commit group need at least.
const NEEDED_BYTES: u64 = 4 * 1024 * 1024;

impl Shared {
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

    /// Whether the log can take records, if need be at the cost of what is in quarantine. What is flushed
    /// gives way long before.
    pub(super) fn room_now(&self) -> Room {
        loop {
            let (room, is_tight) = self.measure_room();
            if is_tight && self.give_way() {
                continue;
            }
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
            tracing::warn!(%error, "a damaged WAL generation could not be deleted from quarantine to make room");
            false
        });
        self.measure_quarantine();
        evicted
    }

    /// Also whether there is hardly more room than a log that is full needs to come back.
    fn measure_room(&self) -> (Room, bool) {
        let set_aside = self.quarantine_bytes.load(Ordering::Relaxed);
        let used: u64 = lock(&self.state).generations.values().map(Generation::bytes).sum();
        let used = used + set_aside;
        let free = self.storage.free_bytes().unwrap_or(u64::MAX);
        let Limits { max_bytes, min_free_bytes, .. } = self.limits;
        // It comes back below 90 % only, or it would come and go with every batch.
        let to_come_back = (max_bytes / 10 * 9, (min_free_bytes / 10 * 11).max(NEEDED_BYTES));
        let is_tight = used >= to_come_back.0 || free < to_come_back.1.saturating_add(NEEDED_BYTES);
        let (max, min_free) = match &*self.room.borrow() {
            Room::Open => (max_bytes, min_free_bytes),
            Room::Full(_) => to_come_back,
        };
        let room = if used >= max {
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
        };
        (room, is_tight)
    }
}
