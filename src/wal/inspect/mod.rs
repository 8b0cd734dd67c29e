//! Looking into a log that no process uses, or into generations that were set aside: what waits
//! there, and what is damaged. Nothing is written, not even a lock file.
//!
//! What counts is decided as the service decides it at its start ([`log::open`](super::log::open)):
//! by the positions that the log has noted, by what its frames say, and by where the next generation
//! begins. A generation by itself, as in quarantine, has only its frames and its report; what of it
//! was flushed since is not known, so all that can be read in it counts.
//!
//! One generation is looked at after the other, and of each only the places of its blocks are held.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::contract::generation_id;
use super::contract::{Known, Positions, Quarantined};
use super::engine::sled::{bytes_in, first_offset, generations, read_positions, report};
use super::frame::{Block, FrameError, Offset, OffsetRange};
use super::scan::{Place, Sight, Survey, survey};

mod verify;

pub use verify::{Finding, Meaning};

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no such directory.
    #[error("{}: there is no such directory", .0.display())]
    Missing(PathBuf),
    /// It is something else.
    #[error(
        "{} is no WAL directory: it holds neither the files of a log nor a generation",
        .0.display()
    )]
    NoLog(PathBuf),
    /// A service may change it at any moment.
    #[error(
        "{} is in use by a running ingestor: stop that first, or ask it at /admin/wal",
        .0.display()
    )]
    InUse(PathBuf),
    /// The filesystem refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> InspectError {
    let path = path.to_owned();
    |source| InspectError::Io { path, source }
}

/// A log, or generations that belong to none. No service can start on the log while this is held.
pub struct Inspection {
    dir: PathBuf,
    parts: Vec<Part>,
    /// The one that is asked for.
    only: Option<Offset>,
    positions: Option<Positions>,
    _lock: Option<File>,
}

struct Part {
    first: Offset,
    /// Where the next generation begins.
    end: Option<Offset>,
    dir: PathBuf,
}

impl Part {
    fn file(&self) -> PathBuf {
        self.dir.join("db")
    }

    fn file_bytes(&self) -> u64 {
        self.file().metadata().map_or(0, |file| file.len())
    }
}

/// How much is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What is not flushed; of a generation that belongs to no log everything.
    Pending,
    /// What can be read at all.
    Everything,
}

impl Inspection {
    /// Takes a log, one generation of it, a generation by itself, or a quarantine.
    ///
    /// # Errors
    /// If it is none of these, or in use.
    pub fn open(dir: &Path) -> Result<Self, InspectError> {
        let found = dir.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => InspectError::Missing(dir.to_owned()),
            _ => cannot_read(dir)(error),
        })?;
        let is_log = |dir: &Path| dir.join("LOCK").is_file() || dir.join("positions").is_file();
        if let Some(first) = found.file_name().and_then(first_offset) {
            if let Some(log) = found.parent().filter(|parent| is_log(parent)) {
                let log = Self::of_log(log)?;
                return Ok(Self { dir: found, only: Some(first), ..log });
            }
            let part = Part { first, end: None, dir: found.clone() };
            return Ok(Self::of_no_log(found, vec![part]));
        }
        if is_log(&found) {
            return Self::of_log(&found);
        }
        let firsts = generations(&found).map_err(cannot_read(dir))?;
        if firsts.is_empty() {
            return Err(InspectError::NoLog(dir.to_owned()));
        }
        if !found.ends_with("quarantine") {
            // A copy of a log without its small files.
            return Self::of_log(&found);
        }
        let part = |first| Part { first, end: None, dir: found.join(generation_id(first)) };
        let parts = firsts.into_iter().map(part).collect();
        Ok(Self::of_no_log(found, parts))
    }

    fn of_no_log(dir: PathBuf, parts: Vec<Part>) -> Self {
        Self { dir, parts, only: None, positions: None, _lock: None }
    }

    fn of_log(dir: &Path) -> Result<Self, InspectError> {
        let lock = existing(&dir.join("LOCK"))?;
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(InspectError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(cannot_read(&dir.join("LOCK"))(error)),
        }
        let noted = existing(&dir.join("positions"))?;
        let positions = noted.as_ref().and_then(read_positions).unwrap_or_default();
        let firsts = generations(dir).map_err(cannot_read(dir))?;
        let part = |(at, first): (usize, &Offset)| Part {
            first: *first,
            end: firsts.get(at + 1).copied(),
            dir: dir.join(generation_id(*first)),
        };
        let parts = firsts.iter().enumerate().map(part).collect();
        let (dir, positions) = (dir.to_owned(), Some(positions));
        Ok(Self { dir, parts, only: None, positions, _lock: lock })
    }

    /// The directory, with all links followed.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How far the log has noted that it is; `None` for generations that belong to none, of which it
    /// is not known what is flushed.
    #[must_use]
    pub fn positions(&self) -> Option<Positions> {
        self.positions
    }

    /// Bytes that [`Self::generations`] reads once.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.wanted().map(Part::file_bytes).sum()
    }

    fn wanted(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| self.only.is_none_or(|only| part.first == only))
    }

    /// Damaged generations that the service has set aside out of this log.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let dir = self.dir.join("quarantine");
        let ids = generations(&dir).unwrap_or_default();
        ids.into_iter().filter_map(|first| report(&dir.join(generation_id(first)))).collect()
    }

    /// The generations with records from offset `from` on, oldest first, each looked into when it is
    /// asked for. `progress` is told bytes that were read.
    ///
    /// # Errors
    /// If the newest cannot be read, which says how far the log is flushed.
    pub fn generations<'i>(
        &'i self,
        from: Offset,
        progress: &'i dyn Fn(u64),
    ) -> Result<
        impl Iterator<Item = Result<ExaminedGeneration, InspectError>> + use<'i>,
        InspectError,
    > {
        let mut positions = self.positions;
        let mut newest = None;
        if let (Some(positions), Some(part)) = (&mut positions, self.parts.last()) {
            let examined = ExaminedGeneration::look_into(part, Some(*positions), progress)?;
            positions.flushed = positions.flushed.max(examined.survey.flushed);
            newest = Some(examined);
        }
        let wanted = self.wanted().filter(move |part| part.end.is_none_or(|end| end > from));
        Ok(wanted.map(move |part| match newest.take_if(|newest| newest.first == part.first) {
            Some(newest) => Ok(newest),
            None => ExaminedGeneration::look_into(part, positions, progress),
        }))
    }
}

