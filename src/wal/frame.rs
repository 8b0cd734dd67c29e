//! Blocks: what the log stores, as self-describing frames.
//!
//! A frame is found and checked without anything around it, so that it can be picked out of the
//! raw file of a damaged database:
//!
//! | bytes | what (little-endian) |
//! |---|---|
//! | 0–3 | magic |
//! | 4–5 | format version |
//! | 6–7 | length of the body |
//! | 8–15 | offset of the first record |
//! | 16–23 | committed: every record below was durable when this block was written |
//! | 24–31 | flushed: every record below was in PostgreSQL when this block was written |
//! | 32–39 | receipt of the first record, µs since the Unix epoch |
//! | 40–43 | number of records |
//! | 44–47 | length of the body before compression |
//! | 48–51 | CRC-32 of all of the above and the body |
//! | 52– | body, compressed with zstd |
//!
//! What stands before the body is the same in every version, so that one that does not know a body
//! still knows which offsets are in it. The bodies are in [`body`](super::body).
//!
//! A frame stays under [`MAX_FRAME_BYTES`], because sled moves pages that outgrow a quarter of a
//! segment (17 values each) to blob files, which it never syncs.

use std::cell::RefCell;
use std::ops::Range;

use super::body::{self, VERSION};
use crate::base::time::Timestamp;
use crate::telemetry::Reading;

/// The number of a record in the log, from 0 on, never reused.
pub type Offset = u64;

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

/// Longest frame, in bytes.
pub const MAX_FRAME_BYTES: usize = 7_000;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = [0xB7, b'W', b'A', b'L'];

/// Bytes before the body.
pub const HEADER_BYTES: usize = 52;

const CHECKSUM_AT: usize = 48;

/// Records are gathered into a block until they take this many bytes uncompressed. Readings shrink
/// to about a quarter, which fills a frame; what shrinks less is halved until it fits.
const RAW_TARGET_BYTES: usize = 24_000;

/// A body that claims to be longer than this is damage, not data.
const RAW_MAX_BYTES: usize = 64 * 1_024;

const COMPRESSION_LEVEL: i32 = 1;

/// A decoded block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Offset of the first record.
    pub first: Offset,
    /// When the first record was received.
    pub received_at: Timestamp,
    /// The records, with consecutive offsets.
    pub readings: Vec<Reading>,
}

impl Block {
    /// One past the offset of the last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.first + self.readings.len() as u64
    }
}

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
    version: u16,
    received_at: i64,
    raw_bytes: usize,
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

/// bincode's fixed-width encoding: 8 bytes for the id's length, 8 for each number.
const SHORTEST_RECORD_BYTES: usize = 8 + 4 * 8;

fn raw_bytes(reading: &Reading) -> usize {
    SHORTEST_RECORD_BYTES + reading.device_id.len()
}

/// Encodes blocks; keeps the compressor's memory between them.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
}

