//! The segments together: ids, room, and which segment goes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::letter::{DeadLetter, DeadLetterError, Fill, Page};
use super::line::Entry;
use super::segment::{Class, Place, Segment, parse_name};
use crate::telemetry::rejection::Stage;

/// The store is cut into so many segments at least, so that eviction takes an eighth at most.
const SEGMENTS: u64 = 8;

/// Segments of acknowledged readings are shorter: their space comes back only when all of a segment
/// has been replayed or deleted.
const DATABASE_SEGMENTS: u64 = 32;

/// This share is left to what is rejected: the intake cannot go on without a place for it.
const SHARE_OF_REJECTED: u64 = 4;

/// What no mapping takes may fill an eighth.
pub(super) const SHARE_OF_UNMATCHED: u64 = 8;

/// Bytes that are written, and synced, at once: progress can be seen in between.
const STEP_BYTES: usize = 1024 * 1024;

pub(super) struct Store {
    dir: PathBuf,
    pub(super) max_bytes: u64,
    /// Oldest first, by a number that is theirs while they are open.
    pub(super) segments: BTreeMap<u32, Segment>,
    next_number: u32,
    /// First id → line.
    lines: BTreeMap<u64, Place>,
    next_id: u64,
}

impl Store {
    pub(super) fn open(dir: &Path, max_bytes: u64) -> Result<Self, DeadLetterError> {
        let names = Self::names(dir).map_err(DeadLetterError::of_opening)?;
        let mut store = Self {
            dir: dir.to_owned(),
            max_bytes,
            segments: BTreeMap::new(),
            next_number: 0,
            lines: BTreeMap::new(),
            next_id: 0,
        };
        let mut removed = Vec::new();
        for (first, class) in names {
            let (segment, found) = Segment::open(dir, first, class, store.next_number)?;
            store.next_id = store.next_id.max(segment.end);
            store.lines.extend(found.lines);
            removed.extend(found.removed);
            store.add(segment);
        }
        // The segment that says so may go before the one that it speaks of.
        for id in removed {
            store.next_id = store.next_id.max(id + 1);
            store.remove(id).map_err(DeadLetterError::of_opening)?;
        }
        store.drop_empty();
        Ok(store)
    }

