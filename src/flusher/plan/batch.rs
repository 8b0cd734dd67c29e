//! One batch: what of it is still to be stored, and which of its rows were refused.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::event::BatchId;
use crate::flusher::sink::Refusal;
use crate::wal::Offset;

/// Rows of a batch that go in one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rows: Range<Offset>,
    pub(super) trust: Trust,
    /// How often they were too slow.
    pub(super) timeouts: u32,
    /// How many inserts had been accepted when they first were.
    pub(super) accepted_before: u64,
}

/// What is known of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing.
    Unknown,
    /// Each of them was refused while all others were.
    Held {
        /// By a mistake of the table that no row can help.
        is_tables: bool,
    },
    /// Each of them was refused, and at least as many others were accepted after that.
    AtFault,
}

impl Part {
    pub(super) fn new(rows: Range<Offset>) -> Self {
        Self { rows, trust: Trust::Unknown, timeouts: 0, accepted_before: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.rows.end - self.rows.start
    }

    pub(super) fn is_single(&self) -> bool {
        self.len() == 1
    }

    /// Both halves; nothing is known of either.
    fn halves(&self) -> [Self; 2] {
        let middle = self.rows.start + self.len() / 2;
        [Self::new(self.rows.start..middle), Self::new(middle..self.rows.end)]
    }
}

/// A row that was refused.
#[derive(Clone, Debug)]
pub(super) struct RefusedRow {
    pub(super) offset: Offset,
    pub(super) refusal: Refusal,
    /// Whether it becomes a letter whatever is found out of others.
    pub(super) is_decided: bool,
}

/// What the batch is waiting for.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Inserting(Part),
    Lettering,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Batch {
    rows: Range<Offset>,
    /// To be sent, the next first.
    left: VecDeque<Part>,
    /// To be sent now and then, to see whether the table was mended.
    held: VecDeque<Part>,
    refused_rows: Vec<RefusedRow>,
    phase: Phase,
    /// No attempt before this time.
    pub(super) not_before: Duration,
    /// Statements that were refused in the present round.
    pub(super) refused_in_round: u32,
    /// Rows that are in the table or a letter.
    pub(super) stored: u64,
}

impl Batch {
    pub(super) fn new(rows: Range<Offset>) -> Self {
        Self {
            left: VecDeque::from([Part::new(rows.clone())]),
            rows,
            held: VecDeque::new(),
            refused_rows: Vec::new(),
            phase: Phase::Idle,
            not_before: Duration::ZERO,
            refused_in_round: 0,
            stored: 0,
        }
    }

    pub(super) fn id(&self) -> BatchId {
        BatchId(self.rows.start)
    }

    pub(super) fn rows(&self) -> Range<Offset> {
        self.rows.clone()
    }

    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.phase == Phase::Idle && self.not_before <= now
    }

    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    pub(super) fn held_parts(&self) -> usize {
        self.held.len()
    }

    /// Whether what was refused is all that remains of it.
    pub(super) fn has_only_refused_rows(&self) -> bool {
        self.left.is_empty() && self.held.is_empty() && !self.refused_rows.is_empty()
    }

    /// Whether everything is stored or a letter.
    pub(super) fn is_done(&self) -> bool {
        self.left.is_empty()
            && self.held.is_empty()
            && self.refused_rows.is_empty()
            && self.phase == Phase::Idle
    }

    /// Whether nothing of it will be sent soon.
    pub(super) fn rests(&self) -> bool {
        self.phase == Phase::Idle && self.left.is_empty() && self.refused_rows.is_empty()
    }

    /// Takes the next part to send it, but no more than so many rows.
    pub(super) fn send_left(&mut self, most: u64) -> Option<Range<Offset>> {
        let mut part = self.left.pop_front()?;
        if part.len() > most {
            let rest = part.rows.start + most..part.rows.end;
            part.rows.end = rest.start;
            self.left.push_front(Part { rows: rest, ..part.clone() });
        }
        Some(self.send(part))
    }

    /// Takes the part that was held the longest to send it.
    pub(super) fn send_held(&mut self) -> Option<Range<Offset>> {
        let part = self.held.pop_front()?;
        Some(self.send(part))
    }

    fn send(&mut self, part: Part) -> Range<Offset> {
        let rows = part.rows.clone();
        self.phase = Phase::Inserting(part);
        rows
    }

    /// How often what is under way was too slow before.
    pub(super) fn timeouts(&self) -> u32 {
        if let Phase::Inserting(part) = &self.phase { part.timeouts } else { 0 }
    }

    /// What was sent, which is no longer under way.
    pub(super) fn take_sent(&mut self) -> Option<Part> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Inserting(part) => Some(part),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// To be sent next.
    pub(super) fn put_first(&mut self, part: Part) {
        self.left.push_front(part);
    }

    /// To be sent when all else of it was.
    pub(super) fn put_last(&mut self, part: Part) {
        self.left.push_back(part);
    }

    /// To be sent next, in halves.
    pub(super) fn put_halves(&mut self, part: &Part) {
        let [first, second] = part.halves();
        self.left.push_front(second);
        self.left.push_front(first);
    }

    /// To be sent now and then.
    pub(super) fn hold(&mut self, rows: Range<Offset>, is_tables: bool) {
        self.held.push_back(Part { trust: Trust::Held { is_tables }, ..Part::new(rows) });
    }

    pub(super) fn add_refused(&mut self, refused: RefusedRow) {
        self.refused_rows.push(refused);
    }

    /// The rows that were refused, for letters about them, which are under way now.
    pub(super) fn letter(&mut self) -> Vec<(Offset, Refusal)> {
        self.phase = Phase::Lettering;
        self.refused_rows.iter_mut().for_each(|row| row.is_decided = true);
        self.refused_rows.iter().map(|row| (row.offset, row.refusal.clone())).collect()
    }

    /// Letters are no longer under way: they were written, or will be tried again.
    pub(super) fn lettered(&mut self, are_stored: bool) {
        self.phase = Phase::Idle;
        if are_stored {
            self.stored += self.refused_rows.len() as u64;
            self.refused_rows.clear();
        }
    }

    /// Holds the rows of which it is not decided that they become letters; how many there are, and how
    /// many of them by a mistake of the table.
    pub(super) fn hold_refused_rows(&mut self) -> (u64, u64) {
        let (decided, open): (Vec<_>, Vec<_>) =
            self.refused_rows.drain(..).partition(|row| row.is_decided);
        self.refused_rows = decided;
        let is_tables = |row: &&RefusedRow| row.refusal.is_tables;
        let counts = (open.len() as u64, open.iter().filter(is_tables).count() as u64);
        for RefusedRow { offset, refusal, .. } in open {
            self.hold(offset..offset + 1, refusal.is_tables);
        }
        counts
    }

    /// Sends what is held again, as many rows at once as lie together, because it may go in now.
    pub(super) fn release(&mut self) {
        let held = merge(self.held.drain(..).collect());
        self.left.extend(held.into_iter().map(|part| Part::new(part.rows)));
    }

    /// Sends what is held again, row by row, for the last time.
    pub(super) fn find_at_fault(&mut self) {
        let at_fault = |part| Part { trust: Trust::AtFault, ..part };
        self.left.extend(self.held.drain(..).map(at_fault));
    }
}

/// Parts that lie together as one.
fn merge(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort_by_key(|part| part.rows.start);
    let mut merged: Vec<Part> = Vec::new();
    for part in parts {
        match merged.last_mut() {
            Some(last) if last.rows.end == part.rows.start => last.rows.end = part.rows.end,
            _ => merged.push(part),
        }
    }
    merged
}
