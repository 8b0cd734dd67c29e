//! Reads the log for a question, within bounds.
//!
//! The pieces with the newest times are read first, until no other can hold a reading that is wanted; what is
//! left of the time goes into counting. A reader takes the log's locks for single steps alone, and nobody
//! waits for it. What was not read is told: the answer is complete down to the newest time in it.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::time::{Duration, Instant};

use super::ask::{Ask, Key};
use super::gather::{Gather, LogRow};
use crate::base::time::Timestamp;
use crate::wal::log::Piece;
use crate::wal::{Log, WalError};

/// Longest search for the rows.
const TIME: Duration = Duration::from_millis(50);
/// Until when others are counted.
const TIME_TO_COUNT: Duration = Duration::from_millis(25);
/// Where nothing is filtered and so many times as many records wait as are to be counted, none is.
const PLENTY: u64 = 2;
/// So many records are read however long it takes, so that a busy machine does not cut off a short log.
const ALWAYS: u64 = 20_000;
/// What the search may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// As long as somebody waits for a page.
    OfPage,
    /// As long as it takes.
    OfFile,
}

/// Most that is kept meanwhile.
const BYTES: usize = 8 * 1024 * 1024;

/// Which part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// What the database does not have.
    Pending,
    /// What it has and is still here as well.
    Retained,
}

/// What the log has.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The newest that match, newest first, as many as are wanted.
    pub rows: Vec<LogRow>,
    /// What names everything that matches, up to the number that was to be counted: the rows in their order,
    /// then the rest.
    pub keys: Vec<Key>,
    /// Whether everything that matches was counted.
    pub is_counted: bool,
    /// Whether that is so because there are more than were to be counted by far.
    pub is_plenty: bool,
    /// What was left out of the search for rows.
    pub unread: Option<Unread>,
    /// Whether there is anything of the table in the log, or may be.
    pub has_table: bool,
}

/// Readings that may be there and were not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Their latest time, if it is known.
    pub newest: Option<Timestamp>,
}

/// What is in the log. Blocks on the disk.
pub(super) fn scan(log: &Log, ask: &Ask, part: LogPart, effort: Effort) -> Result<Found, WalError> {
    let started = Instant::now();
    let from = match part {
        LogPart::Pending => log.flushed(),
        LogPart::Retained => log.retained(),
    };
    let pieces = log.pieces(from);
    let records: u64 = pieces.iter().map(|piece| piece.end - piece.first).sum();
    let is_plenty = ask.is_whole() && records > PLENTY * ask.counted as u64;
    let mut gather = Gather::new(ask);
    let mut is_counted = !is_plenty;
    let mut passed_over = false;
    let mut unread: Option<Unread> = None;
    let mut read = 0;
    for piece in pieces {
        if piece.times.is_some_and(|(oldest, newest)| !ask.overlaps(oldest, newest)) {
            passed_over = true;
            continue;
        }
        let has_room = gather.bytes() < BYTES;
        let is_wanted = match piece.times {
            Some((oldest, newest)) => gather.lacks(oldest, newest),
            None => true,
        };
        let is_asked_for = is_wanted || (is_counted && gather.is_counting());
        let until = if is_wanted { TIME } else { TIME_TO_COUNT };
        let has_time = effort == Effort::OfFile || read < ALWAYS || started.elapsed() < until;
        let is_read = is_asked_for && has_room && has_time;
        if !is_read {
            is_counted = false;
            passed_over = true;
            if is_wanted {
                unread = Some(Unread::with(unread, &piece));
            }
            continue;
        }
        read += piece.end - piece.first;
        for (offset, record) in log.read(piece.first, piece.end)?.records() {
            gather.add(offset, record);
        }
    }
    let has_table = gather.has_table() || passed_over;
    is_counted &= gather.is_counting() || ask.counted == 0;
    let (rows, keys) = gather.finish();
    Ok(Found { rows, keys, is_counted, is_plenty, unread, has_table })
}

impl Unread {
    /// From when on none of it is missing; `None` if that is not known.
    #[must_use]
    pub fn after(self) -> Option<Timestamp> {
        Timestamp::from_micros(self.newest?.as_micros().saturating_add(1))
    }

    fn with(unread: Option<Self>, piece: &Piece) -> Self {
        let newest = piece.times.map(|(_, newest)| newest);
        match unread {
            None => Self { newest },
            Some(other) => Self { newest: other.newest.zip(newest).map(|(a, b)| a.max(b)) },
        }
    }
}
