//! What stands before the body, and whether a frame is intact.

use std::ops::Range;

use crate::wal::body::VERSION;
use crate::wal::offset::Offset;

/// Longest frame, in bytes.
pub(crate) const MAX_FRAME_BYTES: usize = 7_000;

/// The first bytes of every frame.
pub(crate) const MAGIC: [u8; 4] = [0xB7, b'W', b'A', b'L'];

/// Bytes before the body.
pub const HEADER_BYTES: usize = 52;

pub(super) const CHECKSUM_AT: usize = 48;

/// A body that claims to be longer than this is damage, not data.
pub(super) const RAW_MAX_BYTES: usize = 64 * 1_024;

/// The shortest record in a body of any version, before compression: that of version 2, of which the
/// numbers take 24 bytes, and the id and the time one each at least.
const SHORTEST_RECORD_BYTES: usize = 3 * 8 + 2;

/// More records are in no frame that can be read.
const MAX_RECORDS: usize = RAW_MAX_BYTES / SHORTEST_RECORD_BYTES;

/// The checked header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record.
    pub first: Offset,
    /// Every record below was durable when this block was written.
    pub committed: Offset,
    /// Every record below was in PostgreSQL when this block was written.
    pub flushed: Offset,
    /// Number of records, at least 1.
    pub count: u32,
    /// Length of the whole frame in bytes.
    pub frame_bytes: usize,
    pub(super) version: u16,
    pub(super) received_at: i64,
    pub(super) raw_bytes: usize,
}

impl Header {
    /// One past the offset of the last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.first + u64::from(self.count)
    }
}

/// Why bytes are not a frame; the caller treats all of them as damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too short, no magic, or lengths that cannot be.
    #[error("not a frame")]
    NotAFrame,
    /// A format that this version does not know: set aside, for a version that does.
    #[error("unknown block version {0}")]
    UnknownVersion(u16),
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// The checksum matches, yet the body cannot be decoded.
    #[error("undecodable body")]
    Body,
}

pub(super) fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Reads and checks the frame that `bytes` begin with; more bytes may follow it.
///
/// # Errors
/// If there is no intact frame of a known version.
pub fn check(bytes: &[u8]) -> Result<Header, FrameError> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
        return Err(FrameError::NotAFrame);
    }
    match u16::from_le_bytes(field(bytes, 4)) {
        1..=VERSION => {}
        0 => return Err(FrameError::NotAFrame),
        version => return Err(FrameError::UnknownVersion(version)),
    }
    let header = envelope(bytes)?;
    if header.raw_bytes <= RAW_MAX_BYTES { Ok(header) } else { Err(FrameError::NotAFrame) }
}

/// As [`check`], for a frame of any version.
///
/// # Errors
/// If there is no intact frame.
pub(crate) fn envelope(bytes: &[u8]) -> Result<Header, FrameError> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
        return Err(FrameError::NotAFrame);
    }
    let (head, rest) = bytes.split_at(HEADER_BYTES);
    let body_bytes = usize::from(u16::from_le_bytes(field(head, 6)));
    if rest.len() < body_bytes {
        return Err(FrameError::NotAFrame);
    }
    let stored = u32::from_le_bytes(field(head, CHECKSUM_AT));
    if stored != checksum(&head[..CHECKSUM_AT], &rest[..body_bytes]) {
        return Err(FrameError::Checksum);
    }
    let header = Header {
        version: u16::from_le_bytes(field(head, 4)),
        first: u64::from_le_bytes(field(head, 8)),
        committed: u64::from_le_bytes(field(head, 16)),
        flushed: u64::from_le_bytes(field(head, 24)),
        received_at: i64::from_le_bytes(field(head, 32)),
        count: u32::from_le_bytes(field(head, 40)),
        raw_bytes: u32::from_le_bytes(field(head, 44)) as usize,
        frame_bytes: HEADER_BYTES + body_bytes,
    };
    let plausible = header.count > 0 && header.first.checked_add(u64::from(header.count)).is_some();
    if plausible { Ok(header) } else { Err(FrameError::NotAFrame) }
}

/// The offsets that a frame which is damaged claims to hold, if the claim can be true; what says so
/// may be damaged itself.
pub(in crate::wal) fn claim(bytes: &[u8]) -> Option<Range<Offset>> {
    let head = bytes.get(..HEADER_BYTES)?;
    let first = u64::from_le_bytes(field(head, 8));
    let count = u32::from_le_bytes(field(head, 40)) as usize;
    let plausible = 1..=MAX_RECORDS;
    let end = first.checked_add(count as u64)?;
    plausible.contains(&count).then_some(first..end)
}

fn field<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}
