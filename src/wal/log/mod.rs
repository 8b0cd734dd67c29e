//! The log itself: offsets, rotation, order and continuity over any [`Storage`](super::contract::Storage).
//!
//! Writing: one [`Writer`] appends to the newest generation and commits in groups. At
//! [`Limits::generation_bytes`] a new generation starts, and also when little is pending in one
//! that an outage has blown up, since sled's files do not shrink.
//!
//! Reading: from the tail in memory, else from the generation that holds the offset, opened when
//! it is first needed. Offsets are continuous, so what damage took is known by offset: it is
//! reported as lost, once, and skipped.
//!
//! Opening: every process starts a generation of its own, so what an earlier one left behind is
//! only ever read. Of those, only the newest is looked into, to find the end of the log. The others are
//! opened when they are read, and two are open at once at most: an index of a generation with many small
//! blocks takes megabytes.
//!
//! Deletion: flushed records are retained for a while, should the database go back in time, and give way
//! where their room is needed (`retention`). A generation of which nothing is retained any more is
//! deleted, or set aside in quarantine if it was damaged. Neither needs free space, so a full disk can
//! always drain.
//!
//! Quarantine: a person may read out of a damaged generation what this program cannot, so it stays
//! there until somebody deletes it. But readings that are not stored yet are worth more: quarantine
//! counts for the limits, and where they are reached the oldest damaged generations go, each but for
//! its report. A generation of an unknown version holds readings that nobody else has, and is never
//! deleted here.
//!
//! Locks, always taken in this order: `end` (for a commit or a roll), `opening` (while a generation
//! is opened), `state` (short, never across I/O on blocks), `positions` (while they are written down).
//! `stretches` is held alone, and never for longer than it takes to copy a chunk of them.

mod ages;
mod batch;
mod damage;
mod generations;
mod handle;
mod heard;
mod latest;
mod open;
mod outline;
mod reader;
mod receipts;
mod retention;
mod rewind;
mod room;
mod state;
mod stats;
mod stretches;
mod writer;

pub(crate) use batch::Batch;
pub use handle::Log;
pub(crate) use handle::Rewound;
#[cfg(test)]
pub(crate) use heard::Heard;
pub(crate) use latest::{Last, LastValues, Latest};
pub(crate) use open::open;
pub use open::open_with_receipts;
pub(crate) use outline::Piece;
pub use receipts::LeftReceipts;
pub use state::{Limits, Room};
pub(crate) use stats::GenerationStats;
pub use writer::Writer;
