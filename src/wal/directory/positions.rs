//! The note of how far the log is committed and flushed.
//!
//! Written at each change and not synced, because the blocks say the same, only later: without it a
//! power cut has some records sent again. It is synced before a generation is deleted, whose blocks
//! then say nothing any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::files::options;
use crate::wal::contract::Positions;
use crate::wal::offset::Offset;

/// Its name in the log's directory.
pub(in crate::wal) const NAME: &str = "positions";

const BYTES: usize = 20;

/// `WAL_DIR/positions`.
pub(in crate::wal) struct PositionsFile(File);

impl PositionsFile {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        options().open(dir.join(NAME)).map(Self)
    }

    pub(in crate::wal) fn write(&self, positions: Positions) {
        if let Err(error) = self.0.write_all_at(&encode(positions), 0) {
            tracing::debug!(%error, "the log's positions were not written down");
        }
    }

    pub(in crate::wal) fn sync(&self) {
        if let Err(error) = self.0.sync_data() {
            tracing::debug!(%error, "the log's positions were not synced");
        }
    }

    pub(in crate::wal) fn read(&self) -> Option<Positions> {
        read(&self.0)
    }
}

/// What is in the file, unless it is damaged.
pub(in crate::wal) fn read(file: &File) -> Option<Positions> {
    let mut bytes = [0; BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    decode(&bytes)
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
