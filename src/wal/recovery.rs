//! What an earlier process left behind: what of it is flushed, where the log ends, and what is lost.
//! Decided here alone, for the service when it starts and opens a generation, and for the inspector.
//!
//! Three things say how far the log had come, and each may be behind: the positions that were written
//! down, which a power cut can take; the headers of the frames, each of which says up to where the log
//! was committed and flushed when it was written; and the names of the generations, as one begins where
//! the one before it ends. The highest counts.
//!
//! What a generation's file holds, and what is made of it:
//! - Pages that sled rewrote leave older copies of their frames behind. Copies of one offset are
//!   equal, so any will do.
//! - Frames of records that were flushed, given up or not. Nothing below the highest flushed offset is
//!   missed.
//! - The group that was being written when the process or the power went. A hole below the highest
//!   committed offset is damage, a hole above it is in a group that was cut off. What is intact counts
//!   in both cases.
//! - Frames of a version that this one does not know. Their offsets are, and so they are as good as
//!   lost to this process; the generation says so, and is kept for a version that can read them.

use std::sync::Arc;

use super::contract::{Bounds, Generation, Positions, Quarantined, Sealed, Unreadable};
use super::found::Found;
use super::index::{FrameIndex, FrameRef, FrameSource, IndexedGeneration};
use super::offset::{Offset, OffsetRange, merged};

/// What is found in one generation, as it is gathered.
pub(super) struct Survey {
    first: Offset,
    bounds: Bounds,
    flushed: Offset,
    committed: Offset,
    unknown_version: Option<u16>,
    is_read_whole: bool,
    frames: Vec<FrameRef>,
}

/// What a generation holds, and what it does not.
pub(super) struct Findings {
    /// As [`Sealed::flushed`].
    pub(super) flushed: Offset,
    /// As [`Sealed::retained`].
    pub(super) retained: Offset,
    /// As [`Sealed::end`].
    pub(super) end: Offset,
    /// As [`Sealed::lost`].
    pub(super) lost: Vec<OffsetRange>,
    /// Of a commit that never ended.
    pub(super) cut_off: Vec<OffsetRange>,
    /// As [`Sealed::unknown_version`].
    pub(super) unknown_version: Option<u16>,
    /// As [`Sealed::is_read_whole`].
    pub(super) is_read_whole: bool,
}

impl Survey {
    /// Of the generation that begins at `first`.
    pub(super) fn new(first: Offset, bounds: Bounds) -> Self {
        Self {
            first,
            bounds,
            flushed: bounds.flushed,
            committed: first.max(bounds.committed),
            unknown_version: None,
            is_read_whole: true,
            frames: Vec::new(),
        }
    }

    /// Takes account of what is at `position`.
    pub(super) fn add(&mut self, position: u64, found: &Found) {
        if let Found::Newer { version, .. } = found {
            self.unknown_version = self.unknown_version.max(Some(*version));
        }
        self.is_read_whole &= !matches!(found, Found::Unreadable(_));
        let Some(header) = found.header() else { return };
        if header.first < self.first || self.bounds.end.is_some_and(|end| header.first >= end) {
            return;
        }
        self.flushed = self.flushed.max(header.flushed);
        self.committed = self.committed.max(header.committed);
        if matches!(found, Found::Frame(_)) {
            self.frames.push(FrameRef::new(position, &header));
        } else {
            // It is there, whole: nothing of a group that was cut off.
            self.committed = self.committed.max(header.end());
        }
    }

    /// The frames, and what is to be said of them.
    pub(super) fn finish(self) -> (FrameIndex, Findings) {
        let Self { first, bounds, flushed, committed, unknown_version, is_read_whole, frames } =
            self;
        let frames = FrameIndex::new(frames);
        let must_reach = bounds.end.unwrap_or(committed);
        let (end, missing) = continuity(frames.from(flushed), first.max(flushed), must_reach);
        let (lost, cut_off) =
            missing.into_iter().partition::<Vec<_>, _>(|range| range.from < must_reach);
        let lost = merged(lost);
        // Where all of it is flushed, the flushed offset lies beyond.
        let end = bounds.end.unwrap_or(end);
        let retained = unbroken(frames.from(0), flushed.clamp(first, end.max(first)));
        let findings =
            Findings { flushed, retained, end, lost, cut_off, unknown_version, is_read_whole };
        (frames, findings)
    }
}

/// Where the records end, and what is missing between `from` and there. Of what is missing, only
/// what lies below `must_reach` is known to have been committed.
fn continuity(frames: &[FrameRef], from: Offset, must_reach: Offset) -> (Offset, Vec<OffsetRange>) {
    let mut missing = Vec::new();
    let mut next = from;
    for frame in frames {
        if frame.first() > next {
            missing.push(OffsetRange { from: next, to: frame.first() - 1 });
        }
        next = next.max(frame.end());
    }
    if next < must_reach {
        missing.push(OffsetRange { from: next, to: must_reach - 1 });
    }
    (next.max(must_reach), missing)
}

