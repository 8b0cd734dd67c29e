//! A segment: a file of lines, which is appended to until it is long enough, and goes as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use super::letter::{DeadLetter, DeadLetterError, is_disk_full};
use super::line::{Line, REMOVED};
use crate::base::retry::read_again;
use crate::telemetry::rejection::Stage;

/// What stands in segments of its own, because it stays for different reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Rows that the database refused: acknowledged readings, which are never evicted.
    Database,
    /// What no mapping takes: a ring of their own, so that noise pushes nothing else out.
    Unmatched,
    /// What was rejected before it was acknowledged as a reading: a ring, whose oldest go.
    Rejected,
}

impl Class {
    pub(super) const ALL: [Self; 3] = [Self::Database, Self::Unmatched, Self::Rejected];

    pub(super) fn of(stage: Stage, is_unmatched: bool) -> Self {
        match stage {
            Stage::Database => Self::Database,
            Stage::Decode | Stage::Validate if is_unmatched => Self::Unmatched,
            Stage::Decode | Stage::Validate => Self::Rejected,
        }
    }

    /// How the names of its files end. Those of earlier versions hold letters of every stage.
    fn suffix(self) -> &'static str {
        match self {
            Self::Database => ".database.log",
            Self::Unmatched => ".unmatched.log",
            Self::Rejected => ".log",
        }
    }
}

/// Where a line stands, and what is left of it. There can be hundreds of thousands in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Number of the segment.
    pub(super) segment: u32,
    pub(super) position: u32,
    pub(super) bytes: u32,
    /// Letters in it, removed ones included.
    pub(super) count: u8,
    /// Letters in it that were not removed.
    pub(super) live: u8,
    /// Of its first letter.
    pub(super) stage: Stage,
}

pub(super) struct Segment {
    path: PathBuf,
    file: File,
    pub(super) class: Class,
    /// Bytes of its lines, by the stage of their first letter; removed ones included.
    pub(super) bytes_by_stage: [u64; Stage::ALL.len()],
    /// Behind its last line.
    pub(super) bytes: u64,
    /// Letters that were not removed.
    pub(super) live: u64,
    /// Those of them that are acknowledged readings.
    pub(super) acknowledged: u64,
    /// One past the highest id in it.
    pub(super) end: u64,
    /// A sync has failed: the kernel reports that once, so another one would say nothing. Or the disk refuses
    /// what is written. Nothing is written to it any more.
    pub(super) has_failed: bool,
}

/// What a segment that was there already says.
#[derive(Default)]
pub(super) struct Found {
    /// First ids, and where the lines stand.
    pub(super) lines: Vec<(u64, Place)>,
    /// Letters, here or elsewhere, that were removed.
    pub(super) removed: Vec<u64>,
}

/// The class and the first id of the segment that has this file name.
pub(super) fn parse_name(name: &str) -> Option<(u64, Class)> {
    Class::ALL.into_iter().find_map(|class| {
        let first = name.strip_suffix(class.suffix())?.parse().ok()?;
        Some((first, class))
    })
}

/// Reads a file from its beginning to its end, and again where the disk refuses.
struct Patient {
    file: File,
    position: u64,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = read_again(|| self.file.read_at(buffer, self.position), thread::sleep)?;
        self.position += bytes as u64;
        Ok(bytes)
    }
}

impl Segment {
    /// Makes one whose letters begin with the id `first`; durable when this returns.
    pub(super) fn create(dir: &Path, first: u64, class: Class) -> io::Result<Self> {
        let mut segment = Self::at(dir, first, class)?;
        // What was left here holds no letter, or its ids would be known.
        segment.file.set_len(0)?;
        segment.file.sync_all()?;
        File::open(dir)?.sync_all()?;
        segment.bytes = 0;
        Ok(segment)
    }

    /// Opens one that is there, as the `number`th.
    pub(super) fn open(
        dir: &Path,
        first: u64,
        class: Class,
        number: u32,
    ) -> Result<(Self, Found), DeadLetterError> {
        let mut segment = Self::at(dir, first, class).map_err(DeadLetterError::of_opening)?;
        let path = segment.path.clone();
        let unread = |source| DeadLetterError::Unread { path, source };
        let (found, is_torn) = segment.scan(number).map_err(unread)?;
        if is_torn {
            segment.file.set_len(segment.bytes).map_err(DeadLetterError::of_opening)?;
        }
        Ok((segment, found))
    }

