//! Reading a damaged generation: frames picked out of sled's raw file.
//!
//! sled does not report damage, it forgets: recovery stops at the first bad spot of its log, and
//! everything behind it is gone without an error. But values lie contiguous and uncompressed in
//! the `db` file, and ours are frames that carry their own offsets and checksum. A page that sled
//! rewrote leaves older copies of its frames behind; copies of one offset are equal, so any will
//! do.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::WalError;
use super::block::{self, Block, MAGIC, MAX_FRAME_BYTES, Offset};
use super::storage::{Generation, OffsetRange, Salvage};

const CHUNK_BYTES: usize = 1024 * 1024;

/// Where an intact frame lies in a raw file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Its header, checked against its body.
    pub(super) header: block::Header,
    /// Position of its first byte.
    pub(super) position: u64,
}

/// Calls `each` with every intact frame in `file`, in the order in which they lie there.
pub(super) fn scan(mut file: impl Read, mut each: impl FnMut(Found)) -> io::Result<()> {
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
                        each(Found { header, position: window_position + start as u64 });
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

/// The intact frames of a raw file as a generation that can only be read.
pub(super) struct Salvaged {
    file: Option<File>,
    /// First offset of a block → where it lies.
    frames: BTreeMap<Offset, Found>,
    trimmed: AtomicU64,
    disk_bytes: u64,
}

impl Salvaged {
    /// Finds the frames in the raw file at `path`; a file that is not there holds none.
    pub(super) fn read(
        path: &Path,
        first: Offset,
        floor: Offset,
        expected_end: Offset,
    ) -> io::Result<Salvage> {
        let mut frames = BTreeMap::new();
        let mut flushed = first.max(floor);
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(file) = &file {
            scan(file, |found| {
                if found.header.first >= first {
                    flushed = flushed.max(found.header.flushed);
                    frames.insert(found.header.first, found);
                }
            })?;
        }
        frames.retain(|_, found: &mut Found| found.header.end() > flushed);
        let disk_bytes = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|m| m.len()))?;

        let mut lost = Vec::new();
        let mut records = 0;
        let mut next = flushed;
        for Found { header, .. } in frames.values() {
            if header.first > next {
                lost.push(OffsetRange { from: next, to: header.first - 1 });
            }
            records += header.end().saturating_sub(next.max(header.first));
            next = next.max(header.end());
        }
        if expected_end > next {
            lost.push(OffsetRange { from: next, to: expected_end - 1 });
        }
        let end = next.max(expected_end);
        let generation = Arc::new(Self { file, frames, trimmed: flushed.into(), disk_bytes });
        Ok(Salvage { generation, end, records, lost })
    }

    fn read_frame(&self, found: Found) -> Result<Block, WalError> {
        let damaged = |what: String| WalError::Damaged { what };
        let file = self.file.as_ref().ok_or_else(|| damaged("no raw file".to_owned()))?;
        let mut frame = vec![0; found.header.frame_bytes];
        file.read_exact_at(&mut frame, found.position).map_err(|e| damaged(e.to_string()))?;
        block::decode(&frame).map_err(|error| damaged(error.to_string()))
    }
}

impl Generation for Salvaged {
    fn insert(&self, _: Offset, _: &[u8]) -> Result<(), WalError> {
        Err(WalError::ReadOnly)
    }

    fn sync(&self) -> Result<(), WalError> {
        Err(WalError::ReadOnly)
    }

    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        let holding = self.frames.range(..=offset).next_back().map(|(_, found)| *found);
        let holding = holding.filter(|found| found.header.end() > offset);
        let found = holding.or_else(|| self.frames.range(offset..).next().map(|(_, found)| *found));
        found.map(|found| self.read_frame(found)).transpose()
    }

    fn end(&self) -> Result<Offset, WalError> {
        Ok(self.frames.values().map(|found| found.header.end()).max().unwrap_or(0))
    }

    fn trim(&self, flushed: Offset) -> Result<(), WalError> {
        self.trimmed.fetch_max(flushed, Ordering::Relaxed);
        Ok(())
    }

    fn trimmed(&self) -> Offset {
        self.trimmed.load(Ordering::Relaxed)
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
        scan(raw.as_slice(), |frame| found.push((frame.header.first, frame.position))).unwrap();
        let expected: Vec<_> = (0..).zip(expected).collect();
        assert_eq!(found, expected);
    }
}
