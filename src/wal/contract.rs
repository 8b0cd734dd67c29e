//! The traits under the log: a place that holds generations, and a generation as it is written
//! and as it is read.
//!
//! Two implementations: [`sled`](super::engine::sled) on disk, [`memory`](super::engine::memory) with the
//! faults of a disk for tests and simulations. Everything above them is written once: what is lost in
//! [`recovery`](super::recovery); offsets, rotation and order in [`log`](super::log).

use std::sync::Arc;

use super::error::WalError;
use super::frame::Block;
use super::offset::{Offset, OffsetRange};
use crate::base::time::Timestamp;

/// A place that holds generations, each named by the offset of its first record.
pub trait Storage: Send + Sync + 'static {
    /// The generations there are, oldest first.
    ///
    /// # Errors
    /// If the place cannot be listed.
    fn list(&self) -> Result<Vec<Offset>, WalError>;

    /// Makes a new, empty generation, the newest. When this returns, its name and files are
    /// durable, so that a commit to it needs to sync its contents only.
    ///
    /// # Errors
    /// If it cannot be made, or not be made durable.
    fn create(&self, first: Offset) -> Result<Arc<dyn Active>, WalError>;

    /// Opens a generation that nobody writes to any more. Damage is no error: what it took is in
    /// [`Sealed::lost`].
    ///
    /// # Errors
    /// [`WalError::Unread`] if the disk does not read it, see [`Bounds::unreadable`].
    fn open(&self, first: Offset, bounds: Bounds) -> Result<Sealed, WalError>;

    /// Deletes a generation; needs no free space.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn delete(&self, first: Offset) -> Result<(), WalError>;

    /// Moves a damaged generation out of the log, to be looked at by a person. Of one that is not
    /// there any more only the report is kept.
    ///
    /// # Errors
    /// If it cannot be moved.
    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError>;

    /// What was moved out of the log, oldest first.
    ///
    /// # Errors
    /// If the disk does not say.
    fn quarantined(&self) -> Result<Vec<Quarantined>, WalError>;

    /// Bytes of what was moved out of the log.
    fn quarantine_bytes(&self) -> u64;

    /// Deletes the oldest damaged generation in quarantine, but for its report; never one that is
    /// there because its version is unknown. Returns whether there was one.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn evict_quarantined(&self) -> Result<bool, WalError>;

    /// Bytes that a generation takes on disk; none if it is not there.
    ///
    /// # Errors
    /// If the disk does not say.
    fn disk_bytes(&self, first: Offset) -> Result<u64, WalError>;

    /// Bytes that are free for the log.
    ///
    /// # Errors
    /// If the filesystem does not say.
    fn free_bytes(&self) -> Result<u64, WalError>;

    /// Writes down how far the log is committed and flushed. Not synced: it is written after what it
    /// speaks of, so it is true if it is there, and behind after a power cut.
    fn write_positions(&self, positions: Positions);

    /// Makes the positions durable, as far as the disk lets it. Before a generation is deleted, so that
    /// a power cut leaves no positions that say that its records are still to be flushed.
    fn sync_positions(&self);

    /// What was last written; none if nothing was, or it is damaged.
    ///
    /// # Errors
    /// If the disk does not read it: it is not known to be damaged.
    fn read_positions(&self) -> Result<Option<Positions>, WalError>;

    /// Remembers over a restart that the generation `first` could not be read, so that the next process
    /// opens it with [`Unreadable::IsLost`].
    fn mark_unreadable(&self, first: Offset);

    /// Whether [`Self::mark_unreadable`] was called for `first`, and [`Self::unmark_unreadable`] was not since.
    fn is_marked_unreadable(&self, first: Offset) -> bool;

    /// Takes the mark of [`Self::mark_unreadable`] back, because all of the generation `first` was read. While it
    /// stays for want of a disk that writes, an error to come is loss at once.
    fn unmark_unreadable(&self, first: Offset);
}

