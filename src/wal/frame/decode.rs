//! From a frame back to its readings.

use std::cell::RefCell;

use super::header::{FrameError, HEADER_BYTES, check};
use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::wal::body;
use crate::wal::offset::Offset;
use crate::wal::receipt::Receipt;

/// A decoded block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Offset of the first record.
    pub first: Offset,
    /// When the first record was received.
    pub received_at: Timestamp,
    /// The records, with consecutive offsets.
    pub readings: Vec<Record>,
    /// Of the messages whose readings in it have got the time of their arrival. Only of blocks that were
    /// read from the disk.
    pub receipts: Vec<Receipt>,
}

impl Block {
    /// One past the offset of the last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.first + self.readings.len() as u64
    }
}

/// Decompresses with the memory of the time before: to set it up costs as much as a whole block.
pub(super) fn decompress(body: &[u8], raw_bytes: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            const { RefCell::new(None) };
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress(body, raw_bytes)
    })
}

/// Decodes the block in `frame`.
///
/// # Errors
/// If it is not one intact frame of a known version.
pub fn decode(frame: &[u8]) -> Result<Block, FrameError> {
    let header = check(frame)?;
    let body = &frame[HEADER_BYTES..header.frame_bytes];
    let raw = decompress(body, header.raw_bytes).map_err(|_| FrameError::Body)?;
    let (readings, receipts) = body::decode(header.version, &raw).ok_or(FrameError::Body)?;
    if readings.len() != header.count as usize {
        return Err(FrameError::Body);
    }
    let received_at = Timestamp::from_micros(header.received_at).ok_or(FrameError::Body)?;
    Ok(Block { first: header.first, received_at, readings, receipts })
}
