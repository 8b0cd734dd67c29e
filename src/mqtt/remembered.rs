//! The filters that the session at the broker has, kept in a file for the next process.
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
}

#[derive(Serialize, Deserialize)]
struct Content {
    broker: String,
    client_id: String,
    filters: Filters,
}

impl Remembered {
    /// The file in `dir` for the session that `settings` name.
    pub(super) fn new(dir: &Path, settings: &Settings) -> Self {
        let broker = format!("{}:{}", settings.broker, settings.port);
        Self { path: dir.join(NAME), broker, client_id: settings.client_id.clone() }
    }

    /// What an earlier process has left for this session.
    pub(super) fn load(&self) -> Filters {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.complain(&error, "read");
                }
                return Filters::default();
            }
        };
        match serde_json::from_slice(&text) {
            Ok(Content { broker, client_id, filters })
                if (&broker, &client_id) == (&self.broker, &self.client_id) =>
            {
                filters
            }
            Ok(_) => Filters::default(),
            Err(error) => {
                self.complain(&error.into(), "read");
                Filters::default()
            }
        }
    }

    /// Makes `filters` durable.
    pub(super) fn store(&self, filters: Filters) {
        let Self { broker, client_id, .. } = self;
        let content = Content { broker: broker.clone(), client_id: client_id.clone(), filters };
        let stored = serde_json::to_vec(&content).map_err(io::Error::from);
        if let Err(error) = stored.and_then(|text| replace(&self.path, &text)) {
            self.complain(&error, "write");
        }
    }

    fn complain(&self, error: &io::Error, what: &str) {
        tracing::warn!(
            %error,
            file = %self.path.display(),
            "cannot {what} which filters the broker has granted: they are asked for again, and one that is not wanted any more may stay"
        );
    }
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