/// A generation as it is read, whether it is still written to or not.
pub trait Generation: Send + Sync {
    /// The block that holds `offset`, or the first one behind it.
    ///
    /// # Errors
    /// If the store failed.
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

/// The newest generation. One thread writes while another reads.
pub trait Active: Generation {
    /// Adds a block. It is not durable before [`Self::sync`] returns.
    ///
    /// # Errors
    /// If the store failed; then nothing may be added to this generation any more.
    fn insert(&self, first: Offset, frame: &[u8]) -> Result<(), WalError>;

    /// Makes every block inserted so far durable: it survives a power cut.
    ///
    /// # Errors
    /// If that is not certain; then nothing may be added to this generation any more, and the
    /// sync must not be tried again, because the kernel reports lost pages only once.
    fn sync(&self) -> Result<(), WalError>;

    /// Gives up the blocks that end at or below `flushed`, an offset that a *durable* block of
    /// this generation carries in its header. Their space may be written over at once, so without
    /// that block a power cut would leave a hole that looks like damage.
    ///
    /// # Errors
    /// If the store failed; then nothing may be added to this generation any more.
    fn remove_below(&self, flushed: Offset) -> Result<(), WalError>;

    /// The same generation, to be read.
    fn as_generation(self: Arc<Self>) -> Arc<dyn Generation>;
}

/// How far the log had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Every record below is durable.
    pub committed: Offset,
    /// Every record below is in PostgreSQL or in the dead-letter store.
    pub flushed: Offset,
}

/// What of a generation is looked for when it is opened, and what is made of what the disk refuses.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Every record below was flushed and is not missed.
    pub flushed: Offset,
    /// Every record below was committed and must be there.
    pub committed: Offset,
    /// Where the next generation begins, if there is one: nothing from there on belongs to this.
    pub end: Option<Offset>,
    /// What is made of a page that the disk does not read.
    pub unreadable: Unreadable,
}

/// What is made of a page that the disk does not read, though it was asked more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Opening fails. Nothing is given up for lost, because a cable or a controller may be at fault and
    /// not the page.
    IsAnError,
    /// What stood on it is lost, as with any damage: the process has been restarted since it was first
    /// refused, and the log has to go on.
    IsLost,
}

/// A generation that is only read.
pub struct Sealed {
    /// Its blocks.
    pub generation: Arc<dyn Generation>,
    /// Every record below was flushed, as far as this generation and [`Bounds`] tell; may lie
    /// before it.
    pub flushed: Offset,
    /// Of what is flushed, everything from here on is there; one past its flushed records if nothing is.
    pub retained: Offset,
    /// One past its last record, whether that can be read or not.
    pub end: Offset,
    /// How many records of it wait to be flushed and can be read.
    pub records: u64,
    /// Bytes of all its readable blocks.
    pub(crate) block_bytes: u64,
    /// Committed and not flushed, but gone, or not to be read by this version.
    pub lost: Vec<OffsetRange>,
    /// Whether the disk read all of it.
    pub(crate) is_read_whole: bool,
    /// The newest version of its blocks that this one does not know, if there are such.
    pub(crate) unknown_version: Option<u16>,
}

/// The name of a generation's directory.
#[must_use]
pub(crate) fn generation_id(first: Offset) -> String {
    format!("{first:020}")
}

/// What became of a damaged generation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quarantined {
    /// The name of its directory in the log.
    pub id: String,
    /// When the damage was found, RFC 3339.
    pub at: String,
    /// Records that were read back from it.
    pub(crate) salvaged_records: u64,
    /// Offsets that could not be.
    pub lost_ranges: Vec<OffsetRange>,
    /// The version of its blocks, if that is why: nothing is broken then, and a newer program can
    /// read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unknown_version: Option<u16>,
    /// The offset that the log went on with, if nothing of it could be read: it may have held what lies
    /// between, which nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resumed_at: Option<Offset>,
}

impl Quarantined {
    /// A report of the generation that begins at `first`.
    pub(super) fn new(first: Offset, at: Timestamp, lost_ranges: Vec<OffsetRange>) -> Self {
        Self {
            id: generation_id(first),
            at: at.to_string(),
            salvaged_records: 0,
            lost_ranges,
            unknown_version: None,
            resumed_at: None,
        }
    }
}
