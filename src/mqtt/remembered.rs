//! The filters that the session at the broker has, kept in a file for the next process; and whether this
//! one has left the broker in order, all acknowledged, so that nothing is delivered again.
//!
//! They belong to one session, so the file says whose: with another broker or client id it counts as
//! missing, and then the filters are asked for, as by a process that is here for the first time.
//! That is also the worst that a lost or damaged file can bring about.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::session::Filters;
use super::settings::Settings;

const NAME: &str = "mqtt-filters.json";

/// The file.
pub(super) struct Remembered {
    path: PathBuf,
    broker: String,
    client_id: String,
    filters: Filters,
    is_settled: bool,
    /// Whether the file says the same.
    is_stored: bool,
}

#[derive(Serialize, Deserialize)]
struct Content {
    broker: String,
    client_id: String,
    filters: Filters,
    #[serde(default)]
    is_settled: bool,
}

impl Remembered {
    /// The file in `dir` for the session that `settings` name, with what an earlier process has left for
    /// it.
    pub(super) fn new(dir: &Path, settings: &Settings) -> Self {
        let mut remembered = Self {
            path: dir.join(NAME),
            broker: format!("{}:{}", settings.broker, settings.port),
            client_id: settings.client_id.clone(),
            filters: Filters::default(),
            is_settled: false,
            is_stored: true,
        };
        remembered.load();
        remembered
    }

    /// What is remembered of the filters.
    pub(super) fn filters(&self) -> Filters {
        self.filters.clone()
    }

    /// Whether nothing is delivered again.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    fn load(&mut self) {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.complain(&error, "read");
                }
                return;
            }
        };
        match serde_json::from_slice(&text) {
            Ok(Content { broker, client_id, filters, is_settled })
                if (&broker, &client_id) == (&self.broker, &self.client_id) =>
            {
                (self.filters, self.is_settled) = (filters, is_settled);
            }
            Ok(_) => {}
            Err(error) => self.complain(&error.into(), "read"),
        }
    }

    /// Makes `filters` durable.
    pub(super) fn store(&mut self, filters: Filters) {
        self.filters = filters;
        self.is_stored = self.write();
    }

    /// Makes it durable whether something may be delivered again.
    pub(super) fn note_settled(&mut self, is_settled: bool) {
        if self.is_settled == is_settled && self.is_stored {
            return;
        }
        self.is_settled = is_settled;
        self.is_stored = self.write();
        // What the file says instead must not be believed: without it, something may be delivered again. No
        // room is needed for that.
        if !self.is_stored && !is_settled {
            self.is_stored = fs::remove_file(&self.path).is_ok();
        }
    }

    /// Whether that could be done.
    fn write(&self) -> bool {
        let content = Content {
            broker: self.broker.clone(),
            client_id: self.client_id.clone(),
            filters: self.filters.clone(),
            is_settled: self.is_settled,
        };
        let stored = serde_json::to_vec(&content).map_err(io::Error::from);
        let stored = stored.and_then(|text| replace(&self.path, &text));
        if let Err(error) = &stored {
            self.complain(error, "write");
        }
        stored.is_ok()
    }

    fn complain(&self, error: &io::Error, what: &str) {
        tracing::warn!(
            %error,
            file = %self.path.display(),
            "cannot {what} which filters the broker has granted: they are asked for again, and one that is not wanted any more may stay"
        );
    }
}

/// Whether the process before has left the broker in order, with nothing to be delivered again.
pub(crate) fn was_settled(dir: &Path, settings: &Settings) -> bool {
    Remembered::new(dir, settings).is_settled()
}

/// Replaces the file, so that a power cut leaves the old one or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