impl Encoder {
    /// An encoder.
    ///
    /// # Errors
    /// If zstd has no memory for its context.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { compressor: zstd::bulk::Compressor::new(COMPRESSION_LEVEL)? })
    }

    /// Cuts a commit group, the first record of which gets offset `first`, into blocks and hands
    /// each block's offset, length in records and frame to `each`.
    ///
    /// # Errors
    /// Only if compression or encoding fail, which they do not for data of this kind.
    pub fn encode(
        &mut self,
        first: Offset,
        flushed: Offset,
        received_at: &[Timestamp],
        readings: &[Reading],
        each: &mut impl FnMut(Offset, usize, Vec<u8>),
    ) -> std::io::Result<()> {
        debug_assert_eq!(received_at.len(), readings.len());
        let mut start = 0;
        while start < readings.len() {
            let mut bytes = 0;
            let fitting = readings[start..].iter().take_while(|reading| {
                bytes += raw_bytes(reading);
                bytes <= RAW_TARGET_BYTES
            });
            let mut count = fitting.count().max(1);
            let frame = loop {
                let at = first + start as u64;
                let records = &readings[start..start + count];
                let frame = self.frame(at, [first, flushed], received_at[start], records)?;
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

    fn frame(
        &mut self,
        first: Offset,
        [committed, flushed]: [Offset; 2],
        received_at: Timestamp,
        readings: &[Reading],
    ) -> std::io::Result<Vec<u8>> {
        let raw = body::encode(readings)?;
        let body = self.compressor.compress(&raw)?;
        let too_long = |_| std::io::Error::other("a block outgrew its frame");
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&VERSION.to_le_bytes());
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
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
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
pub fn envelope(bytes: &[u8]) -> Result<Header, FrameError> {
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
pub(super) fn claim(bytes: &[u8]) -> Option<Range<Offset>> {
    let head = bytes.get(..HEADER_BYTES)?;
    let first = u64::from_le_bytes(field(head, 8));
    let count = u32::from_le_bytes(field(head, 40)) as usize;
    let plausible = 1..=RAW_MAX_BYTES / SHORTEST_RECORD_BYTES;
    let end = first.checked_add(count as u64)?;
    plausible.contains(&count).then_some(first..end)
}

pub(super) fn field<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

/// Decompresses with the memory of the time before: to set it up costs as much as a whole block.
fn decompress(body: &[u8], raw_bytes: usize) -> std::io::Result<Vec<u8>> {
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
    let readings = body::decode(header.version, &raw).ok_or(FrameError::Body)?;
    if readings.len() != header.count as usize {
        return Err(FrameError::Body);
    }
    let received_at = Timestamp::from_micros(header.received_at).ok_or(FrameError::Body)?;
    Ok(Block { first: header.first, received_at, readings })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(device_id: &str, value: f64) -> Reading {
        let timestamp = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let device_id = device_id.to_owned();
        Reading { device_id, timestamp, values: [value, 65.2, 87.3] }
    }

    fn encode(first: Offset, readings: &[Reading]) -> Vec<(Offset, usize, Vec<u8>)> {
        let received_at = vec![Timestamp::from_millis(1_759_667_697_000).unwrap(); readings.len()];
        let mut frames = Vec::new();
        Encoder::new()
            .unwrap()
            .encode(first, 3, &received_at, readings, &mut |at, count, frame| {
                frames.push((at, count, frame));
            })
            .unwrap();
        frames
    }

    #[test]
    fn a_block_reads_back_as_it_was_written() {
        let readings = vec![reading("a", 1.5), reading("ü".repeat(128).as_str(), -0.0)];
        let frames = encode(17, &readings);
        let (at, count, frame) = &frames[0];
        let block = decode(frame).unwrap();
        assert_eq!((*at, *count, block.first, block.end()), (17, 2, 17, 19));
        assert_eq!(block.readings, readings);
        let header = check(frame).unwrap();
        assert_eq!((header.committed, header.flushed), (17, 3));
    }

    fn golden(hex: &str) -> Vec<u8> {
        let pairs = hex.trim().as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// One goes back in time.
    fn golden_readings_v2() -> Vec<Reading> {
        let mut readings =
            vec![reading("sensor-001", 23.5), reading("sensor-002", -7.25), reading("ü", -0.0)];
        readings[1].timestamp = Timestamp::from_micros(1_759_667_696_000_997).unwrap();
        readings[2].timestamp = Timestamp::from_micros(1_759_667_695_999_999).unwrap();
        readings
    }

    /// The bytes of each version for all time: a log written by an older binary must be readable.
    #[test]
    fn every_version_keeps_its_bytes() {
        let [v1, v2] = [include_str!("frame_v1.hex"), include_str!("frame_v2.hex")].map(golden);
        assert_eq!((v1[4], v2[4]), (1, 2));
        for bytes in [&v1, &v2] {
            let block = decode(bytes).unwrap();
            assert_eq!(block.first, 1_000_000);
            assert_eq!(block.received_at.to_string(), "2025-10-05T12:34:57Z");
            assert_eq!(check(bytes).unwrap().flushed, 3);
        }
        let readings = [reading("sensor-001", 23.5), reading("sensor-002", -7.25)];
        assert_eq!(decode(&v1).unwrap().readings, readings);
        assert_eq!(decode(&v2).unwrap().readings, golden_readings_v2());
        // Not the bytes of the body, nor how many: another zstd may pack it tighter.
        let written = &encode(1_000_000, &golden_readings_v2())[0].2;
        assert_eq!((&written[..6], &written[8..48]), (&v2[..6], &v2[8..48]));
        let raw = |frame: &[u8]| decompress(&frame[HEADER_BYTES..], RAW_MAX_BYTES).unwrap();
        assert_eq!(raw(written), raw(&v2));
    }

    #[test]
    fn an_unknown_version_is_told_apart_from_damage() {
        let mut frame = encode(0, &[reading("a", 1.0)]).remove(0).2;
        frame[4] = 9;
        assert_eq!(check(&frame), Err(FrameError::UnknownVersion(9)));
        assert_eq!(envelope(&frame), Err(FrameError::Checksum));
        let (head, body) = frame.split_at(HEADER_BYTES);
        let checksum = checksum(&head[..CHECKSUM_AT], body);
        frame[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(check(&frame), Err(FrameError::UnknownVersion(9)));
        assert_eq!(envelope(&frame).unwrap().end(), 1);
    }

    #[test]
    fn a_damaged_frame_claims_its_offsets_unless_that_cannot_be() {
        let mut frame = encode(5, &[reading("a", 1.0), reading("b", 2.0)]).remove(0).2;
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(claim(&frame), Some(5..7));
        frame[43] = 1;
        assert_eq!(claim(&frame), None);
        assert_eq!(claim(&frame[..40]), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let frame = encode(5, &[reading("a", 1.0), reading("b", 2.0)]).remove(0).2;
        for at in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(decode(&damaged).is_err(), "bit {at}");
        }
    }

    fn any_reading() -> impl Strategy<Value = Reading> {
        ("\\PC{1,128}", any::<f64>(), any::<i32>()).prop_map(|(id, value, seconds)| Reading {
            timestamp: Timestamp::from_millis(i64::from(seconds) * 1_000).unwrap(),
            ..reading(&id, if value.is_nan() { 0.0 } else { value })
        })
    }

    proptest! {
        #[test]
        fn blocks_are_short_and_continuous_whatever_they_hold(
            readings in proptest::collection::vec(any_reading(), 1..600),
        ) {
            let mut next = 40;
            let mut read = Vec::new();
            for (at, count, frame) in encode(40, &readings) {
                prop_assert!(frame.len() <= MAX_FRAME_BYTES);
                prop_assert_eq!(at, next);
                next += count as u64;
                read.extend(decode(&frame).unwrap().readings);
            }
            prop_assert_eq!(read, readings);
        }
    }
}