    fn at(dir: &Path, first: u64, class: Class) -> io::Result<Self> {
        let path = dir.join(format!("{first:020}{}", class.suffix()));
        // Payloads may be confidential: nobody else reads them, whatever the umask.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Self {
            file: options.open(&path)?,
            path,
            class,
            bytes_by_stage: [0; Stage::ALL.len()],
            bytes: 0,
            live: 0,
            acknowledged: 0,
            end: first,
            has_failed: false,
        })
    }

    /// What is in it, and whether it ends in the middle of a line.
    fn scan(&mut self, number: u32) -> io::Result<(Found, bool)> {
        let mut found = Found::default();
        let mut position = 0;
        // Behind the last line that ends: what a power cut tore is written over.
        let mut whole = 0;
        let mut text = Vec::new();
        let mut reader = BufReader::new(Patient { file: self.file.try_clone()?, position: 0 });
        while reader.read_until(b'\n', &mut text)? > 0 {
            if text.ends_with(b"\n") {
                whole = position + text.len() as u64;
                self.take_note(&text, position, number, &mut found);
            }
            position += text.len() as u64;
            text.clear();
        }
        let is_torn = position > whole;
        if is_torn {
            tracing::warn!(
                file = %self.path.display(),
                bytes = position - whole,
                "a dead-letter segment ends in the middle of a line: that is dropped"
            );
        }
        self.bytes = whole;
        Ok((found, is_torn))
    }

    fn take_note(&mut self, text: &[u8], position: u64, number: u32, found: &mut Found) {
        let Some(line) = Line::read(text) else {
            tracing::error!(
                file = %self.path.display(),
                position,
                "a dead letter is damaged and cannot be read: skipped"
            );
            return;
        };
        found.removed.extend(line.removes());
        let Some((first, count, stage)) = line.letters() else { return };
        let place = Place {
            segment: number,
            position: u32::try_from(position).unwrap_or(u32::MAX),
            bytes: u32::try_from(text.len()).unwrap_or(u32::MAX),
            count,
            live: line.live(),
            stage,
        };
        self.count_in(first, place);
        found.lines.push((first, place));
    }

    /// Takes a line into the counts.
    fn count_in(&mut self, first: u64, place: Place) {
        self.bytes_by_stage[place.stage as usize] += u64::from(place.bytes);
        self.live += u64::from(place.live);
        if place.stage == Stage::Database {
            self.acknowledged += u64::from(place.live);
        }
        self.end = self.end.max(first + u64::from(place.count));
    }

    /// Appends whole lines, durably, and counts them in. After a failure nothing of them is there.
    pub(super) fn append(&mut self, text: &[u8], lines: &[(u64, Place)]) -> io::Result<()> {
        let written = self.file.write_all_at(text, self.bytes).and_then(|()| self.sync());
        if let Err(error) = written {
            // Or the start of a line would be left, and be read as a damaged one.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += text.len() as u64;
        for (first, place) in lines {
            self.count_in(*first, *place);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.has_failed = true)
    }

    /// From now on the disk writes nothing.
    #[cfg(test)]
    pub(super) fn refuse_writes(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }

    /// Calls `with` with the line at `place`; `None` if it has been damaged since.
    pub(super) fn read<T>(
        &self,
        place: Place,
        with: impl FnOnce(&Line<'_>) -> T,
    ) -> io::Result<Option<T>> {
        let mut text = vec![0; place.bytes as usize];
        let read = || self.file.read_exact_at(&mut text, place.position.into());
        read_again(read, thread::sleep)?;
        Ok(Line::read(&text).map(|line| with(&line)))
    }

    /// The letter that is part `part` of the line at `place`, if it is there.
    pub(super) fn letter(&self, place: Place, part: u8) -> io::Result<Option<DeadLetter>> {
        let letter =
            |line: &Line<'_>| (!line.is_removed(part)).then(|| line.letter(part)).flatten();
        Ok(self.read(place, letter)?.flatten())
    }

    /// Removes the letter that is part `part` of the line at `place`, durably; false if it is not
    /// there. One byte is written over, so this works on a full disk.
    ///
    /// # Errors
    /// If it cannot be read, or that is not certain; after a sync that has failed always. The byte may be in the
    /// page cache and nowhere else then, and no later sync would say so.
    pub(super) fn remove(&mut self, place: Place, part: u8) -> io::Result<bool> {
        if self.has_failed {
            return Err(io::Error::other("this file could not be written before"));
        }
        let flag = |line: &Line<'_>| (!line.is_removed(part)).then(|| line.flag_of(part));
        let Some(flag) = self.read(place, flag)?.flatten() else { return Ok(false) };
        let written = self.file.write_all_at(&[REMOVED], u64::from(place.position) + flag as u64);
        written.inspect_err(|error| self.has_failed |= !is_disk_full(error))?;
        self.sync()?;
        self.live -= 1;
        if place.stage == Stage::Database {
            self.acknowledged -= 1;
        }
        Ok(true)
    }

    /// Whether it is free to go: nothing in it was acknowledged as a reading.
    pub(super) fn may_go(&self) -> bool {
        self.acknowledged == 0
    }

    /// Deletes it; needs no space.
    pub(super) fn delete(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}
