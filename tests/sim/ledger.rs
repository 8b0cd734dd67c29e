//! What was promised, and where it is: the oracle of the simulation.
//!
//! A reading is known by its number, which is also its time: the key of its row. The ledger follows each
//! through the log by what the log itself says (what was committed, and what can be read after it was
//! opened again), and looks into the table and the letters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use iot_ingestor::wal::{Offset, OffsetRange};

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
    /// Its readings have no time of their own.
    pub(crate) by_arrival: bool,
    /// Its good readings.
    pub(crate) readings: Vec<u64>,
    /// How many letters its bad ones make.
    pub(crate) letters: u32,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) messages: Vec<Message>,
    /// Readings that have the time of their arrival.
    pub(crate) arrivals: BTreeSet<u64>,
    /// By reading: whether a message that brought it was acknowledged.
    acknowledged: Vec<bool>,
    /// By reading: in how many records of the log it is.
    in_log: Vec<u32>,
    /// Committed and not given up: what is not flushed of it must be found whenever the log is opened again.
    log: BTreeMap<Offset, u64>,
    pub(crate) next: Offset,
    /// Where what one commit wrote begins.
    groups: BTreeSet<Offset>,
    /// Found there and never committed, since a sync failed: it may be gone after the next power cut.
    uncertain: BTreeMap<Offset, u64>,
    /// Which reading an offset was ever given to: to no other, whatever happens.
    given: BTreeMap<Offset, u64>,
    /// Offsets that lie where the disk was damaged: these may be lost, and are reported then.
    damaged: BTreeSet<Offset>,
    /// Records that were: a disk that reads again may give them back.
    lost: BTreeMap<Offset, u64>,
    /// The readings of records that were lost without a report, see [`Self::forget_end`].
    forgotten: Vec<u64>,
    /// All that were ever reported as lost.
    told: BTreeSet<Offset>,
    /// Records that no process has committed or found when it began, and that the disk reads all the same.
    appeared: u64,
    pub(crate) flushed: Offset,
    /// Up to where it was before a power cut that took what says so.
    once_flushed: Offset,
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
    pub(crate) fn committed(&mut self, first: Offset, readings: &[u64]) -> Result<(), Violation> {
        self.groups.insert(first);
        for (offset, reading) in (first..).zip(readings) {
            self.damaged.remove(&offset);
            self.log.insert(offset, *reading);
            self.in_log[*reading as usize] += 1;
        }
        self.next = first + readings.len() as u64;
        self.give(first..self.next, readings.iter().copied())
    }

    /// These offsets are seen to belong to these readings.
    fn give(
        &mut self,
        offsets: impl IntoIterator<Item = Offset>,
        readings: impl IntoIterator<Item = u64>,
    ) -> Result<(), Violation> {
        for (offset, reading) in offsets.into_iter().zip(readings) {
            let before = self.given.insert(offset, reading);
            if before.is_some_and(|before| before != reading) {
                return Err(Violation(format!(
                    "offset {offset} was given to reading {before:?}, and is now to {reading}"
                )));
            }
        }
        Ok(())
    }

    /// The disk was damaged where these records lie.
    pub(crate) fn damage(&mut self, range: OffsetRange) {
        self.damaged.extend(range.from..=range.to);
    }

    /// Of the records in `range` the log has read back these, and has reported what is lost; some are
    /// stored already.
    fn read_back(
        &mut self,
        range: Range<Offset>,
        found: &BTreeMap<Offset, u64>,
        stored: &BTreeSet<Offset>,
        reported: &[OffsetRange],
    ) -> Result<(), Violation> {
        let differs = |(offset, reading): &(&Offset, &u64)| found.get(offset) != Some(*reading);
        let missing: Vec<_> = [&self.log, &self.uncertain]
            .into_iter()
            .flat_map(|records| records.range(range.clone()).filter(differs))
            .map(|(offset, reading)| (*offset, *reading))
            .collect();
        for (offset, reading) in missing {
            if stored.contains(&offset) {
                continue;
            }
            let is_told = reported.iter().any(|one| (one.from..=one.to).contains(&offset));
            // A generation that says of its first part that it was flushed does not miss it.
            let may_be_missing =
                self.damaged.contains(&offset) && (is_told || offset < self.once_flushed);
            if found.contains_key(&offset) || !may_be_missing {
                return Err(Violation(format!(
                    "offset {offset}, reading {reading}, was committed; the log reads back {:?} and has {}reported it as lost",
                    found.get(&offset),
                    if is_told { "" } else { "not " },
                )));
            }
            if self.uncertain.remove(&offset).is_none() {
                self.log.remove(&offset);
                self.in_log[reading as usize] -= 1;
            }
            self.lost.insert(offset, reading);
            if is_told {
                self.told.insert(offset);
            }
        }
        for (offset, reading) in found {
            if self.lost.remove(offset).is_some() {
                self.log.insert(*offset, *reading);
                self.in_log[*reading as usize] += 1;
            }
        }
        Ok(())
    }

    /// What a batch was read back as, while a process runs: a failed sync may have left what the disk did
    /// not read when it began.
    pub(crate) fn read_batch(
        &mut self,
        range: Range<Offset>,
        found: &BTreeMap<Offset, u64>,
        stored: &BTreeSet<Offset>,
        reported: &[OffsetRange],
    ) -> Result<(), Violation> {
        self.read_back(range, found, stored, reported)?;
        for (offset, reading) in found {
            let is_known = self.log.contains_key(offset) || self.uncertain.contains_key(offset);
            if !is_known && !stored.contains(offset) && self.damaged.contains(offset) {
                self.uncertain.insert(*offset, *reading);
                self.appeared += 1;
            }
        }
        Ok(())
    }

    /// Records that have come into the books of a process behind its start, see [`Self::read_batch`].
    pub(crate) fn appeared(&self) -> u64 {
        self.appeared
    }

    /// The log was told that everything below `to` is stored elsewhere.
    pub(crate) fn flush(&mut self, to: Offset, world: &Stored<'_>) -> Result<(), Violation> {
        if to < self.flushed || to > self.next {
            let (flushed, next) = (self.flushed, self.next);
            return Err(Violation(format!("flushed to {to}, from {flushed}, of {next}")));
        }
        let mut lost = Vec::new();
        for (offset, reading) in self.log.range(self.flushed..to) {
            // Its letter may have been put back by then: the reading is in the log once more. Or it is not
            // known yet that the database has lost it.
            let waits = || self.log.range(to..).any(|(_, other)| other == reading);
            if world.holds(*reading) || world.database.has_lost(*reading) || waits() {
                continue;
            }
            // What was reported as lost when its batch was read stays so, also if the disk reads it by now.
            if !self.told.contains(offset) {
                return Err(Violation(format!(
                    "offset {offset}, reading {reading}, is flushed, and neither in the table nor a letter"
                )));
            }
            lost.push((*offset, *reading));
        }
        for (offset, reading) in lost {
            self.log.remove(&offset);
            self.in_log[reading as usize] -= 1;
            self.lost.insert(offset, reading);
        }
        self.flushed = to;
        self.once_flushed = self.once_flushed.max(to);
        Ok(())
    }

    /// What was flushed from `to` on is pending again, and this of it is there.
    pub(crate) fn rewound(&mut self, to: Offset, found: &BTreeMap<Offset, u64>) {
        let was_committed = |offset: &Offset| self.log.contains_key(offset);
        let never = found.iter().filter(|(offset, _)| !was_committed(offset));
        self.uncertain.extend(never.map(|(offset, reading)| (*offset, *reading)));
        (self.flushed, self.once_flushed) = (to, to);
    }

    /// What lies below `retained` is not in the log any more.
    pub(crate) fn give_up(&mut self, retained: Offset) {
        while let Some(entry) = self.log.first_entry().filter(|entry| *entry.key() < retained) {
            let reading = entry.remove();
            self.in_log[reading as usize] -= 1;
        }
    }

    /// The log was opened again, and this is what can be read in it, and what it reports as lost.
    pub(crate) fn reopened(
        &mut self,
        flushed: Offset,
        next: Offset,
        found: &BTreeMap<Offset, u64>,
        reported: &[OffsetRange],
        was_power_cut: bool,
    ) -> Result<(), Violation> {
        self.uncertain.clear();
        if was_power_cut {
            self.forget_end(next, found, reported);
        }
        if next < self.next {
            return Err(Violation(format!("the log ended at {}, and now at {next}", self.next)));
        }
        self.read_back(flushed..Offset::MAX, found, &BTreeSet::new(), reported)?;
        self.give(found.keys().copied(), found.values().copied())?;
        let was_committed = |offset: &Offset| self.log.contains_key(offset);
        self.uncertain = found.clone();
        self.uncertain.retain(|offset, _| !was_committed(offset));
        (self.flushed, self.next) = (flushed, next);
        Ok(())
    }

    /// Takes what is damaged at the end of the log, and is rightly not reported, out of the books. After a power
    /// cut that has taken the positions nobody can tell it from a commit that was cut off. A block says of the
    /// groups before its own that they were committed, so that is true of the last group of which anything is
    /// there, and of groups behind it. Where the log ends before its end its offsets are given again.
    fn forget_end(
        &mut self,
        next: Offset,
        found: &BTreeMap<Offset, u64>,
        reported: &[OffsetRange],
    ) {
        let last = found.last_key_value().map_or(0, |(offset, _)| *offset);
        let certain = self.groups.range(..=last).next_back().copied().unwrap_or_default();
        let is_told =
            |offset: &Offset| reported.iter().any(|one| (one.from..=one.to).contains(offset));
        let is_gone = |offset: &&Offset| {
            self.damaged.contains(offset) && !found.contains_key(offset) && !is_told(offset)
        };
        let end = self.log.range(certain..).map(|(offset, _)| offset);
        for offset in end.filter(is_gone).copied().collect::<Vec<_>>() {
            if let Some(reading) = self.log.remove(&offset) {
                self.in_log[reading as usize] -= 1;
                self.forgotten.push(reading);
            }
        }
        if next < self.next && self.log.range(next..).next().is_none() {
            self.forgotten.extend(self.lost.split_off(&next).into_values());
            self.damaged.split_off(&next);
            self.told.split_off(&next);
            self.given.split_off(&next);
            self.groups.split_off(&next);
            (self.next, self.once_flushed) = (next, self.once_flushed.min(next));
        }
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
            if self.is_nowhere(*reading, world) {
                return Err(Violation(format!(
                    "message {message} is acknowledged, and its reading {reading} is nowhere"
                )));
            }
        }
        Ok(())
    }

    /// Whether a record of it was lost to damage, and reported.
    fn is_lost(&self, reading: u64) -> bool {
        self.lost.values().chain(&self.forgotten).any(|lost| *lost == reading)
    }

    /// How many records were.
    pub(crate) fn lost_records(&self) -> u64 {
        (self.lost.len() + self.forgotten.len()) as u64
    }

    fn is_nowhere(&self, reading: u64, world: &Stored<'_>) -> bool {
        self.in_log[reading as usize] == 0 && !world.holds(reading) && !self.is_lost(reading)
    }

    /// Acknowledged = table ∪ letters ∪ log, but for what damage took and was reported.
    pub(crate) fn check(&self, world: &Stored<'_>) -> Result<(), Violation> {
        for (reading, _) in self.acknowledged.iter().enumerate().filter(|(_, was)| **was) {
            if self.is_nowhere(reading as u64, world) {
                return Err(Violation(format!(
                    "reading {reading} was acknowledged and is nowhere"
                )));
            }
        }
        if let Some((reading, times)) = world.database.arrived_twice {
            return Err(Violation(format!(
                "reading {reading} came once, and is in the table with the times {times:?}"
            )));
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
                || self.is_lost(reading)
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

    /// Offsets between what is flushed and the end of the log.
    pub(crate) fn pending(&self) -> u64 {
        self.next - self.flushed
    }

    /// Records that are in the log from its flushed offset on.
    pub(crate) fn pending_records(&self) -> u64 {
        let pending =
            |records: &BTreeMap<Offset, u64>| records.range(self.flushed..).count() as u64;
        pending(&self.log) + pending(&self.uncertain)
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
