//! Cutting a commit group into blocks, and blocks into frames.

use std::cell::RefCell;

use super::header::{HEADER_BYTES, MAGIC, MAX_FRAME_BYTES, RAW_MAX_BYTES, checksum};
use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::telemetry::mapping::MappedReading;
use crate::wal::body;
use crate::wal::offset::Offset;
use crate::wal::receipt::{Receipt, of_block};

/// Records are gathered into a block until they come to this many bytes. Readings shrink to about a
/// quarter, which fills a frame; what shrinks less is halved until it fits.
const TARGET_BYTES: usize = 24_000;

/// What a record counts for beside its device id: about what it takes uncompressed.
const RECORD_BYTES: usize = 40;

/// What a receipt takes at most.
const RECEIPT_BYTES: usize = 24;

/// More records are in no frame that is written.
pub(in crate::wal) const MOST_RECORDS: usize = TARGET_BYTES / RECORD_BYTES;

// What is written can be read, and its length can be written down.
const _: () = assert!(2 * TARGET_BYTES <= RAW_MAX_BYTES && MAX_FRAME_BYTES <= u16::MAX as usize);

/// What takes no more than this uncompressed fits into a frame.
const FITS_BYTES: usize = 6_500;
const _: () = assert!(FITS_BYTES + HEADER_BYTES + RECEIPT_BYTES < MAX_FRAME_BYTES);

const COMPRESSION_LEVEL: i32 = 1;

/// Cuts a commit group, the first record of which gets offset `first`, into blocks and hands each
/// block's offset, length in records and frame to `each`.
///
/// # Errors
/// Only if compression or encoding fail, which they do not for data of this kind.
pub fn encode(
    first: Offset,
    flushed: Offset,
    received_at: &[Timestamp],
    readings: &[Record],
    each: &mut impl FnMut(Offset, usize, Vec<u8>),
) -> std::io::Result<()> {
    encode_with_receipts(first, flushed, received_at, readings, &[], each)
}

/// As [`encode`], with the receipt of each record that has one; `receipts` is empty if none has.
///
/// # Errors
/// As [`encode`].
pub(in crate::wal) fn encode_with_receipts(
    first: Offset,
    flushed: Offset,
    received_at: &[Timestamp],
    readings: &[Record],
    receipts: &[Option<Receipt>],
    each: &mut impl FnMut(Offset, usize, Vec<u8>),
) -> std::io::Result<()> {
    debug_assert_eq!(received_at.len(), readings.len());
    debug_assert!(receipts.is_empty() || receipts.len() == readings.len());
    let receipt_bytes = if receipts.is_empty() { 0 } else { RECEIPT_BYTES };
    let mut start = 0;
    while start < readings.len() {
        let mut bytes = 0;
        let fitting = readings[start..].iter().take_while(|record| {
            bytes += weight(record) + receipt_bytes;
            bytes <= TARGET_BYTES && readings[start].is_alike(record)
        });
        let mut count = fitting.count().max(1);
        let frame = loop {
            let at = first + start as u64;
            let records = &readings[start..start + count];
            let receipts = receipts.get(start..start + count).unwrap_or_default();
            let frame = frame(at, [first, flushed], received_at[start], records, receipts)?;
            if frame.len() <= MAX_FRAME_BYTES || count == 1 {
                break frame;
            }
            count /= 2;
        };
        each(first + start as u64, count, frame);
        start += count;
    }
    Ok(())
}

/// What a record counts for: about what it takes uncompressed.
fn weight(record: &Record) -> usize {
    match record {
        Record::BuiltIn(reading) => RECORD_BYTES + reading.device_id.len(),
        Record::Mapped(reading) => RECORD_BYTES + reading.bytes(),
    }
}

/// Whether a record would not fit into a frame by itself: its columns are named in it.
#[must_use]
pub(crate) fn is_too_long(record: &Record) -> bool {
    // What is as short as this fits however badly it shrinks.
    let names =
        |row: &MappedReading| row.values().map(|(column, _)| column.name.len() + 8).sum::<usize>();
    let bytes = record.mapped().map_or(0, |row| row.bytes() + names(row) + row.table.name.len());
    bytes > FITS_BYTES
        && frame(0, [0; 2], record.timestamp(), std::slice::from_ref(record), &[])
            .map_or(true, |frame| frame.len() + RECEIPT_BYTES > MAX_FRAME_BYTES)
}

fn frame(
    first: Offset,
    [committed, flushed]: [Offset; 2],
    received_at: Timestamp,
    readings: &[Record],
    receipts: &[Option<Receipt>],
) -> std::io::Result<Vec<u8>> {
    let (version, raw) = body::encode(readings, &of_block(receipts))?;
    let body = compress(&raw)?;
    let too_long = |_| std::io::Error::other("a block outgrew its frame");
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&version.to_le_bytes());
    frame.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes());
    frame.extend_from_slice(&first.to_le_bytes());
    frame.extend_from_slice(&committed.to_le_bytes());
    frame.extend_from_slice(&flushed.to_le_bytes());
    frame.extend_from_slice(&received_at.as_micros().to_le_bytes());
    frame.extend_from_slice(&u32::try_from(readings.len()).map_err(too_long)?.to_le_bytes());
    frame.extend_from_slice(&u32::try_from(raw.len()).map_err(too_long)?.to_le_bytes());
    let checksum = checksum(&frame, &body);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Compresses with the memory of the time before: to set it up costs as much as a whole block.
fn compress(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
            const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?),
        };
        compressor.compress(raw)
    })
}
