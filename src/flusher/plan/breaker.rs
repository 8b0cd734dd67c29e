//! Whether what is refused is the rows' fault or the table's.
//!
//! *Closed*: a refused row is at fault, since others are accepted. It opens when row after row is
//! refused and none is accepted in between, or when one is refused for a reason that no row can help.
//!
//! *Open*: nothing becomes a letter. What was refused is held and tried again in rounds, with growing
//! pauses between them; other rows are tried beside it, because they may be accepted. A round takes so
//! many refusals without an acceptance, however many rows wait.
//!
//! It closes when a held row is accepted: then the table was mended. And it closes when at least as
//! many other rows were accepted as are held: then those are at fault after all, if they are refused
//! once more. What is held for a reason that no row can help keeps it open.

use std::time::Duration;

use crate::flusher::sink::Refusal;

/// Rows refused one after the other, with none accepted in between, at which the table is at fault.
pub(super) const MOST_REFUSED: u64 = 100;
/// Statements of a round that may be refused, one after the other.
const ROUND: u32 = 100;

/// See the module.
#[derive(Debug)]
pub(super) enum Breaker {
    /// Rows refused since the last one that was accepted.
    Closed {
        refused: u64,
    },
    Open(Open),
}

/// What is known while it is open.
#[derive(Debug)]
pub(super) struct Open {
    /// Rows held, and how many of them for a reason that no row can help.
    held: u64,
    held_by_table: u64,
    /// Rows accepted since it opened.
    accepted: u64,
    /// Statements that may yet be refused in this round.
    budget: u32,
    /// Whether this round has yet to try something that is held, before anything else.
    owes_probe: bool,
    /// Held parts that this round may yet try.
    probes: usize,
    /// When the next round begins, if the last one is over.
    pub(super) next_round: Option<Duration>,
    /// The last one.
    pub(super) refusal: Refusal,
}

/// What an acceptance says of what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Undecided,
    /// The table was mended.
    Mended,
    /// The rows are at fault.
    RowsAtFault,
}

impl Breaker {
    pub(super) fn open(&mut self, refusal: Refusal) {
        *self = Self::Open(Open {
            held: 0,
            held_by_table: 0,
            accepted: 0,
            budget: 0,
            owes_probe: false,
            probes: 0,
            next_round: None,
            refusal,
        });
    }

    pub(super) fn as_open(&mut self) -> Option<&mut Open> {
        match self {
            Self::Open(open) => Some(open),
            Self::Closed { .. } => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    pub(super) fn close(&mut self) {
        *self = Self::Closed { refused: 0 };
    }

    /// So many rows were refused, one by one. Whether that is the table's fault, if it is closed.
    pub(super) fn refused(&mut self, rows: u64) -> bool {
        match self {
            Self::Closed { refused } => {
                *refused += rows;
                *refused >= MOST_REFUSED
            }
            Self::Open(_) => false,
        }
    }

    /// So many rows were accepted, that were held or not.
    pub(super) fn accepted(&mut self, rows: u64, were_held: bool) -> Verdict {
        match self {
            Self::Closed { refused } => {
                *refused = 0;
                Verdict::Undecided
            }
            Self::Open(open) => open.accepted(rows, were_held),
        }
    }
}

impl Open {
    /// So many more rows are held.
    pub(super) fn hold(&mut self, rows: u64, by_table: u64) {
        self.held += rows;
        self.held_by_table += by_table;
    }

    /// So many fewer are.
    pub(super) fn unhold(&mut self, rows: u64, by_table: u64) {
        self.held = self.held.saturating_sub(rows);
        self.held_by_table = self.held_by_table.saturating_sub(by_table);
    }

    fn accepted(&mut self, rows: u64, were_held: bool) -> Verdict {
        self.accepted += rows;
        self.budget = ROUND;
        if were_held || self.held == 0 {
            Verdict::Mended
        } else if self.are_rows_at_fault() {
            Verdict::RowsAtFault
        } else {
            Verdict::Undecided
        }
    }

    /// Whether at least as many rows were accepted as are held, none of them for the table's sake.
    pub(super) fn are_rows_at_fault(&self) -> bool {
        self.held > 0 && self.held_by_table == 0 && self.accepted >= self.held
    }

    /// A statement was refused.
    pub(super) fn spend(&mut self) {
        self.budget = self.budget.saturating_sub(1);
    }

    pub(super) fn is_spent(&self) -> bool {
        self.budget == 0
    }

    /// Begins the next round, if it is time, in which each held part is tried once; whether it has.
    pub(super) fn begin_round(&mut self, now: Duration, held_parts: usize) -> bool {
        if self.next_round.is_none_or(|at| now < at) {
            return false;
        }
        self.next_round = None;
        self.budget = ROUND;
        self.owes_probe = true;
        self.probes = held_parts;
        true
    }

    /// Whether a held part is to be tried now, before anything else or after everything else.
    pub(super) fn may_probe(&mut self, before_others: bool) -> bool {
        let may =
            self.next_round.is_none() && self.probes > 0 && (self.owes_probe || !before_others);
        self.owes_probe = false;
        self.probes = self.probes.saturating_sub(may.into());
        may
    }
}
