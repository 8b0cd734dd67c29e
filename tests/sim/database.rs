//! A PostgreSQL that does what one may do to those who write to it: it refuses a row or all of them with
//! any SQLSTATE, swallows rows without a word, answers late or never, works on what its client has given
//! up, loses the table's unique key or a partition, and goes back to an earlier time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use iot_ingestor::base::time::Timestamp;
use iot_ingestor::wal::Offset;

/// What PostgreSQL may call a row that it does not take, or a table, or itself. What it is called says
/// nothing about whose fault it is.
pub(crate) const SQLSTATES: &[&str] = &[
    "22001", "22003", "22012", "22P02", "23502", "23503", "23514", "P0001", "42501", "0A000",
    "XX000",
];

/// What it may say when it could have taken the rows a moment earlier or later.
pub(crate) const PASSING: &[&str] =
    &["40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "25006"];

/// A row on its way: its offset in the log, which PostgreSQL does not know, and its reading.
pub(crate) type Row = (Offset, u64);

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All of its rows are in the table, as far as PostgreSQL knows.
    Stored { inserted: u64, duplicates: u64 },
    /// None is.
    Refused(&'static str),
    /// None is, and no row can help that.
    RefusedByTable(&'static str),
    /// It is not there.
    Unreachable,
}

/// Rows that vanish on their way into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swallows {
    Nothing,
    EveryThird,
    Everything,
}

pub(crate) struct Database {
    /// Reading → how often it is in the table.
    table: BTreeMap<u64, u32>,
    /// What was put into the table.
    stored: BTreeSet<Row>,
    /// The same, by the time at which it was.
    history: Vec<(Duration, Row)>,
    /// Readings that it had and lost by going back.
    lost: BTreeSet<u64>,
    /// Another one each time that it goes back.
    pub(crate) identity: u64,
    /// One whose row was put in twice.
    pub(crate) doubled: Option<Offset>,
    /// Of readings that have the time of their arrival: that of the record at an offset.
    arrivals: BTreeMap<Offset, Timestamp>,
    /// The same of what was last seen of a reading.
    latest: BTreeMap<u64, Timestamp>,
    /// The same of what is in the table.
    arrived: BTreeMap<u64, Timestamp>,
    /// One that is there by two times, which are two rows.
    pub(crate) arrived_twice: Option<(u64, [Timestamp; 2])>,
    /// Whether that is looked for: where the log has no room for receipts, or loses what it had, it may be.
    pub(crate) one_time_each: bool,
    /// Readings that it refuses as long as they live.
    poisoned: BTreeMap<u64, &'static str>,
    pub(crate) is_down: bool,
    /// What it says to every row.
    pub(crate) refuses_all: Option<&'static str>,
    /// What it says to the next statement.
    pub(crate) refuses_next: Option<&'static str>,
    pub(crate) swallows: Swallows,
    pub(crate) has_key: bool,
    pub(crate) has_table: bool,
    /// The partition that every other row belongs to.
    pub(crate) has_partition: bool,
    /// Readings that it refused or swallowed, each alone in its statement.
    refused: BTreeSet<u64>,
    /// The same by a mistake of the table, which makes letters only if an operator wants that.
    refused_by_table: BTreeSet<u64>,
    /// Whether an operator has asked for letters of what it refuses.
    pub(crate) operator_rejects: bool,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            table: BTreeMap::new(),
            stored: BTreeSet::new(),
            history: Vec::new(),
            lost: BTreeSet::new(),
            identity: 0,
            doubled: None,
            arrivals: BTreeMap::new(),
            latest: BTreeMap::new(),
            arrived: BTreeMap::new(),
            arrived_twice: None,
            one_time_each: true,
            poisoned: BTreeMap::new(),
            is_down: false,
            refuses_all: None,
            refuses_next: None,
            swallows: Swallows::Nothing,
            has_key: true,
            has_table: false,
            has_partition: true,
            refused: BTreeSet::new(),
            refused_by_table: BTreeSet::new(),
            operator_rejects: false,
        }
    }
}

impl Database {
    /// The record at an offset, which is on its way, has this time.
    pub(crate) fn arrives(&mut self, (offset, reading): Row, time: Timestamp) {
        self.arrivals.insert(offset, time);
        self.latest.insert(reading, time);
    }

    /// When a reading has arrived that was on its way.
    pub(crate) fn arrival_of(&self, reading: u64) -> Option<Timestamp> {
        self.latest.get(&reading).copied()
    }

    /// From now on it refuses this reading.
    pub(crate) fn poison(&mut self, reading: u64, sqlstate: &'static str) {
        self.poisoned.insert(reading, sqlstate);
    }

