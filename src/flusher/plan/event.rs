//! What the plan hears, and what it wants done.

use std::ops::Range;
use std::time::Duration;

use crate::flusher::sink::{FlushError, Refusal, SinkError};
use crate::wal::{Offset, Rewound};

/// Which batch: its first offset, as long as it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub Offset);

/// What the plan hears.
#[derive(Debug)]
pub enum Event {
    /// Everything below this offset is committed and can be read.
    Grown(Offset),
    /// An operator wants no further batch.
    Pause,
    /// An operator takes that back.
    Resume,
    /// An operator wants what is refused dead-lettered, until something is accepted again.
    Reject,
    /// [`Command::Insert`] ended.
    Inserted {
        /// Whose rows.
        batch: BatchId,
        /// How it ended.
        outcome: Result<Accepted, SinkError>,
        /// How long it took.
        took: Duration,
    },
    /// [`Command::Letter`] ended.
    Lettered {
        /// Whose rows.
        batch: BatchId,
        /// How it ended.
        outcome: Lettered,
    },
    /// [`Command::Prepare`] ended.
    Prepared(Result<(), SinkError>),
    /// [`Command::Ping`] ended.
    Ponged(Result<(), SinkError>),
    /// [`Command::Rewind`] ended.
    Rewound(Rewound),
    /// The log or the dead-letter store failed: what that takes with it is nobody's to retry.
    Failed(FlushError),
    /// Time has passed; see [`super::Plan::wake_at`].
    Tick,
    /// No further work: what is under way ends.
    Stop,
}

/// An insert that was not refused. Offsets of the range that damage took are in none of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Rows that are in the table now and were not before.
    pub inserted: u64,
    /// Rows that were in the table already.
    pub duplicates: u64,
    /// Offsets of the rows that were taken and are not in the table.
    pub swallowed: Vec<Offset>,
}

/// How the writing of dead letters ended, unless it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lettered {
    /// They survive a power cut.
    Stored,
    /// There is no room for them, for this reason; none was written. Their rows stay in the log.
    NoRoom(String),
}

/// What the plan wants done. Of [`Self::Insert`], [`Self::Letter`], [`Self::Prepare`], [`Self::Ping`] and
/// [`Self::Rewind`] each ends in the event of its name; the others end in nothing.
#[derive(Debug)]
pub enum Command {
    /// Insert these rows of the batch in one statement; read the batch first if it is not at hand.
    Insert {
        /// Whose rows.
        batch: BatchId,
        /// All of the batch, to read it once.
        all: Range<Offset>,
        /// Those to insert.
        rows: Range<Offset>,
        /// How long the statement may take.
        limit: Duration,
    },
    /// Write dead letters for these rows of the batch, all or none.
    Letter {
        /// Whose rows.
        batch: BatchId,
        /// All of the batch, to read it once.
        all: Range<Offset>,
        /// Which, and why.
        rows: Vec<(Offset, Refusal)>,
    },
    /// What was read for the batch is not needed any more for now.
    Release {
        /// Which.
        batch: BatchId,
        /// Whether all of it is in the table or a letter, and was not before.
        is_done: bool,
    },
    /// Make the database ready for rows.
    Prepare,
    /// Ask whether the database is there.
    Ping,
    /// Everything below this offset is in the table or a letter.
    Flushed(Offset),
    /// Make what the log has flushed and still has pending again, and then have the sink take rows.
    Rewind,
    /// The database has everything that was sent again: have the sink remember which database it is.
    Remember,
    /// Something changed that an operator wants to hear of.
    Report(Report),
    /// Nothing is under way any more and nothing will be: end, with this.
    Finish(Result<(), FlushError>),
}

/// What an operator hears of, once a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The database takes rows, after so many failures.
    Up {
        /// Since the last success.
        failures: u64,
    },
    /// The database does not take rows. `is_new` if it was up, or failed otherwise, until now.
    Down {
        /// Why.
        error: SinkError,
        /// When the next attempt comes.
        pause: Duration,
        /// Whether it is worth a line.
        is_new: bool,
    },
    /// The database refuses row after row, or one for a reason that no row can help.
    Refusing {
        /// The last refusal.
        refusal: Refusal,
        /// When the next attempt comes.
        pause: Duration,
        /// Whether it is worth a line.
        is_new: bool,
    },
    /// So many rows more were confirmed and are not in the table.
    Swallowed {
        /// Not counting those that were found so before and were tried again.
        rows: u64,
    },
    /// The database is not the one that it was, or not where it was.
    WentBack {
        /// How that is known.
        reason: String,
        /// How many records that had been stored are sent again.
        records: u64,
    },
    /// There is no room for dead letters of rows that the database refuses: they stay in the log.
    NoRoomForLetters {
        /// Why not.
        reason: String,
        /// Whether it is worth a line.
        is_new: bool,
    },
}
