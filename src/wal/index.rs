//! Where the frames of a generation lie, and reading them there.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::contract::Generation;
use super::error::{ON_GENERATION, WalError};
use super::frame::{self, Block, Header};
use super::offset::{Offset, OffsetRange};
use crate::base::retry::read_again;

/// Where the frames of a generation are read from.
pub(super) trait FrameSource: Send + Sync + 'static {
    /// Fills `buffer` from `position` on.
    ///
    /// # Errors
    /// If the disk fails. That the source ends before is an error of the kind `UnexpectedEof`.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()>;

    /// Waits before a read is tried again.
    fn wait(&self, pause: Duration);

    /// Its file, as it is told to an operator.
    fn path(&self) -> &Path;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;
}

/// Where a frame lies, and what it holds.
#[derive(Clone, Copy)]
pub(super) struct FrameRef {
    first: Offset,
    pub(super) position: u64,
    records: u32,
    pub(super) frame_bytes: u32,
}

impl FrameRef {
    pub(super) fn new(position: u64, header: &Header) -> Self {
        Self {
            first: header.first,
            position,
            records: header.count,
            frame_bytes: u32::try_from(header.frame_bytes).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn first(&self) -> Offset {
        self.first
    }

    /// One past its last record.
    pub(super) fn end(&self) -> Offset {
        self.first + u64::from(self.records)
    }

    pub(super) fn offsets(&self) -> OffsetRange {
        OffsetRange { from: self.first, to: self.end() - 1 }
    }
}

/// The frames of a generation by offset, one for each: copies of one offset are equal.
#[derive(Default)]
pub(super) struct FrameIndex(Vec<FrameRef>);

impl FrameIndex {
    pub(super) fn new(mut frames: Vec<FrameRef>) -> Self {
        frames.sort_unstable_by_key(|frame| (frame.first, frame.position));
        frames.dedup_by_key(|frame| frame.first);
        frames.shrink_to_fit();
        Self(frames)
    }

    /// The frame that holds `offset`, or the first one behind it, and those behind that.
    pub(super) fn from(&self, offset: Offset) -> &[FrameRef] {
        &self.0[self.0.partition_point(|frame| frame.end() <= offset)..]
    }

    /// How many records there are from `offset` on.
    pub(super) fn records(&self, offset: Offset) -> u64 {
        self.from(offset).iter().map(|frame| frame.end() - frame.first.max(offset)).sum()
    }

    /// Bytes of the frames from the one of `offset` on.
    pub(super) fn block_bytes(&self, offset: Offset) -> u64 {
        self.from(offset).iter().map(|frame| u64::from(frame.frame_bytes)).sum()
    }
}

/// A generation that is only read.
pub(super) struct IndexedGeneration<S> {
    pub(super) source: S,
    pub(super) frames: FrameIndex,
}

impl<S: FrameSource> IndexedGeneration<S> {
    /// The block in `frame`.
    ///
    /// # Errors
    /// [`WalError::Unread`] if the disk does not read it, also when it is asked again, and
    /// [`WalError::Unreadable`] if it reads something else than a block.
    pub(super) fn read(&self, frame: &FrameRef) -> Result<Block, WalError> {
        let mut bytes = vec![0; frame.frame_bytes as usize];
        let damaged = || WalError::Unreadable { range: frame.offsets() };
        let source = &self.source;
        let read = || source.read_exact_at(&mut bytes, frame.position);
        match read_again(read, |pause| source.wait(pause)) {
            Ok(()) => frame::decode(&bytes).map_err(|_| damaged()),
            // The file was cut short under our hands.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged()),
            Err(error) => Err(WalError::unread(source.path(), ON_GENERATION)(error)),
        }
    }
}

impl<S: FrameSource> Generation for IndexedGeneration<S> {
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        self.frames.from(offset).first().map(|frame| self.read(frame)).transpose()
    }

    fn disk_bytes(&self) -> u64 {
        self.source.disk_bytes()
    }
}
