//! Damaged generations that were moved out of the log, each with a report.
//!
//! Whoever looks after the log asks every second how many bytes they take, so what is known of each is
//! kept for as long as its directory does not change.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use super::files::{DATA_FILE, bytes_in, sync_dir};
use crate::base::retry::{is_refusal, read_again};
use crate::wal::contract::Quarantined;
use crate::wal::error::{ON_DIRECTORY, ON_REPORT, WalError};

/// Its name in the log's directory.
pub(in crate::wal) const NAME: &str = "quarantine";

/// What says why a generation is here.
pub(in crate::wal) const REPORT: &str = "report.json";

/// `WAL_DIR/quarantine`.
pub(in crate::wal) struct Quarantine {
    log: PathBuf,
    path: PathBuf,
    known: Mutex<HashMap<PathBuf, Entry>>,
}

#[derive(Clone)]
struct Entry {
    changed: Option<SystemTime>,
    report: Option<Quarantined>,
    /// Whether the disk does not say what the report is.
    is_refused: bool,
    bytes: u64,
}

impl Quarantine {
    /// Makes it now, so that a full disk does not keep a damaged generation from being set aside.
    pub(super) fn open(log: &Path) -> io::Result<Self> {
        let path = log.join(NAME);
        fs::create_dir_all(&path)?;
        Ok(Self { log: log.to_owned(), path, known: Mutex::default() })
    }

    /// Moves the generation at `from` here; of one that is not there only the report is kept.
    pub(in crate::wal) fn take(&self, from: &Path, report: &Quarantined) -> Result<(), WalError> {
        let moved = self.try_take(from, report);
        self.known().clear();
        moved.map_err(|source| WalError::Io { what: "set a WAL generation aside", source })
    }

    fn try_take(&self, from: &Path, report: &Quarantined) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        // Never in the place of another: a log that was begun anew may have had the same offsets.
        let names = (2..).map(|n| format!("{}.{n}", report.id));
        let mut places = std::iter::once(report.id.clone()).chain(names);
        let place =
            places.find_map(|name| Some(self.path.join(name)).filter(|place| !place.exists()));
        let place = place.ok_or_else(|| io::Error::other("no name is left"))?;
        match fs::rename(from, &place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&place)?,
            moved => moved?,
        }
        // A full disk must not keep the log from going on: the report is a convenience.
        let written = File::create(place.join(REPORT)).and_then(|mut file| {
            serde_json::to_writer_pretty(&mut file, report)?;
            file.flush()
        });
        if let Err(error) = written {
            tracing::warn!(%error, generation = report.id, "the report on a WAL generation in quarantine could not be written");
        }
        sync_dir(&self.path)?;
        sync_dir(&self.log)
    }

    /// The reports, in the order in which they were written.
    ///
    /// # Errors
    /// If the disk does not read one that is there.
    pub(in crate::wal) fn reports(&self) -> Result<Vec<Quarantined>, WalError> {
        let mut reports = Vec::new();
        for (dir, entry) in self.entries()? {
            let again = || report(&dir).map_err(WalError::unread(dir.join(REPORT), ON_REPORT));
            reports.extend(if entry.is_refused { again()? } else { entry.report });
        }
        Ok(reports)
    }

    /// What they take, as far as the disk says.
    pub(in crate::wal) fn bytes(&self) -> u64 {
        let bytes = |entry: &Entry| entry.bytes;
        match self.entries() {
            Ok(entries) => entries.iter().map(|(_, entry)| bytes(entry)).sum(),
            Err(_) => self.known().values().map(bytes).sum(),
        }
    }

    /// Deletes the damaged generation that was written first, whichever was found damaged first, but for its
    /// report; never one of an unknown version, nor one without a report, of which nobody knows what it is.
    /// Returns whether there was one.
    pub(in crate::wal) fn evict(&self) -> Result<bool, WalError> {
        let entries = self.entries()?;
        let evictable = entries.iter().filter_map(|(dir, entry)| {
            let report = entry.report.as_ref()?;
            (report.unknown_version.is_none() && dir.join(DATA_FILE).exists())
                .then_some((dir, report))
        });
        // Their names are the offsets that they begin with.
        let Some((dir, report)) = evictable.min_by_key(|(dir, _)| dir.file_name()) else {
            return Ok(false);
        };
        tracing::warn!(
            generation = report.id,
            lost_ranges = ?report.lost_ranges,
            "no room is left: deleting the oldest damaged WAL generation from quarantine, what was intact in it is stored"
        );
        let emptied = empty(dir);
        self.known().clear();
        emptied
            .map_err(|source| WalError::Io { what: "empty a generation in quarantine", source })?;
        Ok(true)
    }

    /// Everything that is here, oldest report first; read anew where a directory has changed.
    fn entries(&self) -> Result<Vec<(PathBuf, Entry)>, WalError> {
        let list = || fs::read_dir(&self.path)?.collect::<io::Result<Vec<_>>>();
        let listed = read_again(list, thread::sleep);
        let listed = listed.map_err(WalError::unread(&self.path, ON_DIRECTORY))?;
        let mut known = self.known();
        let mut now = HashMap::new();
        for entry in listed {
            let path = entry.path();
            let changed = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let kept = known.remove(&path).filter(|kept| kept.changed == changed);
            let entry = kept.filter(|kept| !kept.is_refused).unwrap_or_else(|| {
                let (report, bytes) = (report(&path), bytes_in(&path).unwrap_or(0));
                let is_refused = report.is_err();
                Entry { changed, report: report.ok().flatten(), is_refused, bytes }
            });
            now.insert(path, entry);
        }
        known.clone_from(&now);
        drop(known);
        let mut all: Vec<_> = now.into_iter().collect();
        let at = |entry: &Entry| entry.report.as_ref().map(|report| report.at.clone());
        all.sort_by_cached_key(|(path, entry)| (at(entry), path.clone()));
        Ok(all)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was written down when the generation in `dir` was set aside; none if nothing was, or it is damaged.
///
/// # Errors
/// If the disk does not read it.
pub(in crate::wal) fn report(dir: &Path) -> io::Result<Option<Quarantined>> {
    match read_again(|| fs::read(dir.join(REPORT)), thread::sleep) {
        Ok(report) => Ok(serde_json::from_slice(&report).ok()),
        Err(error) if is_refusal(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Deletes everything in `dir` but the report.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != REPORT {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
