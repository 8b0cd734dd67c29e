//! What was promised, and where it is: the oracle of the simulation.
//!
//! A reading is known by its number, which is also its time: the key of its row. The ledger follows each
//! through the log by what the log itself says (what was committed, and what can be read after it was
//! opened again), and looks into the table and the letters.

use std::collections::BTreeMap;
use std::fmt;

use iot_ingestor::wal::Offset;

use crate::database::Database;
use crate::kept::MessageId;
use crate::letters::Letters;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A published message.
pub(crate) struct Message {
    pub(crate) payload: bytes::Bytes,
    /// Its good readings.
    pub(crate) readings: Vec<u64>,
    /// How many letters its bad ones make.
    pub(crate) letters: u32,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) messages: Vec<Message>,
    /// By reading: whether a message that brought it was acknowledged.
    acknowledged: Vec<bool>,
    /// By reading: in how many records of the log it is.
    in_log: Vec<u32>,
    /// Committed and not trimmed: what must be found there whenever it is opened again.
    log: BTreeMap<Offset, u64>,
    pub(crate) next: Offset,
    /// One past the last record that was committed, not only found: offsets below are not used again.
    promised: Offset,
    pub(crate) trimmed: Offset,
}

impl Ledger {
    /// A reading that was never published before.
    pub(crate) fn new_reading(&mut self) -> u64 {
        self.acknowledged.push(false);
        self.in_log.push(0);
        self.acknowledged.len() as u64 - 1
    }

    pub(crate) fn readings(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// Records that were committed; `first` is what the log gave the first of them.
    pub(crate) fn committed(&mut self, first: Offset, readings: &[u64]) {
        for (offset, reading) in (first..).zip(readings) {
            self.log.insert(offset, *reading);
            self.in_log[*reading as usize] += 1;
        }
        self.next = first + readings.len() as u64;
        self.promised = self.next;
    }

    /// The log was told that everything below `to` is stored elsewhere.
    pub(crate) fn trim(&mut self, to: Offset, world: &Stored<'_>) -> Result<(), Violation> {
        if to < self.trimmed || to > self.next {
            let (trimmed, next) = (self.trimmed, self.next);
            return Err(Violation(format!("trimmed to {to}, from {trimmed}, of {next}")));
        }
        while let Some(entry) = self.log.first_entry().filter(|entry| *entry.key() < to) {
            let (offset, reading) = entry.remove_entry();
            self.in_log[reading as usize] -= 1;
            if !world.holds(reading) {
                return Err(Violation(format!(
                    "offset {offset}, reading {reading}, is trimmed, and neither in the table nor a letter"
                )));
            }
        }
        self.trimmed = to;
        Ok(())
    }

    /// The log was opened again, and this is what can be read in it.
    pub(crate) fn reopened(
        &mut self,
        flushed: Offset,
        next: Offset,
        found: &BTreeMap<Offset, u64>,
    ) -> Result<(), Violation> {
        for (offset, reading) in &self.log {
            match found.get(offset) {
                Some(there) if there == reading => {}
                there => {
                    return Err(Violation(format!(
                        "offset {offset}, reading {reading}, was committed; after the log was opened again there is {there:?}"
                    )));
                }
            }
        }
        if next < self.promised {
            return Err(Violation(format!(
                "the log ended at {}, and now at {next}",
                self.promised
            )));
        }
        // What else is found there was never acknowledged, so it may be gone after the next power cut: a
        // sync that failed leaves what can be read and is not on the disk.
        (self.trimmed, self.next) = (flushed, next);
        Ok(())
    }

    /// The broker was told that a message is safe.
    pub(crate) fn acknowledge(
        &mut self,
        message: MessageId,
        letters: &Letters,
        world: &Stored<'_>,
    ) -> Result<(), Violation> {
        let of = &self.messages[message];
        if letters.stored_of(message as u64) < of.letters {
            return Err(Violation(format!(
                "message {message} is acknowledged, and its bad readings are in no letter"
            )));
        }
        for reading in &of.readings {
            self.acknowledged[*reading as usize] = true;
            if self.in_log[*reading as usize] == 0 && !world.holds(*reading) {
                return Err(Violation(format!(
                    "message {message} is acknowledged, and its reading {reading} is nowhere"
                )));
            }
        }
        Ok(())
    }

    /// Acknowledged = table ∪ letters ∪ log.
    pub(crate) fn check(&self, world: &Stored<'_>) -> Result<(), Violation> {
        for (reading, _) in self.acknowledged.iter().enumerate().filter(|(_, was)| **was) {
            if self.in_log[reading] == 0 && !world.holds(reading as u64) {
                return Err(Violation(format!(
                    "reading {reading} was acknowledged and is nowhere"
                )));
            }
        }
        if let Some(offset) = world.database.doubled {
            return Err(Violation(format!("offset {offset} was put into the table twice")));
        }
        match world.database.doubled_readings().next() {
            Some(reading) if world.database.has_key => {
                Err(Violation(format!("reading {reading} is in the table more than once")))
            }
            _ => Ok(()),
        }
    }

    /// In the end: what was acknowledged is in the table once, or in a letter if the database refuses it.
    pub(crate) fn check_end(&self, world: &Stored<'_>) -> Result<(), Violation> {
        self.check(world)?;
        for (reading, _) in self.acknowledged.iter().enumerate().filter(|(_, was)| **was) {
            let reading = reading as u64;
            let is_right = world.database.copies(reading) == 1
                || (world.letters.holds(reading) && world.database.has_refused(reading));
            if !is_right {
                return Err(Violation(format!(
                    "in the end reading {reading} is in the table {} times, and no letter of a refusal",
                    world.database.copies(reading)
                )));
            }
        }
        Ok(())
    }

    /// Records that wait in the log.
    pub(crate) fn pending(&self) -> u64 {
        self.next - self.trimmed
    }
}

/// What is stored beyond the log.
pub(crate) struct Stored<'w> {
    pub(crate) database: &'w Database,
    pub(crate) letters: &'w Letters,
}

impl Stored<'_> {
    fn holds(&self, reading: u64) -> bool {
        self.database.holds(reading) || self.letters.holds(reading)
    }
}
