//! The dead-letter store: what was rejected, on stable storage before its message is acknowledged.
//!
//! `WAL_DIR/dead-letters/<first id, 20 digits>.log` are segments of lines, each a CRC-32 in hex, a
//! space and a JSON object: a dead letter, or `{"removed":id}`. Lines can be read with `cut` and
//! `jq` when nothing else works, and one that is damaged takes none of its neighbours with it.
//! Only the position of each letter is kept in memory.
//!
//! The store is bounded: past `DEAD_LETTER_MAX_BYTES` the oldest segment goes, and its letters are
//! counted. Ids rise by one and are never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::telemetry::rejection::Stage;

mod settings;

pub(crate) use settings::SETTINGS;
pub use settings::Settings;

/// Longest part of a payload that is kept, in bytes.
pub const PAYLOAD_MAX_BYTES: usize = 64 * 1024;

/// The store is cut into so many segments, so that eviction takes an eighth at most.
const SEGMENTS: u64 = 8;

/// A reading on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDeadLetter<'p> {
    /// When its message was received.
    pub received_at: Timestamp,
    /// Where it was published; empty if that is no longer known.
    pub topic: &'p str,
    /// Who turned it away.
    pub stage: Stage,
    /// Why, in a sentence.
    pub reason: String,
    /// The bytes as published; cut off after [`PAYLOAD_MAX_BYTES`].
    pub payload: &'p [u8],
}

/// A letter in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number.
    pub id: u64,
    /// When its message was received.
    pub received_at: Timestamp,
    /// Where it was published; empty if that is no longer known.
    pub topic: String,
    /// Who turned it away, as [`Stage::as_str`] has it.
    pub stage: String,
    /// Why, in a sentence.
    pub reason: String,
    /// The bytes as published, up to [`PAYLOAD_MAX_BYTES`].
    pub payload: Vec<u8>,
}

/// Some letters, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The letters.
    pub letters: Vec<DeadLetter>,
    /// How many the store holds in all.
    pub total: u64,
    /// The id to pass as `after` for the next page; `None` at the end.
    pub next: Option<u64>,
}

/// What can go wrong with the store; the caller must not acknowledge the message.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct DeadLetterError {
    what: &'static str,
    source: io::Error,
}

impl DeadLetterError {
    /// Whether there was no space left, which may pass.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        is_disk_full(&self.source)
    }
}

/// One line of a segment.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Letter(Letter),
    Removed { removed: u64 },
}

#[derive(Serialize, Deserialize)]
struct Letter {
    id: u64,
    received_at_micros: i64,
    topic: String,
    stage: String,
    reason: String,
    /// Base64: a payload may be anything.
    payload: String,
}

/// The store.
pub struct DeadLetters {
    dir: PathBuf,
    max_bytes: u64,
    metrics: Metrics,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    /// First id → segment, oldest first; the last one is written to.
    segments: BTreeMap<u64, Segment>,
    next_id: u64,
}

struct Segment {
    file: File,
    bytes: u64,
    /// The letters in it that were not removed: id → position and length of the line.
    letters: BTreeMap<u64, Place>,
}

/// Position and length of a line, in bytes.
type Place = (u64, u32);

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn reading(source: io::Error) -> DeadLetterError {
    DeadLetterError { what: "read dead letters", source }
}