/// From where on everything up to `to` is there.
fn unbroken(frames: &[FrameRef], to: Offset) -> Offset {
    let mut start = to;
    let mut next = None;
    for frame in frames.iter().take_while(|frame| frame.first() < to) {
        if next.is_none_or(|next| frame.first() > next) {
            start = frame.first();
        }
        next = next.max(Some(frame.end()));
    }
    if next.is_some_and(|next| next >= to) { start } else { to }
}

impl Findings {
    /// The generation that begins at `first`, ready to be read.
    pub(super) fn seal<S: FrameSource>(
        self,
        first: Offset,
        generation: IndexedGeneration<S>,
    ) -> Sealed {
        let Self { flushed, retained, end, lost, unknown_version, is_read_whole, .. } = self;
        let frames = &generation.frames;
        let (records, block_bytes) = (frames.records(first.max(flushed)), frames.block_bytes(0));
        let generation: Arc<dyn Generation> = Arc::new(generation);
        Sealed {
            generation,
            flushed,
            retained,
            end,
            records,
            block_bytes,
            lost,
            is_read_whole,
            unknown_version,
        }
    }
}

/// A generation that was looked into.
pub(super) trait Opened {
    /// As [`Sealed::flushed`].
    fn flushed(&self) -> Offset;

    /// As [`Sealed::end`].
    fn end(&self) -> Offset;
}

impl Opened for Sealed {
    fn flushed(&self) -> Offset {
        self.flushed
    }

    fn end(&self) -> Offset {
        self.end
    }
}

/// The state of a log whose process has ended.
pub(super) struct Recovered<G> {
    /// Every record below was flushed.
    pub(super) flushed: Offset,
    /// The offset that the next record gets.
    pub(super) next: Offset,
    /// The newest generation, if it never held a record, or none that this version can read.
    pub(super) without_records: Option<(Offset, G)>,
    /// The newest generation with records.
    pub(super) newest: Option<(Offset, G)>,
    /// What was committed and not flushed in generations that are not there any more.
    pub(super) gone: Option<OffsetRange>,
}

/// Where each of the generations that begin at `firsts`, oldest first, ends: where the next one begins. But if
/// one between them was set aside because nothing of it could be read, offsets were skipped behind it that
/// it may have held, and the one before it ends where it began: those are not missed there.
pub(super) fn with_ends(
    firsts: &[Offset],
    set_aside: &[Quarantined],
) -> Vec<(Offset, Option<Offset>)> {
    let end = |at: usize| {
        let (first, next) = (firsts[at], *firsts.get(at + 1)?);
        let skipped = set_aside.iter().filter(|report| report.resumed_at == Some(next));
        let began = skipped.filter_map(|report| report.id.parse::<Offset>().ok());
        Some(began.filter(|began| (first..next).contains(began)).min().unwrap_or(next))
    };
    (0..firsts.len()).map(|at| (firsts[at], end(at))).collect()
}

/// Finds out how far a log with these `generations`, as [`with_ends`] lists them, had come. Only the newest with a
/// record is looked into, and one behind it without any, so this takes the same time however much waits.
/// `unreadable` says of each what is made of what the disk does not read.
///
/// # Errors
/// Those of `open`.
pub(super) fn recover<G: Opened, E>(
    written: Option<Positions>,
    generations: &[(Offset, Option<Offset>)],
    unreadable: impl Fn(Offset) -> Unreadable,
    mut open: impl FnMut(Offset, Bounds) -> Result<G, E>,
) -> Result<Recovered<G>, E> {
    let Positions { committed, mut flushed } = written.unwrap_or_default();
    let mut next = committed;
    let (mut without_records, mut newest) = (None, None);
    for (first, end) in generations.iter().rev().copied() {
        let committed = if end.is_none() { committed } else { first };
        let opened =
            open(first, Bounds { flushed, committed, end, unreadable: unreadable(first) })?;
        flushed = flushed.max(opened.flushed());
        if end.is_none() {
            next = opened.end();
        }
        if opened.end() > first {
            newest = Some((first, opened));
            break;
        }
        without_records = Some((first, opened));
    }
    let with_records = generations.len() - usize::from(without_records.is_some());
    let oldest = generations[..with_records].first().map(|(first, _)| *first);
    let start = oldest.unwrap_or(next);
    // The positions are never behind what was deleted; without them nobody knows.
    let is_gone = written.is_some() && flushed < start;
    let gone = is_gone.then(|| OffsetRange { from: flushed, to: start - 1 });
    // If nothing is left, nothing waits.
    let flushed = oldest.map_or(next, |oldest| flushed.clamp(oldest, next));
    Ok(Recovered { flushed, next, without_records, newest, gone })
}

/// The bounds of an older generation, which ends where the next one begins.
pub(super) fn bounds_of_older(
    first: Offset,
    end: Offset,
    flushed: Offset,
    unreadable: Unreadable,
) -> Bounds {
    Bounds { flushed, committed: first, end: Some(end), unreadable }
}
