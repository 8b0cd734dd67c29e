//! The trait pair under the log: a place that holds generations, and one generation.
//!
//! Two implementations: [`sled`](super::sled) on disk, [`memory`](super::memory) with fault
//! switches for tests. Everything above them (offsets, rotation, order, continuity) is written
//! once, in [`log`](super::log).

use std::sync::Arc;

use super::WalError;
use super::block::{Block, Offset};

/// A place that holds generations, each named by the offset of its first record.
pub trait Storage: Send + Sync + 'static {
    /// The generations there are, oldest first.
    ///
    /// # Errors
    /// If the place cannot be listed.
    fn list(&self) -> Result<Vec<Offset>, WalError>;

    /// Makes a new, empty generation. When this returns, its name and files are durable, so that
    /// a commit to it needs to sync its contents only.
    ///
    /// # Errors
    /// If it cannot be made, or not be made durable.
    fn create(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError>;

    /// Opens an existing generation.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if it has visibly lost something; then [`Self::salvage`] is next.
    fn open(&self, first: Offset) -> Result<Arc<dyn Generation>, WalError>;

    /// Finds what can still be read of a damaged generation that is known to reach up to
    /// `expected_end` and to be flushed below `floor`.
    ///
    /// # Errors
    /// If not even its raw bytes can be read.
    fn salvage(
        &self,
        first: Offset,
        floor: Offset,
        expected_end: Offset,
    ) -> Result<Salvage, WalError>;

    /// Deletes a generation; needs no free space.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn delete(&self, first: Offset) -> Result<(), WalError>;

    /// Moves a generation out of the log, to be looked at by a person.
    ///
    /// # Errors
    /// If it cannot be moved.
    fn quarantine(&self, first: Offset, report: &Quarantined) -> Result<(), WalError>;

    /// What was moved out of the log, oldest first.
    fn quarantined(&self) -> Vec<Quarantined>;

    /// Bytes that a generation takes on disk.
    fn disk_bytes(&self, first: Offset) -> u64;

    /// Bytes that are free for the log.
    ///
    /// # Errors
    /// If the filesystem does not say.
    fn free_bytes(&self) -> Result<u64, WalError>;

    /// Remembers the end of the committed log. Not synced: it only ever follows a commit that
    /// was, so what it says is true if it is there, and its absence is no damage.
    fn note_committed(&self, next: Offset);

    /// What [`Self::note_committed`] was last told, if that is still known.
    fn last_committed(&self) -> Option<Offset>;
}

/// One generation of blocks. Methods take `&self`: one thread inserts while another reads and
/// trims.
pub trait Generation: Send + Sync {
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

    /// The block that holds `offset`, or the first one behind it.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if what is stored there cannot be read.
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError>;

    /// One past the last record, 0 if there is none.
    ///
    /// # Errors
    /// [`WalError::Damaged`] if that cannot be read.
    fn end(&self) -> Result<Offset, WalError>;

    /// Forgets the records below `flushed`. Not synced: a trim that is lost makes rows be sent
    /// again, which the table's unique key absorbs.
    ///
    /// # Errors
    /// If the store failed.
    fn trim(&self, flushed: Offset) -> Result<(), WalError>;

    /// Every record below this offset was flushed, as far as this generation remembers.
    fn trimmed(&self) -> Offset;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

/// What [`Storage::salvage`] found.
pub struct Salvage {
    /// The readable records, for reading only.
    pub generation: Arc<dyn Generation>,
    /// One past the last record, read or lost.
    pub end: Offset,
    /// How many records can be read.
    pub records: u64,
    /// The offsets that cannot.
    pub lost: Vec<OffsetRange>,
}

/// A range of offsets, inclusive at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OffsetRange {
    /// The first offset.
    pub from: Offset,
    /// The last offset.
    pub to: Offset,
}

impl OffsetRange {
    /// How many offsets that are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.to - self.from + 1
    }
}

/// What became of a damaged generation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quarantined {
    /// The name of its directory in the log.
    pub id: String,
    /// When the damage was found, RFC 3339.
    pub at: String,
    /// Records that were read back from it.
    pub salvaged_records: u64,
    /// Offsets that could not be.
    pub lost_ranges: Vec<OffsetRange>,
}