impl DeadLetters {
    /// Opens the store in `dir`, making it if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn open(dir: &Path, max_bytes: u64, metrics: &Metrics) -> Result<Self, DeadLetterError> {
        let what = "open the dead-letter store";
        let store = Store::open(dir).map_err(|source| DeadLetterError { what, source })?;
        let letters = Self {
            dir: dir.to_owned(),
            max_bytes,
            metrics: metrics.clone(),
            store: Mutex::new(store),
        };
        letters.update_gauge(&letters.lock());
        Ok(letters)
    }

    /// Stores `letters`; when this returns they survive a power cut. Blocks on the disk.
    ///
    /// # Errors
    /// If that is not certain.
    pub fn append(&self, letters: &[NewDeadLetter<'_>]) -> Result<(), DeadLetterError> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut store = self.lock();
        self.write(&mut store, letters)
            .map_err(|source| DeadLetterError { what: "write dead letters", source })?;
        for letter in letters {
            self.metrics.dead_lettered(letter.stage.as_str());
        }
        self.update_gauge(&store);
        Ok(())
    }

    /// Up to `limit` letters with ids above `after`. Blocks on the disk.
    ///
    /// # Errors
    /// If they cannot be read; damaged ones are skipped.
    pub fn page(&self, after: Option<u64>, limit: usize) -> Result<Page, DeadLetterError> {
        let store = self.lock();
        let from = after.map_or(0, |id| id.saturating_add(1));
        let mut places = store
            .segments
            .values()
            .flat_map(|segment| segment.letters.range(from..).map(move |found| (segment, found)));
        let mut letters = Vec::new();
        let mut last = None;
        for (segment, (id, place)) in places.by_ref().take(limit) {
            letters.extend(segment.read(*place).map_err(reading)?);
            last = Some(*id);
        }
        let next = last.filter(|_| places.next().is_some());
        drop(places);
        Ok(Page { letters, total: store.letters(), next })
    }

    /// The letter `id`, if it is there. Blocks on the disk.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn get(&self, id: u64) -> Result<Option<DeadLetter>, DeadLetterError> {
        let store = self.lock();
        let found = store.holding(id);
        found.map_or(Ok(None), |(segment, place)| segment.read(place).map_err(reading))
    }

    /// Removes the letter `id`, durably; false if it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// If that is not certain.
    pub fn remove(&self, id: u64) -> Result<bool, DeadLetterError> {
        let mut store = self.lock();
        if store.holding(id).is_none() {
            return Ok(false);
        }
        let what = "remove a dead letter";
        self.with_room(&mut store, |store, _| store.remove(id))
            .and_then(|()| store.drop_empty(&self.dir))
            .map_err(|source| DeadLetterError { what, source })?;
        self.update_gauge(&store);
        Ok(true)
    }

    fn write(&self, store: &mut Store, letters: &[NewDeadLetter<'_>]) -> io::Result<()> {
        let mut letters = letters;
        while !letters.is_empty() {
            let taken = self.with_room(store, |store, bytes| store.append(letters, bytes))?;
            letters = &letters[taken..];
        }
        Ok(())
    }

    /// Writes to a segment with room in it; for that, and if the disk is full, the oldest go.
    fn with_room<T>(
        &self,
        store: &mut Store,
        write: impl Fn(&mut Store, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let written = store
                .make_room(&self.dir, self.max_bytes)
                .inspect(|evicted| self.report_evicted(*evicted))
                .and_then(|_| write(store, self.max_bytes / SEGMENTS));
            match written {
                Err(error) if is_disk_full(&error) && store.segments.len() > 1 => {
                    self.report_evicted(store.evict_oldest(&self.dir)?);
                }
                other => return other,
            }
        }
    }

    fn report_evicted(&self, letters: u64) {
        if letters > 0 {
            self.metrics.dead_letters_evicted.inc_by(letters);
            tracing::warn!(
                letters,
                "the dead-letter store is full: its oldest letters were dropped"
            );
        }
    }

    fn update_gauge(&self, store: &Store) {
        self.metrics.dead_letters.set(i64::try_from(store.letters()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        let mut store = Self::default();
        let mut removed = BTreeSet::new();
        let mut names: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
        names.sort_by_key(fs::DirEntry::file_name);
        for entry in names {
            let name = entry.file_name();
            let Some(first) = name.to_str().and_then(|name| name.strip_suffix(".log")) else {
                continue;
            };
            let Ok(first) = first.parse() else { continue };
            let segment = Segment::open(&entry.path(), &mut removed)?;
            let last = segment.letters.last_key_value().map_or(first, |(id, _)| id + 1);
            store.next_id = store.next_id.max(last);
            store.segments.insert(first, segment);
        }
        for segment in store.segments.values_mut() {
            segment.letters.retain(|id, _| !removed.contains(id));
        }
        store.next_id = store.next_id.max(removed.last().map_or(0, |id| id + 1));
        Ok(store)
    }

    /// Makes sure that there is a segment to write to, within the bound; returns how many letters
    /// had to go for it.
    fn make_room(&mut self, dir: &Path, max_bytes: u64) -> io::Result<u64> {
        let is_full = |segment: &Segment| segment.bytes >= max_bytes / SEGMENTS;
        if self.segments.last_key_value().is_none_or(|(_, newest)| is_full(newest)) {
            let path = segment_path(dir, self.next_id);
            let segment = Segment::open(&path, &mut BTreeSet::new())?;
            segment.file.sync_all()?;
            File::open(dir)?.sync_all()?;
            self.segments.insert(self.next_id, segment);
        }
        let mut evicted = 0;
        let budget = max_bytes / SEGMENTS * (SEGMENTS - 1);
        while self.segments.len() > 1
            && self.segments.values().map(|s| s.bytes).sum::<u64>() > budget
        {
            evicted += self.evict_oldest(dir)?;
        }
        Ok(evicted)
    }

    /// Deletes the oldest segment; returns how many letters were in it.
    fn evict_oldest(&mut self, dir: &Path) -> io::Result<u64> {
        let Some(oldest) = self.segments.first_entry() else { return Ok(0) };
        fs::remove_file(segment_path(dir, *oldest.key()))?;
        Ok(oldest.remove().letters.len() as u64)
    }

    /// Deletes old segments without a letter. A segment may say of letters in older ones that
    /// they were removed, so only the oldest can go.
    fn drop_empty(&mut self, dir: &Path) -> io::Result<()> {
        while self.segments.len() > 1
            && self.segments.first_key_value().is_some_and(|(_, oldest)| oldest.letters.is_empty())
        {
            self.evict_oldest(dir)?;
        }
        Ok(())
    }

    fn letters(&self) -> u64 {
        self.segments.values().map(|segment| segment.letters.len() as u64).sum()
    }

    fn holding(&self, id: u64) -> Option<(&Segment, Place)> {
        let (_, segment) = self.segments.range(..=id).next_back()?;
        Some((segment, *segment.letters.get(&id)?))
    }

    fn remove(&mut self, id: u64) -> io::Result<()> {
        let mut text = Vec::new();
        write_line(&mut text, &Line::Removed { removed: id })?;
        if let Some(mut newest) = self.segments.last_entry() {
            newest.get_mut().write(&text)?;
        }
        if let Some((_, segment)) = self.segments.range_mut(..=id).next_back() {
            segment.letters.remove(&id);
        }
        Ok(())
    }

    /// Writes and syncs letters until the newest segment is full; returns how many.
    fn append(&mut self, letters: &[NewDeadLetter<'_>], segment_bytes: u64) -> io::Result<usize> {
        let Some(mut newest) = self.segments.last_entry() else {
            return Err(io::Error::other("no segment"));
        };
        let segment = newest.get_mut();
        let mut text = Vec::new();
        let mut places = Vec::new();
        for (id, letter) in (self.next_id..).zip(letters) {
            let start = text.len();
            write_line(&mut text, &Line::Letter(Letter::new(id, letter)))?;
            let length = u32::try_from(text.len() - start).map_err(io::Error::other)?;
            places.push((id, (segment.bytes + start as u64, length)));
            if segment.bytes + text.len() as u64 >= segment_bytes {
                break;
            }
        }
        segment.write(&text)?;
        self.next_id += places.len() as u64;
        let taken = places.len();
        segment.letters.extend(places);
        Ok(taken)
    }
}

impl Segment {
    fn open(path: &Path, removed: &mut BTreeSet<u64>) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut letters = BTreeMap::new();
        let mut position = 0;
        // Behind the last line that ends: what a power cut tore is written over.
        let mut bytes = 0;
        let mut line = Vec::new();
        let mut reader = BufReader::new(&file);
        while reader.read_until(b'\n', &mut line)? > 0 {
            let length = line.len();
            if line.ends_with(b"\n") {
                bytes = position + length as u64;
                match read_line(&line) {
                    Some(Line::Letter(letter)) => {
                        letters.insert(
                            letter.id,
                            (position, u32::try_from(length).unwrap_or(u32::MAX)),
                        );
                    }
                    Some(Line::Removed { removed: id }) => {
                        removed.insert(id);
                    }
                    None => tracing::error!(
                        file = %path.display(),
                        position,
                        "a dead letter is damaged and cannot be read: skipped"
                    ),
                }
            }
            position += length as u64;
            line.clear();
        }
        if position > bytes {
            tracing::warn!(
                file = %path.display(),
                bytes = position - bytes,
                "a dead-letter segment ends in the middle of a line: that is dropped"
            );
        }
        file.set_len(bytes)?;
        Ok(Self { file, bytes, letters })
    }

    /// The letter at `place`; `None` if it has been damaged since.
    fn read(&self, (position, length): Place) -> io::Result<Option<DeadLetter>> {
        let mut line = vec![0; length as usize];
        self.file.read_exact_at(&mut line, position)?;
        let Some(Line::Letter(letter)) = read_line(&line) else { return Ok(None) };
        let payload = BASE64.decode(&letter.payload).map_err(io::Error::other)?;
        let received_at = Timestamp::from_micros(letter.received_at_micros);
        Ok(Some(DeadLetter {
            id: letter.id,
            received_at: received_at.unwrap_or_else(Timestamp::now),
            topic: letter.topic,
            stage: letter.stage,
            reason: letter.reason,
            payload,
        }))
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(text, self.bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.bytes += text.len() as u64,
            // Or a shorter line would be written over the start of this one, and its end would
            // still be there.
            Err(_) => self.file.set_len(self.bytes)?,
        }
        written
    }
}

impl Letter {
    fn new(id: u64, letter: &NewDeadLetter<'_>) -> Self {
        let kept = letter.payload.len().min(PAYLOAD_MAX_BYTES);
        Self {
            id,
            received_at_micros: letter.received_at.as_micros(),
            topic: letter.topic.to_owned(),
            stage: letter.stage.as_str().to_owned(),
            reason: letter.reason.clone(),
            payload: BASE64.encode(&letter.payload[..kept]),
        }
    }
}

fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

fn write_line(text: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    let json = serde_json::to_vec(line)?;
    writeln!(text, "{:08x} {}", crc32fast::hash(&json), String::from_utf8_lossy(&json))
}

fn read_line(line: &[u8]) -> Option<Line> {
    let (sum, json) = line.trim_ascii_end().split_at_checked(9)?;
    let sum = std::str::from_utf8(sum).ok()?.trim_end();
    let intact = u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(json);
    intact.then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &[u8]) -> NewDeadLetter<'_> {
        NewDeadLetter {
            received_at: Timestamp::from_millis(1_759_667_696_000).unwrap(),
            topic: "telemetry/a",
            stage: Stage::Decode,
            reason: "not valid JSON".to_owned(),
            payload,
        }
    }

    fn open(dir: &Path, max_bytes: u64) -> (DeadLetters, Metrics) {
        let metrics = Metrics::new().unwrap();
        (DeadLetters::open(dir, max_bytes, &metrics).unwrap(), metrics)
    }

    #[test]
    fn letters_survive_a_restart_and_their_ids_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path(), 1 << 20);
        store.append(&[letter(b"\xff\x00"), letter(b"{")]).unwrap();
        drop(store);
        let (store, metrics) = open(dir.path(), 1 << 20);
        assert_eq!(metrics.dead_letters.get(), 2);
        assert_eq!(store.lock().next_id, 2);
    }

    #[test]
    fn the_store_keeps_its_bound_and_counts_what_it_evicts() {
        let dir = tempfile::tempdir().unwrap();
        let (store, metrics) = open(dir.path(), 1 << 20);
        let payload = vec![b'x'; 20_000];
        for _ in 0..100 {
            store.append(&[letter(&payload), letter(&payload)]).unwrap();
        }
        let on_disk: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(on_disk <= 1 << 20, "{on_disk}");
        assert!(on_disk > 1 << 19, "{on_disk}");
        let kept = u64::try_from(metrics.dead_letters.get()).unwrap();
        assert_eq!(kept + metrics.dead_letters_evicted.get(), 200);
    }

    #[test]
    fn letters_are_paged_removed_for_good_and_given_back_as_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path(), 1 << 20);
        let payloads: Vec<Vec<u8>> = (0..10).map(|n| vec![n, 0xff]).collect();
        let letters: Vec<_> = payloads.iter().map(|payload| letter(payload)).collect();
        store.append(&letters).unwrap();
        assert!(store.remove(3).unwrap());
        assert!(!store.remove(3).unwrap());
        drop(store);
        let (store, metrics) = open(dir.path(), 1 << 20);
        assert_eq!(metrics.dead_letters.get(), 9);
        let first = store.page(None, 4).unwrap();
        assert_eq!((first.total, first.next), (9, Some(4)));
        let second = store.page(first.next, 100).unwrap();
        assert_eq!(second.next, None);
        let ids: Vec<u64> = first.letters.iter().chain(&second.letters).map(|l| l.id).collect();
        assert_eq!(ids, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
        assert_eq!(store.get(7).unwrap().unwrap().payload, [7, 0xff]);
        assert_eq!(store.get(3).unwrap(), None);
    }

    #[test]
    fn a_torn_last_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path(), 1 << 20);
        store.append(&[letter(b"one"), letter(b"two"), letter(b"three")]).unwrap();
        drop(store);
        let path = segment_path(dir.path(), 0);
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 5).unwrap();
        let (store, metrics) = open(dir.path(), 1 << 20);
        assert_eq!(metrics.dead_letters.get(), 2);
        store.append(&[letter(b"four")]).unwrap();
        drop(store);
        assert_eq!(open(dir.path(), 1 << 20).1.dead_letters.get(), 3);
    }
}
