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
//!   damage, a hole above it is in a group that was cut off. What is intact counts in both cases.
//! - Frames of a version that this one does not know. Their offsets are, and so they are as good as
//!   lost to this process; the generation says so, and is kept for a version that can read them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::contract::{Generation, Known, Sealed};
use super::error::WalError;
use super::frame::{self, Block, FrameError, Header, MAGIC, MAX_FRAME_BYTES, Offset, OffsetRange};

const CHUNK_BYTES: usize = 1024 * 1024;

pub(super) const PAGE_BYTES: usize = 4_096;

/// What there is at a position of a raw file.
pub(super) enum Sight {
    /// An intact frame.
    Frame(Header),
    /// A frame of a version that this one does not know.
    Unknown {
        version: u16,
        /// What is in it. What stands there is the same in every version, and its checksum is right.
        header: Header,
    },
    /// What begins as a frame does, and is none.
    Broken {
        error: FrameError,
        /// The offsets that it claims to hold.
        claim: Option<Range<Offset>>,
    },
    /// A page that the disk cannot read; it is taken for zeros.
    Unreadable(io::Error),
}

impl Sight {
    fn of(bytes: &[u8]) -> Self {
        match frame::check(bytes) {
            Ok(header) => Self::Frame(header),
            Err(FrameError::UnknownVersion(version)) => match frame::envelope(bytes) {
                Ok(header) => Self::Unknown { version, header },
                Err(error) => Self::Broken { error, claim: frame::claim(bytes) },
            },
            Err(error) => Self::Broken { error, claim: frame::claim(bytes) },
        }
    }

    /// What is in it, if it is a whole frame.
    fn header(&self) -> Option<Header> {
        match self {
            Self::Frame(header) | Self::Unknown { header, .. } => Some(*header),
            Self::Broken { .. } | Self::Unreadable(_) => None,
        }
    }
}

/// Calls `each` with what is found in `file`, frames in the order in which they lie there, each with
/// its position.
pub(super) fn scan(file: &File, mut each: impl FnMut(u64, Sight)) -> io::Result<()> {
    let finder = memchr::memmem::Finder::new(&MAGIC);
    let length = file.metadata()?.len();
    let mut window = Vec::with_capacity(CHUNK_BYTES + MAX_FRAME_BYTES);
    let mut window_position = 0;
    loop {
        let end = window_position + window.len() as u64;
        let bytes = usize::try_from(length.saturating_sub(end)).unwrap_or(CHUNK_BYTES);
        let bytes = bytes.min(CHUNK_BYTES);
        read_on(file, end, bytes, &mut window, &mut each);
        // A frame that begins in the last stretch may be cut off by the window's end.
        let cut_off = if bytes == 0 { 0 } else { MAX_FRAME_BYTES };
        let complete = window.len().saturating_sub(cut_off);
        let mut at = 0;
        while let Some(hit) = finder.find(&window[at..]) {
            let start = at + hit;
            if start >= complete {
                break;
            }
            let sight = Sight::of(&window[start..]);
            at = start + sight.header().map_or(1, |header| header.frame_bytes);
            each(window_position + start as u64, sight);
        }
        if bytes == 0 {
            return Ok(());
        }
        let done = complete.max(at).min(window.len());
        window.drain(..done);
        window_position += done as u64;
    }
}

/// Adds `bytes` bytes from `position` on to `window`, zeros where the disk cannot read.
fn read_on(
    file: &File,
    position: u64,
    bytes: usize,
    window: &mut Vec<u8>,
    each: &mut impl FnMut(u64, Sight),
) {
    let start = window.len();
    window.resize(start + bytes, 0);
    let chunk = &mut window[start..];
    if file.read_exact_at(chunk, position).is_ok() {
        return;
    }
    for (page, at) in chunk.chunks_mut(PAGE_BYTES).zip((position..).step_by(PAGE_BYTES)) {
        if let Err(error) = file.read_exact_at(page, at) {
            each(at, Sight::Unreadable(error));
            page.fill(0);
        }
    }
}

/// Where a frame lies, and what it holds.
#[derive(Clone, Copy)]
pub(super) struct Place {
    first: Offset,
    pub(super) position: u64,
    records: u32,
    pub(super) frame_bytes: u32,
}

impl Place {
    fn end(&self) -> Offset {
        self.first + u64::from(self.records)
    }

    pub(super) fn offsets(&self) -> OffsetRange {
        OffsetRange { from: self.first, to: self.end() - 1 }
    }
}

/// The frames of a raw file.
pub(super) struct Frames {
    pub(super) file: File,
    /// Ordered by offset, one for each.
    places: Vec<Place>,
    disk_bytes: u64,
}

/// What a raw file holds, and what it does not.
pub(super) struct Survey {
    /// All of them, flushed or not.
    pub(super) frames: Frames,
    /// As [`Sealed::flushed`].
    pub(super) flushed: Offset,
    /// As [`Sealed::end`].
    pub(super) end: Offset,
    /// As [`Sealed::lost`].
    pub(super) lost: Vec<OffsetRange>,
    /// Of a commit that never ended.
    pub(super) cut_off: Vec<OffsetRange>,
    /// As [`Sealed::unknown_version`].
    pub(super) unknown_version: Option<u16>,
}

