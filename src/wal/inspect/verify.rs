//! What is wrong in a generation, and where.
//!
//! A damaged block is not always a loss. sled rewrites pages, so a block may be there twice; and a
//! crash cuts off what is being written, which was not acknowledged or is only a copy. Neither of
//! the latter is damage: the log is made so that it does not matter.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::generation::{Broken, ExaminedGeneration};
use crate::wal::error::WalError;
use crate::wal::frame::FrameError;
use crate::wal::index::FrameRef;
use crate::wal::offset::{Offset, OffsetRange};
use crate::wal::raw::PAGE_BYTES;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The file with the blocks is gone.
    MissingFile,
    /// The disk does not give a page back.
    UnreadablePage {
        /// In the file.
        position: u64,
    },
    /// A block that is damaged.
    Block {
        /// In the file.
        position: u64,
        /// What it holds, as far as that is still known.
        offsets: Option<OffsetRange>,
        /// What is wrong with it.
        error: FrameError,
        /// What that means.
        meaning: Meaning,
    },
    /// Blocks that are not damaged, but newer than this program.
    Newer {
        /// Their format.
        version: u16,
        /// How many there are.
        blocks: u64,
        /// The first of them, in the file.
        position: u64,
    },
    /// Committed, not flushed, and in no block that can be read.
    Gap {
        /// What is missing.
        offsets: OffsetRange,
        /// Where it lay, in the file.
        position: Range<Option<u64>>,
        /// Blocks of a newer version may hold it.
        is_newer: bool,
        /// Pages that the disk does not give back may hold it.
        is_unread: bool,
    },
}

/// What a damaged block means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Readings are gone.
    Lost,
    /// The same block is intact elsewhere in the file.
    Copied,
    /// Its readings are in the database.
    Flushed,
    /// It was being written when the process or the power went: no damage.
    CutOff,
    /// Not even what it held is known.
    Unknown,
}

impl Finding {
    /// Whether something is wrong.
    #[must_use]
    pub(crate) fn is_wrong(&self) -> bool {
        !matches!(self, Self::Block { meaning: Meaning::CutOff, .. })
    }
}

impl ExaminedGeneration {
    /// Reads and decodes every block. `progress` is called after each.
    pub(crate) fn verify(&self, mut progress: impl FnMut()) -> Vec<Finding> {
        let mut found = Vec::new();
        if self.file_is_missing {
            found.push(Finding::MissingFile);
        }
        let pages = self.unreadable_pages.iter();
        found.extend(pages.map(|position| Finding::UnreadablePage { position: *position }));
        found.extend(self.broken.iter().map(|broken| self.finding(broken)));
        for frame in self.blocks.frames.from(0) {
            let read = self.blocks.read(frame);
            if let Err(WalError::Unreadable { .. }) = read {
                let offsets = frame.offsets();
                let is_flushed = offsets.to < self.findings.flushed;
                found.push(Finding::Block {
                    position: frame.position,
                    offsets: Some(offsets),
                    error: FrameError::Body,
                    meaning: if is_flushed { Meaning::Flushed } else { Meaning::Lost },
                });
            } else if read.is_err() {
                found.push(Finding::UnreadablePage { position: frame.position });
            }
            progress();
        }
        found.extend(self.newer.iter().map(|(version, (blocks, position))| Finding::Newer {
            version: *version,
            blocks: *blocks,
            position: *position,
        }));
        found.extend(self.findings.lost.iter().map(|offsets| Finding::Gap {
            offsets: *offsets,
            position: self.surroundings(*offsets),
            is_newer: !self.newer.is_empty(),
            is_unread: !self.unreadable_pages.is_empty(),
        }));
        found
    }

    fn finding(&self, broken: &Broken) -> Finding {
        let Broken { position, error, claim } = broken;
        // What lies before the generation is not in it.
        let claim = claim.clone().filter(|claim| claim.start >= self.first);
        let meaning =
            claim.clone().map_or(Meaning::Unknown, |claim| self.meaning(*position, claim));
        let known = claim.filter(|_| meaning != Meaning::Unknown);
        let offsets = known.map(|claim| OffsetRange { from: claim.start, to: claim.end - 1 });
        Finding::Block { position: *position, offsets, error: *error, meaning }
    }