    /// One `INSERT`: all of its rows, or none. A careful one passes over rows that are there already, by
    /// way of the unique key; the other takes them for new.
    pub(crate) fn insert(&mut self, rows: &[Row], careful: bool, now: Duration) -> Answer {
        let answer = self.try_insert(rows, careful, now);
        if let [(_, reading)] = rows {
            match answer {
                Answer::Refused(_) => drop(self.refused.insert(*reading)),
                Answer::RefusedByTable(_) => drop(self.refused_by_table.insert(*reading)),
                Answer::Stored { .. } | Answer::Unreachable => {}
            }
        }
        answer
    }

    fn try_insert(&mut self, rows: &[Row], careful: bool, now: Duration) -> Answer {
        if self.is_down {
            return Answer::Unreachable;
        }
        if let Some(sqlstate) = self.refuses_next.take().or(self.refuses_all) {
            return Answer::Refused(sqlstate);
        }
        if !self.has_table {
            return Answer::Refused("42P01");
        }
        if careful && !self.has_key {
            return Answer::RefusedByTable("42P10");
        }
        if !self.has_partition && rows.iter().any(|(_, reading)| reading % 2 == 0) {
            return Answer::RefusedByTable("23514");
        }
        if let Some(sqlstate) = rows.iter().find_map(|(_, reading)| self.poisoned.get(reading)) {
            return Answer::Refused(sqlstate);
        }
        for (offset, reading) in rows {
            let Some(time) = self.arrivals.get(offset).copied() else { continue };
            let known = *self.arrived.entry(*reading).or_insert(time);
            if known != time && self.one_time_each && !self.does_swallow(*reading) {
                self.arrived_twice = Some((*reading, [known, time]));
            }
        }
        let mut inserted = Vec::new();
        let mut in_statement = BTreeSet::new();
        for (offset, reading) in rows {
            if self.does_swallow(*reading) {
                // By a trigger or a rule, which counts it for nothing.
                self.refused.insert(*reading);
            } else if !self.has_key
                || (!self.table.contains_key(reading) && in_statement.insert(*reading))
            {
                inserted.push((*offset, *reading));
            } else if !careful {
                return Answer::Refused("23505");
            }
        }
        for (offset, reading) in &inserted {
            *self.table.entry(*reading).or_default() += 1;
            self.history.push((now, (*offset, *reading)));
            self.lost.remove(reading);
            if !self.stored.insert((*offset, *reading)) {
                self.doubled = Some(*offset);
            }
        }
        let (inserted, rows) = (inserted.len() as u64, rows.len() as u64);
        Answer::Stored { inserted, duplicates: rows - inserted }
    }

    fn does_swallow(&self, reading: u64) -> bool {
        match self.swallows {
            Swallows::Nothing => false,
            Swallows::EveryThird => reading.is_multiple_of(3),
            Swallows::Everything => true,
        }
    }

    /// It is as it was at that time, and another server, or the same one restored.
    pub(crate) fn go_back(&mut self, to: Duration) {
        self.identity += 1;
        while let Some((_, row)) = self.history.pop_if(|(at, _)| *at > to) {
            self.stored.remove(&row);
            if let Some(copies) = self.table.get_mut(&row.1) {
                *copies -= 1;
            }
            self.lost.insert(row.1);
            self.arrived.remove(&row.1);
        }
        self.table.retain(|_, copies| *copies > 0);
    }

    /// Whether it had this reading, and has lost it.
    pub(crate) fn has_lost(&self, reading: u64) -> bool {
        self.lost.contains(&reading)
    }

    /// Whether a row is in the table.
    pub(crate) fn holds(&self, reading: u64) -> bool {
        self.table.contains_key(&reading)
    }

    /// How often it is.
    pub(crate) fn copies(&self, reading: u64) -> u32 {
        self.table.get(&reading).copied().unwrap_or(0)
    }

    /// Readings that are in the table more than once.
    pub(crate) fn doubled_readings(&self) -> impl Iterator<Item = u64> {
        self.table.iter().filter(|(_, copies)| **copies > 1).map(|(reading, _)| *reading)
    }

    /// Whether it ever refused this row for itself.
    pub(crate) fn has_refused(&self, reading: u64) -> bool {
        self.refused.contains(&reading)
            || (self.operator_rejects && self.refused_by_table.contains(&reading))
    }

    /// Makes ready for rows.
    pub(crate) fn prepare(&mut self) -> Result<(), &'static str> {
        self.ping()?;
        self.has_table = true;
        Ok(())
    }

    /// Whether it answers.
    pub(crate) fn ping(&mut self) -> Result<(), &'static str> {
        if self.is_down { Err("") } else { Ok(()) }
    }

    /// Somebody mends it: everything works from here on, but for rows that it refuses for their own
    /// sake.
    pub(crate) fn mend(&mut self) {
        self.is_down = false;
        self.refuses_all = None;
        self.refuses_next = None;
        self.has_partition = true;
        self.swallows = Swallows::Nothing;
        if !self.has_key {
            // Which needs one row of each.
            self.table.values_mut().for_each(|copies| *copies = 1);
            let mut seen = BTreeSet::new();
            self.history.retain(|(_, (_, reading))| seen.insert(*reading));
            self.has_key = true;
        }
    }
}
