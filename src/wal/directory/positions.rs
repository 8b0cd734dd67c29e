//! The note of how far the log is committed and flushed.
//!
//! Written at each change and not synced, because the blocks say the same, only later: without it a
//! power cut has some records sent again. It is synced before a generation is deleted, whose blocks
//! then say nothing any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::files::options;
use crate::base::retry::{is_refusal, read_again};
use crate::wal::contract::Positions;
use crate::wal::error::{ON_POSITIONS, WalError};
use crate::wal::offset::Offset;

/// Its name in the log's directory.
pub(in crate::wal) const NAME: &str = "positions";

const BYTES: usize = 20;

/// `WAL_DIR/positions`.
pub(in crate::wal) struct PositionsFile {
    path: PathBuf,
    file: File,
}

impl PositionsFile {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(NAME);
        options().open(&path).map(|file| Self { path, file })
    }

    pub(in crate::wal) fn write(&self, positions: Positions) {
        if let Err(error) = self.file.write_all_at(&encode(positions), 0) {
            tracing::debug!(%error, "the log's positions were not written down");
        }
    }

    pub(in crate::wal) fn sync(&self) {
        if let Err(error) = self.file.sync_data() {
            tracing::debug!(%error, "the log's positions were not synced");
        }
    }

    pub(in crate::wal) fn read(&self) -> Result<Option<Positions>, WalError> {
        read(&self.file).map_err(WalError::unread(&self.path, ON_POSITIONS))
    }
}

/// What is in the file, unless it is damaged or there is nothing in it yet.
pub(in crate::wal) fn read(file: &File) -> io::Result<Option<Positions>> {
    let mut bytes = [0; BYTES];
    match read_again(|| file.read_exact_at(&mut bytes, 0), thread::sleep) {
        Ok(()) => Ok(decode(&bytes)),
        Err(error) if is_refusal(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn encode(positions: Positions) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&positions.committed.to_le_bytes());
    bytes[8..16].copy_from_slice(&positions.flushed.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; BYTES]) -> Option<Positions> {
    let (positions, checksum) = bytes.split_at(16);
    if crc32fast::hash(positions).to_le_bytes() != checksum {
        return None;
    }
    let (committed, flushed) = positions.split_at(8);
    let offset = |bytes: &[u8]| bytes.try_into().map(Offset::from_le_bytes).ok();
    Some(Positions { committed: offset(committed)?, flushed: offset(flushed)? })
}
