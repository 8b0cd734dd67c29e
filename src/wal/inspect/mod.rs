//! Looking into a log that no process uses, or into generations that were set aside: what waits
//! there, and what is damaged. Nothing is written, not even a lock file.
//!
//! What counts is decided as the service decides it at its start ([`log::open`](super::log::open)):
//! by the positions that the log has written down, by what its frames say, and by where the next generation
//! begins. A generation by itself, as in quarantine, has only its frames and its report; what of it
//! was flushed since is not known, so all that can be read in it counts.
//!
//! One generation is looked at after the other, and of each only the places of its blocks are held.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::contract::{Positions, Quarantined, Unreadable, generation_id};
use super::directory::{LOCK, first_offset, generations, if_there, positions, quarantine};
use super::offset::Offset;
use super::recovery::{bounds_of_older, recover, with_ends};

mod error;
mod generation;
mod verify;

pub(crate) use error::InspectError;
pub(crate) use generation::{ExaminedGeneration, Scope};

use error::cannot_read;
use generation::{Part, report_of};

/// A log, or generations that belong to none. No service can start on the log while this is held.
pub(crate) struct Inspection {
    dir: PathBuf,
    parts: Vec<Part>,
    /// The one that is asked for.
    only: Option<Offset>,
    belongs_to_log: bool,
    /// What the log has written down of how far it is.
    written: Option<Positions>,
    _lock: Option<File>,
}

impl Inspection {
    /// Takes a log, one generation of it, a generation by itself, or a quarantine.
    ///
    /// # Errors
    /// If it is none of these, or in use.
    pub(crate) fn open(dir: &Path) -> Result<Self, InspectError> {
        let found = dir.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => InspectError::Missing(dir.to_owned()),
            _ => cannot_read(dir)(error),
        })?;
        if let Some(first) = found.file_name().and_then(first_offset) {
            if let Some(parent) = found.parent()
                && is_log(parent)?
            {
                let log = Self::of_log(parent)?;
                return Ok(Self { dir: found, only: Some(first), ..log });
            }
            let part = Part { first, end: None, dir: found.clone() };
            return Ok(Self::of_no_log(found, vec![part]));
        }
        if is_log(&found)? {
            return Self::of_log(&found);
        }
        let firsts = generations(&found).map_err(cannot_read(dir))?;
        if firsts.is_empty() {
            return Err(InspectError::NoLog(dir.to_owned()));
        }
        if !found.ends_with(quarantine::NAME) {
            // A copy of a log without its small files.
            return Self::of_log(&found);
        }
        let part = |first| Part { first, end: None, dir: found.join(generation_id(first)) };
        let parts = firsts.into_iter().map(part).collect();
        Ok(Self::of_no_log(found, parts))
    }

    fn of_no_log(dir: PathBuf, parts: Vec<Part>) -> Self {
        Self { dir, parts, only: None, belongs_to_log: false, written: None, _lock: None }
    }

    fn of_log(dir: &Path) -> Result<Self, InspectError> {
        let lock = existing(&dir.join(LOCK))?;
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(InspectError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(cannot_read(&dir.join(LOCK))(error)),
        }
        let path = dir.join(positions::NAME);
        let written = match existing(&path)? {
            Some(file) => positions::read(&file).map_err(cannot_read(&path))?,
            None => None,
        };
        let firsts = generations(dir).map_err(cannot_read(dir))?;
        let part = |(first, end)| Part { first, end, dir: dir.join(generation_id(first)) };
        let parts = with_ends(&firsts, &set_aside(dir)?).into_iter().map(part).collect();
        let dir = dir.to_owned();
        Ok(Self { dir, parts, only: None, belongs_to_log: true, written, _lock: lock })
    }

    /// The directory, with all links followed.
    #[must_use]
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How far the log has written down that it is; `None` for generations that belong to none, of
    /// which it is not known what is flushed.
    #[must_use]
    pub(crate) fn positions(&self) -> Option<Positions> {
        self.belongs_to_log.then(|| self.written.unwrap_or_default())
    }

    /// Bytes that [`Self::generations`] reads once.
    #[must_use]
    pub(crate) fn file_bytes(&self) -> u64 {
        self.wanted().map(Part::file_bytes).sum()
    }

    fn wanted(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| self.only.is_none_or(|only| part.first == only))
    }

    /// Damaged generations that the service has set aside out of this log.
    ///
    /// # Errors
    /// If the disk does not say.
    pub(crate) fn quarantined(&self) -> Result<Vec<Quarantined>, InspectError> {
        set_aside(&self.dir)
    }

    /// The generations with records from offset `from` on, oldest first, each looked into when it is
    /// asked for. `progress` is told bytes that were read.
    ///
    /// # Errors
    /// If the newest cannot be read, which says how far the log is flushed.
    pub(crate) fn generations<'i>(
        &'i self,
        from: Offset,
        progress: &'i dyn Fn(u64),
    ) -> Result<
        impl Iterator<Item = Result<ExaminedGeneration, InspectError>> + use<'i>,
        InspectError,
    > {
        let mut flushed = None;
        let mut newest = Vec::new();
        if self.belongs_to_log {
            let listed: Vec<_> = self.parts.iter().map(|part| (part.first, part.end)).collect();
            // Nothing is given up by looking: what the disk does not read is told.
            let unreadable = |_| Unreadable::IsLost;
            let recovered = recover(self.written, &listed, unreadable, |first, bounds| {
                let at = self.parts.partition_point(|part| part.first < first);
                ExaminedGeneration::look_into(&self.parts[at], bounds, true, progress)
            })?;
            flushed = Some(recovered.flushed);
            newest.extend([recovered.newest, recovered.without_records].into_iter().flatten());
        }
        let wanted = self.wanted().filter(move |part| part.end.is_none_or(|end| end > from));
        Ok(wanted.map(move |part| {
            if let Some(at) = newest.iter().position(|(first, _)| *first == part.first) {
                return Ok(newest.swap_remove(at).1);
            }
            match flushed.zip(part.end) {
                Some((flushed, end)) => {
                    let bounds = bounds_of_older(part.first, end, flushed, Unreadable::IsLost);
                    ExaminedGeneration::look_into(part, bounds, true, progress)
                }
                None => ExaminedGeneration::of_no_log(part, progress),
            }
        }))
    }
}

/// The reports of what was set aside out of the log in `dir`.
fn set_aside(dir: &Path) -> Result<Vec<Quarantined>, InspectError> {
    let dir = dir.join(quarantine::NAME);
    let ids = if_there(generations(&dir)).map_err(cannot_read(&dir))?.unwrap_or_default();
    let reports = ids.into_iter().map(|first| report_of(&dir.join(generation_id(first))));
    reports.filter_map(Result::transpose).collect()
}

/// Whether there are the files of a log in `dir`.
fn is_log(dir: &Path) -> Result<bool, InspectError> {
    let is_file = |name| {
        let path = dir.join(name);
        let found = if_there(fs::metadata(&path)).map_err(cannot_read(&path))?;
        Ok(found.is_some_and(|found| found.is_file()))
    };
    Ok(is_file(LOCK)? || is_file(positions::NAME)?)
}

/// `path`, opened, if it is there.
fn existing(path: &Path) -> Result<Option<File>, InspectError> {
    if_there(File::open(path)).map_err(cannot_read(path))
}