/// Looks for frames in the raw file at `path`, of the generation that begins at `first`, and calls
/// `each` with everything that it sees. A file that is not there holds nothing.
pub(super) fn survey(
    path: &Path,
    first: Offset,
    known: Known,
    mut each: impl FnMut(u64, Sight),
) -> io::Result<Survey> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open("/dev/null")?,
        Err(error) => return Err(error),
    };
    let mut places = Vec::new();
    let mut flushed = known.flushed;
    let mut committed = first.max(known.committed);
    let mut unknown_version = None;
    scan(&file, |position, sight| {
        if let Sight::Unknown { version, .. } = sight {
            unknown_version = unknown_version.max(Some(version));
        }
        let is_ours = |header: &Header| {
            header.first >= first && known.end.is_none_or(|end| header.first < end)
        };
        if let Some(header) = sight.header().filter(is_ours) {
            flushed = flushed.max(header.flushed);
            committed = committed.max(header.committed);
            if matches!(sight, Sight::Frame(_)) {
                places.push(Place {
                    first: header.first,
                    position,
                    records: header.count,
                    frame_bytes: u32::try_from(header.frame_bytes).unwrap_or(u32::MAX),
                });
            } else {
                // It is there, whole: nothing of a group that was cut off.
                committed = committed.max(header.end());
            }
        }
        each(position, sight);
    })?;
    places.sort_unstable_by_key(|place| (place.first, place.position));
    places.dedup_by_key(|place| place.first);
    places.shrink_to_fit();
    let disk_bytes = file.metadata()?.len();
    let frames = Frames { file, places, disk_bytes };

    let must_reach = known.end.unwrap_or(committed);
    let (end, missing) = continuity(frames.from(flushed), first.max(flushed), must_reach);
    let (lost, cut_off) = missing.into_iter().partition(|range| range.from < must_reach);
    Ok(Survey { frames, flushed, end, lost, cut_off, unknown_version })
}

/// Finds the frames in the raw file at `path`, of the generation that begins at `first`. A file
/// that is not there holds none.
pub(super) fn open(path: &Path, first: Offset, known: Known) -> io::Result<Sealed> {
    let found = survey(path, first, known, |position, sight| {
        if let Sight::Unreadable(error) = sight {
            tracing::error!(position, %error, "a page of a WAL generation cannot be read");
        }
    })?;
    let Survey { mut frames, flushed, end, lost, cut_off, unknown_version } = found;
    for OffsetRange { from, to } in cut_off {
        tracing::warn!(
            from,
            to,
            "these offsets of the last commit group are not in the log: it was cut off while it was written, and was not acknowledged"
        );
    }
    let (records, block_bytes) = (frames.records(first.max(flushed)), frames.block_bytes(0));
    frames.places.retain(|place| place.end() > flushed);
    frames.places.shrink_to_fit();
    let generation = Arc::new(frames);
    Ok(Sealed { generation, flushed, end, records, block_bytes, lost, unknown_version })
}

/// Where the records end, and what is missing between `from` and there. Of what is missing, only
/// what lies below `must_reach` is known to have been committed.
fn continuity(places: &[Place], from: Offset, must_reach: Offset) -> (Offset, Vec<OffsetRange>) {
    let mut missing = Vec::new();
    let mut next = from;
    for place in places {
        if place.first > next {
            missing.push(OffsetRange { from: next, to: place.first - 1 });
        }
        next = next.max(place.end());
    }
    if next < must_reach {
        missing.push(OffsetRange { from: next, to: must_reach - 1 });
    }
    (next.max(must_reach), missing)
}

impl Frames {
    /// Where the record at `offset` lies and those behind it.
    pub(super) fn from(&self, offset: Offset) -> &[Place] {
        &self.places[self.places.partition_point(|place| place.end() <= offset)..]
    }

    /// How many records there are from `offset` on.
    pub(super) fn records(&self, offset: Offset) -> u64 {
        self.from(offset).iter().map(|place| place.end() - place.first.max(offset)).sum()
    }

    /// Bytes of the blocks from the one of `offset` on.
    pub(super) fn block_bytes(&self, offset: Offset) -> u64 {
        self.from(offset).iter().map(|place| u64::from(place.frame_bytes)).sum()
    }

    /// The block at `place`.
    pub(super) fn read(&self, place: &Place) -> Result<Block, WalError> {
        let mut frame = vec![0; place.frame_bytes as usize];
        let read = self.file.read_exact_at(&mut frame, place.position);
        let block = read.ok().and_then(|()| frame::decode(&frame).ok());
        block.ok_or_else(|| WalError::Unreadable { range: place.offsets() })
    }
}

impl Generation for Frames {
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        self.from(offset).first().map(|place| self.read(place)).transpose()
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::telemetry::Reading;

    fn frames(count: usize) -> Vec<Vec<u8>> {
        let at = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let reading = |n: usize| Reading {
            device_id: format!("device-{n}"),
            timestamp: at,
            values: [1.0, 2.0, 3.0],
        };
        let mut encoder = frame::Encoder::new().unwrap();
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
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &raw).unwrap();
        scan(&file, |position, sight| match sight {
            Sight::Frame(header) => found.push((header.first, position)),
            // The magic bytes alone are no frame of any version.
            Sight::Unknown { version, .. } => panic!("a frame of version {version}"),
            Sight::Broken { .. } | Sight::Unreadable(_) => {}
        })
        .unwrap();
        let expected: Vec<_> = (0..).zip(expected).collect();
        assert_eq!(found, expected);
    }
}
