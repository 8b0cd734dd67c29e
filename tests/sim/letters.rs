//! A dead-letter store as the disk has it: bounded, durable when an append returns, and now and then
//! failing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No room for letters that must not be evicted, or on the disk.
    Full,
    /// The disk failed.
    Failed,
}

/// Letters that fit, of either stage.
const QUOTA: usize = 6;

pub(crate) struct Letters {
    /// Which reading → how many letters there are of it.
    database: BTreeMap<u64, u32>,
    intake: VecDeque<u64>,
    /// How many of stage intake were ever stored, by message.
    stored: BTreeMap<u64, u32>,
    /// Readings whose letters an operator has taken out.
    taken: BTreeSet<u64>,
    pub(crate) has_quota: bool,
    pub(crate) fails_next: bool,
    pub(crate) disk_is_full: bool,
    /// A mutant: the letters of the database go like all others.
    pub(crate) evicts_database: bool,
}

impl Default for Letters {
    fn default() -> Self {
        Self {
            database: BTreeMap::new(),
            intake: VecDeque::new(),
            stored: BTreeMap::new(),
            taken: BTreeSet::new(),
            has_quota: true,
            fails_next: false,
            disk_is_full: false,
            evicts_database: false,
        }
    }
}

impl Letters {
    /// Stores letters of a message that was turned away; the oldest of their stage make room.
    pub(crate) fn append_intake(&mut self, message: u64, count: u32) -> Result<(), Refusal> {
        self.admit()?;
        *self.stored.entry(message).or_default() += count;
        for _ in 0..count {
            self.intake.push_back(message);
        }
        while self.intake.len() > QUOTA {
            self.intake.pop_front();
            if self.evicts_database {
                self.database.pop_first();
            }
        }
        Ok(())
    }

    /// Stores letters of readings that were acknowledged, all or none of them.
    pub(crate) fn append_database(&mut self, readings: &[u64]) -> Result<(), Refusal> {
        self.admit()?;
        if self.has_quota && self.database.len() + readings.len() > QUOTA {
            return Err(Refusal::Full);
        }
        for reading in readings {
            *self.database.entry(*reading).or_default() += 1;
        }
        Ok(())
    }

    fn admit(&mut self) -> Result<(), Refusal> {
        if std::mem::take(&mut self.fails_next) {
            return Err(Refusal::Failed);
        }
        if self.disk_is_full {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Whether there is a letter of stage database of this reading, or was until an operator took it.
    pub(crate) fn holds(&self, reading: u64) -> bool {
        self.database.contains_key(&reading) || self.taken.contains(&reading)
    }

    /// How many letters of stage intake were ever stored of this message.
    pub(crate) fn stored_of(&self, message: u64) -> u32 {
        self.stored.get(&message).copied().unwrap_or(0)
    }

    /// Any reading that there is a letter of stage database of, in the place of `at` of all of them.
    pub(crate) fn any_database(&self, at: usize) -> Option<u64> {
        self.database.keys().nth(at % self.database.len().max(1)).copied()
    }

    /// A letter of this reading was replayed, which removes it, and no other that it has got since.
    pub(crate) fn remove(&mut self, reading: u64) {
        if let Some(count) = self.database.get_mut(&reading) {
            *count -= 1;
            if *count == 0 {
                self.database.remove(&reading);
            }
        }
    }

    /// An operator makes room, and has the letters of the database from now on.
    pub(crate) fn take_database(&mut self) {
        self.taken.extend(std::mem::take(&mut self.database).into_keys());
    }
}
