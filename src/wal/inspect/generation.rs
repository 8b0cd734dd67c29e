//! One generation, as it lies on disk.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::{InspectError, cannot_read};
use crate::wal::contract::{Bounds, Quarantined, Unreadable, generation_id};
use crate::wal::directory::quarantine::{self, REPORT};
use crate::wal::directory::{DATA_FILE, bytes_in, if_there};
use crate::wal::found::Found;
use crate::wal::frame::{Block, FrameError};
use crate::wal::index::IndexedGeneration;
use crate::wal::offset::{Offset, OffsetRange};
use crate::wal::raw::{self, RawFile};
use crate::wal::recovery::{Findings, Opened};

pub(super) struct Part {
    pub(super) first: Offset,
    /// Where the next generation begins.
    pub(super) end: Option<Offset>,
    pub(super) dir: PathBuf,
}

impl Part {
    fn file(&self) -> PathBuf {
        self.dir.join(DATA_FILE)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file().metadata().map_or(0, |file| file.len())
    }
}

/// How much is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What is not flushed; of a generation that belongs to no log everything.
    Pending,
    /// What can be read at all.
    Everything,
}

/// One generation, looked into.
pub(crate) struct ExaminedGeneration {
    pub(super) first: Offset,
    dir: PathBuf,
    pub(super) file_is_missing: bool,
    disk_bytes: u64,
    belongs_to_log: bool,
    pub(super) blocks: IndexedGeneration<RawFile>,
    pub(super) findings: Findings,
    pub(super) broken: Vec<Broken>,
    /// By version: how many, and the position of the first.
    pub(super) newer: BTreeMap<u16, (u64, u64)>,
    pub(super) unreadable_pages: Vec<u64>,
}

/// What begins as a frame does and is none.
pub(super) struct Broken {
    pub(super) position: u64,
    pub(super) error: FrameError,
    pub(super) claim: Option<Range<Offset>>,
}

impl ExaminedGeneration {
    /// Of one of which it is not known what is flushed; what was known to be lost when it was set
    /// aside is so still.
    pub(super) fn of_no_log(part: &Part, progress: &dyn Fn(u64)) -> Result<Self, InspectError> {
        let lost = report_of(&part.dir)?.map(|report| report.lost_ranges).unwrap_or_default();
        let committed = lost.iter().map(|range| range.to + 1).max().unwrap_or(0);
        let bounds = Bounds { flushed: 0, committed, end: None, unreadable: Unreadable::IsLost };
        Self::look_into(part, bounds, false, progress)
    }

    pub(super) fn look_into(
        part: &Part,
        bounds: Bounds,
        belongs_to_log: bool,
        progress: &dyn Fn(u64),
    ) -> Result<Self, InspectError> {
        let path = part.file();
        let mut broken = Vec::new();
        let mut newer = BTreeMap::new();
        let mut unreadable_pages = Vec::new();
        let mut passed = 0;
        let surveyed = raw::survey(&path, part.first, bounds, |position, found| {
            progress(position.saturating_sub(passed));
            passed = passed.max(position);
            match found {
                Found::Frame(_) => {}
                Found::Newer { version, .. } => {
                    newer.entry(version).or_insert((0, position)).0 += 1;
                }
                Found::Broken { error, claim } => broken.push(Broken { position, error, claim }),
                Found::Unreadable(_) => unreadable_pages.push(position),
            }
        });
        let (blocks, findings) = surveyed.map_err(cannot_read(&path))?;
        let file = if_there(fs::metadata(&path)).map_err(cannot_read(&path))?;
        progress(part.file_bytes().saturating_sub(passed));
        Ok(Self {
            first: part.first,
            dir: part.dir.clone(),
            file_is_missing: file.is_none(),
            disk_bytes: bytes_in(&part.dir).map_err(cannot_read(&part.dir))?,
            belongs_to_log,
            blocks,
            findings,
            broken,
            newer,
            unreadable_pages,
        })
    }

    /// The name of its directory.
    #[must_use]
    pub(crate) fn id(&self) -> String {
        generation_id(self.first)
    }

    /// The file with its blocks.
    #[must_use]
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(DATA_FILE)
    }

    /// Offset of its first record.
    #[must_use]
    pub(crate) fn first(&self) -> Offset {
        self.first
    }

    /// One past its last record.
    #[must_use]
    pub(crate) fn end(&self) -> Offset {
        self.findings.end
    }

    /// Every record below is flushed, as far as is known here.
    #[must_use]
    pub(crate) fn flushed(&self) -> Offset {
        self.findings.flushed
    }

    /// Bytes on disk.
    #[must_use]
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Whether it is known what of it is flushed.
    #[must_use]
    pub(crate) fn belongs_to_log(&self) -> bool {
        self.belongs_to_log
    }

    /// Offset at which `scope` begins.
    #[must_use]
    pub(crate) fn from(&self, scope: Scope) -> Offset {
        match scope {
            Scope::Pending if self.belongs_to_log => self.first.max(self.findings.flushed),
            _ => self.first,
        }
    }

    /// Records in `scope` that can be read, and the bytes of their blocks.
    #[must_use]
    pub(crate) fn records(&self, scope: Scope) -> (u64, u64) {
        let from = self.from(scope);
        (self.blocks.frames.records(from), self.blocks.frames.block_bytes(from))
    }

    /// Committed and not flushed, but not to be read.
    #[must_use]
    pub(crate) fn missing(&self) -> &[OffsetRange] {
        &self.findings.lost
    }

    /// Versions of its blocks that only a newer version of this program can read.
    #[must_use]
    pub(crate) fn newer_versions(&self) -> Vec<u16> {
        self.newer.keys().copied().collect()
    }

    /// The blocks with offset `from` and those behind it, or their offsets where they cannot be
    /// read; each offset once.
    pub(crate) fn blocks(
        &self,
        from: Offset,
    ) -> impl Iterator<Item = (OffsetRange, Option<Block>)> + use<'_> {
        let frames = self.blocks.frames.from(from).iter();
        frames.map(|frame| (frame.offsets(), self.blocks.read(frame).ok()))
    }

    /// Bytes of the file that stand for one of the blocks from `from` on.
    #[must_use]
    pub(crate) fn bytes_a_block(&self, from: Offset) -> u64 {
        let blocks = self.blocks.frames.from(from).len() as u64;
        fs::metadata(self.file()).map_or(0, |file| file.len()).checked_div(blocks).unwrap_or(0)
    }
}

impl Opened for ExaminedGeneration {
    fn flushed(&self) -> Offset {
        self.findings.flushed
    }

    fn end(&self) -> Offset {
        self.findings.end
    }
}

/// What was written down when the generation in `dir` was set aside.
pub(super) fn report_of(dir: &Path) -> Result<Option<Quarantined>, InspectError> {
    quarantine::report(dir).map_err(cannot_read(&dir.join(REPORT)))
}