/// `path`, opened, if it is there.
fn existing(path: &Path) -> Result<Option<File>, InspectError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_read(path)(error)),
    }
}

/// One generation, looked into.
pub struct ExaminedGeneration {
    first: Offset,
    dir: PathBuf,
    file_is_missing: bool,
    belongs_to_log: bool,
    survey: Survey,
    broken: Vec<Broken>,
    /// By version: how many, and the position of the first.
    newer: BTreeMap<u16, (u64, u64)>,
    unreadable_pages: Vec<u64>,
}

/// What begins as a frame does and is none.
struct Broken {
    position: u64,
    error: FrameError,
    claim: Option<Range<Offset>>,
}

impl ExaminedGeneration {
    fn look_into(
        part: &Part,
        positions: Option<Positions>,
        progress: &dyn Fn(u64),
    ) -> Result<Self, InspectError> {
        let known = match positions {
            Some(Positions { committed, flushed }) if part.end.is_none() => {
                Known { flushed, committed, end: None }
            }
            Some(Positions { flushed, .. }) => {
                Known { flushed, committed: part.first, end: part.end }
            }
            None => {
                let lost = report(&part.dir).map(|report| report.lost_ranges).unwrap_or_default();
                let committed = lost.iter().map(|range| range.to + 1).max().unwrap_or(0);
                Known { flushed: 0, committed, end: None }
            }
        };
        let path = part.file();
        let mut broken = Vec::new();
        let mut newer = BTreeMap::new();
        let mut unreadable_pages = Vec::new();
        let mut passed = 0;
        let found = survey(&path, part.first, known, |position, sight| {
            progress(position.saturating_sub(passed));
            passed = passed.max(position);
            match sight {
                Sight::Frame(_) => {}
                Sight::Unknown { version, .. } => {
                    newer.entry(version).or_insert((0, position)).0 += 1;
                }
                Sight::Broken { error, claim } => broken.push(Broken { position, error, claim }),
                Sight::Unreadable(_) => unreadable_pages.push(position),
            }
        })
        .map_err(cannot_read(&path))?;
        progress(part.file_bytes().saturating_sub(passed));
        Ok(Self {
            first: part.first,
            dir: part.dir.clone(),
            file_is_missing: !path.exists(),
            belongs_to_log: positions.is_some(),
            survey: found,
            broken,
            newer,
            unreadable_pages,
        })
    }

    /// The name of its directory.
    #[must_use]
    pub fn id(&self) -> String {
        generation_id(self.first)
    }

    /// The file with its blocks.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.join("db")
    }

    /// Offset of its first record.
    #[must_use]
    pub fn first(&self) -> Offset {
        self.first
    }

    /// One past its last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.survey.end
    }

    /// Every record below is flushed, as far as is known here.
    #[must_use]
    pub fn flushed(&self) -> Offset {
        self.survey.flushed
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        bytes_in(&self.dir)
    }

    /// Whether it is known what of it is flushed.
    #[must_use]
    pub fn belongs_to_log(&self) -> bool {
        self.belongs_to_log
    }

    /// Offset at which `scope` begins.
    #[must_use]
    pub fn from(&self, scope: Scope) -> Offset {
        match scope {
            Scope::Pending if self.belongs_to_log => self.first.max(self.survey.flushed),
            _ => self.first,
        }
    }

    /// Records in `scope` that can be read, and the bytes of their blocks.
    #[must_use]
    pub fn records(&self, scope: Scope) -> (u64, u64) {
        let from = self.from(scope);
        (self.survey.frames.records(from), self.survey.frames.block_bytes(from))
    }

    /// Committed and not flushed, but not to be read.
    #[must_use]
    pub fn missing(&self) -> &[OffsetRange] {
        &self.survey.lost
    }

    /// Versions of its blocks that only a newer version of this program can read.
    #[must_use]
    pub fn newer_versions(&self) -> Vec<u16> {
        self.newer.keys().copied().collect()
    }

    /// The blocks with offset `from` and those behind it, or their offsets where they cannot be
    /// read; each offset once.
    pub fn blocks(
        &self,
        from: Offset,
    ) -> impl Iterator<Item = (OffsetRange, Option<Block>)> + use<'_> {
        let places = self.survey.frames.from(from).iter();
        places.map(|place: &Place| (place.offsets(), self.survey.frames.read(place).ok()))
    }

    /// Bytes of the file that stand for one of the blocks from `from` on.
    #[must_use]
    pub fn bytes_a_block(&self, from: Offset) -> u64 {
        let blocks = self.survey.frames.from(from).len() as u64;
        fs::metadata(self.file()).map_or(0, |file| file.len()).checked_div(blocks).unwrap_or(0)
    }
}
