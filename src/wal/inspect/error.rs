//! Why there is nothing to look at.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
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

pub(super) fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> InspectError {
    let path = path.to_owned();
    |source| InspectError::Io { path, source }
}