    fn meaning(&self, position: u64, claim: Range<Offset>) -> Meaning {
        let (frames, findings) = (&self.blocks.frames, &self.findings);
        let overlaps = |range: &OffsetRange| range.from < claim.end && range.to >= claim.start;
        let intact = frames.from(claim.start).first();
        if let Some(intact) = intact.filter(|frame| frame.offsets().from == claim.start) {
            let is_cut_off = was_cut_off(&self.blocks.source.file, position, intact);
            return if is_cut_off { Meaning::CutOff } else { Meaning::Copied };
        }
        if findings.lost.iter().any(overlaps) {
            Meaning::Lost
        } else if claim.start >= findings.end || findings.cut_off.iter().any(overlaps) {
            Meaning::CutOff
        } else if claim.end <= findings.flushed {
            Meaning::Flushed
        } else {
            Meaning::Unknown
        }
    }

    /// The ends of the blocks before and behind missing offsets, if they lie in that order.
    fn surroundings(&self, missing: OffsetRange) -> Range<Option<u64>> {
        let behind = self.blocks.frames.from(missing.to);
        let all = self.blocks.frames.from(0);
        let before = all[..all.len() - behind.len()].last();
        let start = before.map(|frame| frame.position + u64::from(frame.frame_bytes));
        let end = behind.first().map(|frame| frame.position);
        let in_order = start.zip(end).is_none_or(|(start, end)| start <= end);
        if in_order { start..end } else { None..None }
    }
}

/// Whether a damaged copy of the block at `intact` is one whose writing was cut off. A crash leaves
/// each page of the file as it was to be or as it had been, and anything else hits a part of a page.
fn was_cut_off(file: &File, position: u64, intact: &FrameRef) -> bool {
    let bytes = intact.frame_bytes as usize;
    let (mut copy, mut whole) = (vec![0; bytes], vec![0; bytes]);
    let Ok(length) = file.read_at(&mut copy, position) else { return false };
    if file.read_exact_at(&mut whole, intact.position).is_err() {
        return false;
    }
    let mut at = 0;
    while at < length {
        let in_page = (position + at as u64) % PAGE_BYTES as u64;
        let end = length.min(at + PAGE_BYTES - usize::try_from(in_page).unwrap_or(0));
        let equal = copy[at..end].iter().zip(&whole[at..end]).filter(|(a, b)| a == b).count();
        if equal < end - at && equal * 2 > end - at {
            return false;
        }
        at = end;
    }
    true
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingFile => f.write_str("the file is missing"),
            Self::UnreadablePage { position } => {
                write!(f, "byte {position}: the disk cannot read this page")
            }
            Self::Block { position, offsets, error, meaning } => {
                let what = match meaning {
                    Meaning::CutOff => "cut-off block",
                    _ => "damaged block",
                };
                write!(f, "byte {position}: {what}")?;
                if let Some(OffsetRange { from, to }) = offsets {
                    write!(f, " of offsets {from} to {to}")?;
                }
                write!(f, ", {error}: {meaning}")
            }
            Self::Newer { version, blocks, position } => write!(
                f,
                "byte {position}: block version {version}, written by a newer version of this program, which can read it ({blocks} such blocks)"
            ),
            Self::Gap { offsets: OffsetRange { from, to }, position, is_newer, is_unread } => {
                let what = match (is_newer, is_unread) {
                    (true, _) => "are in no block that this version can read",
                    (false, true) => "are in no block that the disk gives back",
                    (false, false) => "are lost",
                };
                write!(f, "offsets {from} to {to} {what}")?;
                match (position.start, position.end) {
                    (Some(start), Some(end)) => write!(f, ", between byte {start} and byte {end}"),
                    (Some(start), None) => write!(f, ", behind byte {start}"),
                    (None, Some(end)) => write!(f, ", before byte {end}"),
                    (None, None) => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "its readings are lost",
            Self::Copied => "nothing is lost, an intact copy is in the same file",
            Self::Flushed => "nothing is lost, its readings were flushed",
            Self::CutOff => {
                "nothing is lost, it was being written when the process or the power went"
            }
            Self::Unknown => "its header is damaged too",
        })
    }
}
