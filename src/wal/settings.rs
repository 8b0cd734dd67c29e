//! Where the log is, and how much it may take.

use std::path::PathBuf;
use std::time::Duration;

use crate::base::settings::{Setting, Sources};

const MIB: u64 = 1024 * 1024;

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("WAL_DIR", "data/wal", "directory of the log"),
    Setting::new("WAL_MAX_BYTES", "1073741824", "bytes on disk at which the log counts as full"),
    Setting::new(
        "WAL_MIN_FREE_BYTES",
        "67108864",
        "free bytes of its filesystem below which the log counts as full",
    ),
    Setting::new(
        "WAL_GENERATION_BYTES",
        "67108864",
        "bytes at which a new generation starts; a quarter of `WAL_MAX_BYTES` at most is used",
    ),
    Setting::new(
        "WAL_RETAIN_SECS",
        "60",
        "seconds that flushed readings stay in the log, to be sent again when the database has gone back in time; at most an eighth of `WAL_MAX_BYTES`, and only while the room is not needed",
    ),
];

/// The write-ahead log's place and limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The directory; generations, dead letters and the quarantine lie in it.
    pub(crate) dir: PathBuf,
    /// Bytes on disk at which the log counts as full.
    pub(crate) max_bytes: u64,
    /// Free bytes on the filesystem under which the log counts as full.
    pub(crate) min_free_bytes: u64,
    /// Size at which a new generation starts.
    pub(crate) generation_bytes: u64,
    /// How long flushed records stay in the log.
    pub(crate) retain: Duration,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub(crate) fn read(from: &mut Sources) -> Self {
        Self {
            dir: Self::read_dir(from),
            max_bytes: from.number("WAL_MAX_BYTES", 1_024 * MIB, 4 * MIB..=1 << 50),
            min_free_bytes: from.number("WAL_MIN_FREE_BYTES", 64 * MIB, 0..=1 << 50),
            generation_bytes: from.number("WAL_GENERATION_BYTES", 64 * MIB, MIB..=1 << 32),
            retain: Duration::from_secs(from.number("WAL_RETAIN_SECS", 60, 0..=86_400)),
        }
    }

    /// Reads the directory alone.
    #[must_use]
    pub(crate) fn read_dir(from: &mut Sources) -> PathBuf {
        from.value("WAL_DIR", PathBuf::from("data/wal"), "a directory")
    }

    /// Every setting as name and value.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        vec![
            ("WAL_DIR", self.dir.display().to_string()),
            ("WAL_MAX_BYTES", self.max_bytes.to_string()),
            ("WAL_MIN_FREE_BYTES", self.min_free_bytes.to_string()),
            ("WAL_GENERATION_BYTES", self.generation_bytes.to_string()),
            ("WAL_RETAIN_SECS", self.retain.as_secs().to_string()),
        ]
    }
}