    /// The segments in `dir`, which is made if it is not there, oldest first.
    fn names(dir: &Path) -> io::Result<Vec<(u64, Class)>> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().to_str().and_then(parse_name));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn add(&mut self, segment: Segment) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        self.segments.insert(number, segment);
        number
    }

    /// Stores `entries`, durably; calls `evicted` with the letters that had to go for it.
    ///
    /// # Errors
    /// If that is not certain; some of them may be there.
    pub(super) fn append(
        &mut self,
        entries: &[Entry<'_>],
        evicted: &mut dyn FnMut(u64),
    ) -> Result<(), DeadLetterError> {
        for class in Class::ALL {
            let mut entries = entries.iter().filter(|entry| class_of(entry) == class).peekable();
            while entries.peek().is_some() {
                self.append_some(class, &mut entries, evicted)?;
            }
        }
        Ok(())
    }

    /// Stores as many as go into one segment and into one step.
    fn append_some<'e>(
        &mut self,
        class: Class,
        entries: &mut std::iter::Peekable<impl Iterator<Item = &'e Entry<'e>>>,
        evicted: &mut dyn FnMut(u64),
    ) -> Result<(), DeadLetterError> {
        let writing = |source| DeadLetterError::Io { what: "write dead letters", source };
        let limit = self.segment_bytes(class);
        let newest = self.newest(class).filter(|segment| segment.bytes < limit);
        let begin = newest.map_or(0, |segment| segment.bytes);
        let is_new = newest.is_none();
        let mut text = Vec::new();
        let mut lines = Vec::new();
        let mut id = self.next_id;
        while let Some(entry) = entries.peek() {
            let line = entry.line(id).map_err(writing)?;
            let is_over = begin + (text.len() + line.len()) as u64 > limit;
            if !lines.is_empty() && (is_over || text.len() + line.len() > STEP_BYTES) {
                break;
            }
            let position = begin + text.len() as u64;
            let place = Place {
                segment: 0,
                position: u32::try_from(position).map_err(io::Error::other).map_err(writing)?,
                bytes: u32::try_from(line.len()).map_err(io::Error::other).map_err(writing)?,
                count: entry.count(),
                live: entry.count(),
                stage: entry.stage(),
            };
            lines.push((id, place));
            id += u64::from(entry.count());
            text.extend_from_slice(&line);
            entries.next();
        }
        self.make_room(class, text.len() as u64, evicted)?;
        if is_new {
            let segment = Segment::create(&self.dir, self.next_id, class).map_err(writing)?;
            self.add(segment);
        }
        let newest = self.segments.iter_mut().rev().find(|(_, segment)| segment.class == class);
        let Some((&number, segment)) = newest else {
            return Err(writing(io::Error::other("no segment")));
        };
        for (_, place) in &mut lines {
            place.segment = number;
        }
        if let Err(error) = segment.append(&text, &lines) {
            if segment.bytes == 0 && segment.delete().is_ok() {
                self.segments.remove(&number);
            }
            return Err(writing(error));
        }
        self.lines.extend(lines);
        self.next_id = id;
        Ok(())
    }

    /// Deletes a segment; how many letters were in it, and how many bytes.
    pub(super) fn drop_segment(&mut self, number: u32) -> io::Result<(u64, u64)> {
        let Some(segment) = self.segments.get(&number) else { return Ok((0, 0)) };
        segment.delete()?;
        let dropped = (segment.live, segment.bytes);
        self.segments.remove(&number);
        self.lines.retain(|_, place| place.segment != number);
        Ok(dropped)
    }

    /// Deletes the segments without a letter, but for the one that says which ids were given out.
    fn drop_empty(&mut self) {
        let next_id = self.next_id;
        let is_empty = |segment: &Segment| segment.live == 0 && segment.end < next_id;
        let empty = self.segments.iter().filter(|(_, segment)| is_empty(segment));
        for number in empty.map(|(number, _)| *number).collect::<Vec<_>>() {
            if let Err(error) = self.drop_segment(number) {
                tracing::warn!(%error, "an empty dead-letter segment cannot be deleted: trying again with the next letter");
            }
        }
    }

    /// Removes the letter `id`, durably; false if it is not there. Works on a full disk.
    pub(super) fn remove(&mut self, id: u64) -> io::Result<bool> {
        let Some((first, place, part)) = self.holding(id) else { return Ok(false) };
        let Some(segment) = self.segments.get_mut(&place.segment) else { return Ok(false) };
        if !segment.remove(place, part)? {
            return Ok(false);
        }
        let is_empty = segment.live == 0;
        if let Some(place) = self.lines.get_mut(&first) {
            place.live -= 1;
        }
        if is_empty {
            self.drop_empty();
        }
        Ok(true)
    }

    pub(super) fn get(&self, id: u64) -> io::Result<Option<DeadLetter>> {
        let Some((_, place, part)) = self.holding(id) else { return Ok(None) };
        self.segments.get(&place.segment).map_or(Ok(None), |segment| segment.letter(place, part))
    }

    /// Up to `limit` letters with ids above `after`; damaged ones are passed over.
    pub(super) fn page(&self, after: Option<u64>, limit: usize) -> io::Result<Page> {
        let from = after.map_or(0, |id| id.saturating_add(1));
        let begun = self.lines.range(..from).next_back();
        let begun = begun.filter(|(first, place)| *first + u64::from(place.count) > from);
        let mut letters: Vec<DeadLetter> = Vec::new();
        let mut last = None;
        for (first, place) in begun.into_iter().chain(self.lines.range(from..)) {
            let Some(segment) = self.segments.get(&place.segment) else { continue };
            let parts = (0..place.count).filter(|part| first + u64::from(*part) >= from);
            let room = limit - letters.len();
            let found = segment.read(*place, |line| {
                let live = parts.filter(|part| !line.is_removed(*part));
                let some: Vec<u8> = live.take(room + 1).collect();
                let taken = &some[..some.len().min(room)];
                letters.extend(taken.iter().filter_map(|part| line.letter(*part)));
                last = taken.last().map_or(last, |part| Some(first + u64::from(*part)));
                some.len() > room
            })?;
            if found == Some(true) {
                return Ok(Page { letters, total: self.live(), next: last });
            }
        }
        Ok(Page { letters, total: self.live(), next: None })
    }

    /// The line that holds the letter `id`, and which part of it that is.
    fn holding(&self, id: u64) -> Option<(u64, Place, u8)> {
        let (first, place) = self.lines.range(..=id).next_back()?;
        let part = u8::try_from(id - first).ok().filter(|part| *part < place.count)?;
        Some((*first, *place, part))
    }

    /// Of how many segments a sync has failed.
    pub(super) fn failed(&self) -> usize {
        self.segments.values().filter(|segment| segment.has_failed).count()
    }

    /// How many letters there are.
    pub(super) fn live(&self) -> u64 {
        self.segments.values().map(|segment| segment.live).sum()
    }

    /// Bytes on disk, by the stage of what they hold.
    pub(super) fn bytes_of(&self, stage: Stage) -> u64 {
        self.segments.values().map(|segment| segment.bytes_by_stage[stage as usize]).sum()
    }

    pub(super) fn fill(&self) -> Fill {
        let bytes = |segments: &mut dyn Iterator<Item = &Segment>| segments.map(|s| s.bytes).sum();
        let is_kept = |segment: &&Segment| !segment.may_go() || segment.class == Class::Database;
        Fill {
            bytes: bytes(&mut self.segments.values()),
            max_bytes: self.max_bytes,
            kept_bytes: bytes(&mut self.segments.values().filter(is_kept)),
            max_kept_bytes: self.max_bytes - self.max_bytes / SHARE_OF_REJECTED,
        }
    }

    fn segment_bytes(&self, class: Class) -> u64 {
        self.max_bytes
            / match class {
                Class::Database => DATABASE_SEGMENTS,
                Class::Unmatched => SHARE_OF_UNMATCHED * SEGMENTS,
                Class::Rejected => SEGMENTS,
            }
    }

    pub(super) fn number_of_newest(&self, class: Class) -> Option<u32> {
        let newest = self.segments.iter().rev().find(|(_, segment)| segment.class == class);
        newest.map(|(number, _)| *number)
    }

    /// The one to write to, if there is one.
    fn newest(&self, class: Class) -> Option<&Segment> {
        let number = self.number_of_newest(class)?;
        self.segments.get(&number).filter(|segment| !segment.has_failed)
    }
}

fn class_of(entry: &Entry<'_>) -> Class {
    Class::of(entry.stage(), entry.is_unmatched())
}
