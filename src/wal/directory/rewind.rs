//! The note that flushed records are pending again. Unlike the positions it is durable, because nothing
//! else says so: the blocks that were written before say the opposite.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::sync_dir;
use crate::wal::contract::Rewind;
use crate::wal::offset::Offset;

const NAME: &str = "rewound";

const BYTES: usize = 20;

/// Replaces what is there, as a whole or not at all.
pub(super) fn write(dir: &Path, rewind: Rewind) -> io::Result<()> {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&rewind.flushed.to_le_bytes());
    bytes[8..16].copy_from_slice(&rewind.boundary.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&checksum.to_le_bytes());
    let new = dir.join("rewound.new");
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(NAME))?;
    sync_dir(dir)
}

/// What is there, unless it is damaged.
pub(in crate::wal) fn read(dir: &Path) -> Option<Rewind> {
    let bytes: [u8; BYTES] = fs::read(dir.join(NAME)).ok()?.try_into().ok()?;
    let (offsets, checksum) = bytes.split_at(16);
    if crc32fast::hash(offsets).to_le_bytes() != checksum {
        return None;
    }
    let (flushed, boundary) = offsets.split_at(8);
    let offset = |bytes: &[u8]| bytes.try_into().map(Offset::from_le_bytes).ok();
    Some(Rewind { flushed: offset(flushed)?, boundary: offset(boundary)? })
}
