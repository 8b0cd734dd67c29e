//! Reading a generation that nobody writes to any more: its frames, picked out of the raw file.
//!
//! sled is never asked to recover a database. It does not report damage, it forgets: recovery
//! stops at the first bad spot of its log, and everything behind it is gone without an error, or
//! it panics. But values lie contiguous and uncompressed in the `db` file, and ours are frames
//! that carry their own offsets and checksum, so the file is read without it: what is intact
//! counts, wherever it lies, and what is missing is known by offset.
//!
//! What lies in the file, and what is made of it:
//! - Pages that sled rewrote leave older copies of their frames behind. Copies of one offset are
//!   equal, so any will do.
//! - Frames of records that were flushed, given up or not. Each frame says how far the log was
//!   flushed when it was written; nothing below the highest of these is looked for.
//! - The group that was being written when the process or the power went. Each frame says up to
//!   where the log was committed when it was written; a hole below the highest of these is
//!   damage, a hole above it is in a group that nobody acknowledged, and ends the log there.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::WalError;
use super::block::{self, Block, Header, MAGIC, MAX_FRAME_BYTES, Offset};
use super::storage::{Generation, Known, OffsetRange, Sealed};

const CHUNK_BYTES: usize = 1024 * 1024;

/// Calls `each` with the header and the position of every intact frame in `file`, in the order in
/// which they lie there.
pub(super) fn scan(mut file: impl Read, mut each: impl FnMut(Header, u64)) -> io::Result<()> {
    let finder = memchr::memmem::Finder::new(&MAGIC);
    let mut window = Vec::with_capacity(CHUNK_BYTES + MAX_FRAME_BYTES);
    let mut window_position = 0;
    loop {
        let before = window.len();
        (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut window)?;
        let at_end = window.len() == before;
        // A frame that begins in the last stretch may be cut off by the window's end.
        let complete =
            if at_end { window.len() } else { window.len().saturating_sub(MAX_FRAME_BYTES) };
        let mut at = 0;
        while let Some(hit) = finder.find(&window[at..]) {
            let start = at + hit;
            if start >= complete {
                break;
            }
            at = start
                + match block::check(&window[start..]) {
                    Ok(header) => {
                        each(header, window_position + start as u64);
                        header.frame_bytes
                    }
                    Err(_) => 1,
                };
        }
        if at_end {
            return Ok(());
        }
        let done = complete.max(at.min(window.len()));
        window.drain(..done);
        window_position += done as u64;
    }
}

/// Where a frame lies, and what it holds.
#[derive(Clone, Copy)]
struct Place {
    first: Offset,
    position: u64,
    records: u32,
    frame_bytes: u32,
}

impl Place {
    fn end(&self) -> Offset {
        self.first + u64::from(self.records)
    }
}

/// The frames of a raw file.
struct Frames {
    file: File,
    /// Ordered by offset, one for each.
    places: Vec<Place>,
    disk_bytes: u64,
}

/// Finds the frames in the raw file at `path`, of the generation that begins at `first`. A file
/// that is not there holds none.
pub(super) fn open(path: &Path, first: Offset, known: Known) -> io::Result<Sealed> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open("/dev/null")?,
        Err(error) => return Err(error),
    };
    let mut places = Vec::new();
    let mut flushed = known.flushed;
    let mut committed = first.max(known.committed);
    scan(&file, |header, position| {
        let is_ours = header.first >= first && known.end.is_none_or(|end| header.first < end);
        if is_ours {
            flushed = flushed.max(header.flushed);
            committed = committed.max(header.committed);
            places.push(Place {
                first: header.first,
                position,
                records: header.count,
                frame_bytes: u32::try_from(header.frame_bytes).unwrap_or(u32::MAX),
            });
        }
    })?;
    places.sort_unstable_by_key(|place| place.first);
    places.dedup_by_key(|place| place.first);
    let block_bytes = places.iter().map(|place| u64::from(place.frame_bytes)).sum();
    places.retain(|place| place.end() > flushed);

    let from = first.max(flushed);
    let (end, lost) = continuity(&mut places, from, known.end.unwrap_or(committed));
    places.shrink_to_fit();
    let readable = places.iter().map(|place| place.end() - place.first.max(from)).sum();
    let disk_bytes = file.metadata()?.len();
    let generation = Arc::new(Frames { file, places, disk_bytes });
    Ok(Sealed { generation, flushed, end, records: readable, block_bytes, lost })
}

/// What is missing between `from` and `must_reach`, and where the records end: at the first hole
/// behind `must_reach`, with everything behind that hole dropped.
fn continuity(
    places: &mut Vec<Place>,
    from: Offset,
    must_reach: Offset,
) -> (Offset, Vec<OffsetRange>) {
    let mut lost = Vec::new();
    let mut next = from;
    let mut kept = 0;
    for place in places.iter() {
        if place.first > next {
            if next >= must_reach {
                break;
            }
            let to = place.first.min(must_reach) - 1;
            lost.push(OffsetRange { from: next, to });
            if place.first > must_reach {
                next = must_reach;
                break;
            }
        }
        next = next.max(place.end());
        kept += 1;
    }
    places.truncate(kept);
    if next < must_reach {
        lost.push(OffsetRange { from: next, to: must_reach - 1 });
        next = must_reach;
    }
    (next, lost)
}

impl Generation for Frames {
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        let at = self.places.partition_point(|place| place.end() <= offset);
        let Some(place) = self.places.get(at) else { return Ok(None) };
        let mut frame = vec![0; place.frame_bytes as usize];
        self.file
            .read_exact_at(&mut frame, place.position)
            .map_err(|source| WalError::Io { what: "read back from the WAL", source })?;
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let block = block::decode(&frame).map_err(damaged);
        block.map(Some).map_err(|source| WalError::Io { what: "read back from the WAL", source })
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Reading, Timestamp};

    fn frames(count: usize) -> Vec<Vec<u8>> {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let reading = |n: usize| Reading {
            device_id: format!("device-{n}"),
            timestamp: at,
            temperature: 1.0,
            humidity: 2.0,
            battery: 3.0,
        };
        let mut encoder = block::Encoder::new().unwrap();
        let mut all = Vec::new();
        for n in 0..count {
            let mut keep = |_, _, frame| all.push(frame);
            encoder.encode(n as u64, 0, &[at], &[reading(n)], &mut keep).unwrap();
        }
        all
    }

    #[test]
    fn frames_are_found_wherever_they_lie_even_across_windows() {
        let mut raw = Vec::new();
        let mut expected = Vec::new();
        for (n, frame) in frames(300).into_iter().enumerate() {
            raw.extend(std::iter::repeat_n(u8::try_from(n % 251).unwrap(), 7_919));
            raw.extend(MAGIC);
            expected.push(raw.len() as u64);
            raw.extend(frame);
        }
        let mut found = Vec::new();
        scan(raw.as_slice(), |header, position| found.push((header.first, position))).unwrap();
        let expected: Vec<_> = (0..).zip(expected).collect();
        assert_eq!(found, expected);
    }
}
