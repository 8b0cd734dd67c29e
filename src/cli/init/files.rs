//! The files of an installation: what is there already, and writing them with the right modes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) path: PathBuf,
    pub(super) content: String,
    pub(super) mode: u32,
    /// Whose members read it, if that is not the group of whoever writes.
    pub(super) group: Option<u32>,
}

/// What stands in `path`; `None` if it is not there.
///
/// # Errors
/// A line that names it.
pub(super) fn existing(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Makes `dir` and what is missing above it.
///
/// # Errors
/// A line that names it.
pub(super) fn make_dir(dir: &Path, mode: u32) -> Result<(), String> {
    let outcome = DirBuilder::new().recursive(true).mode(mode).create(dir);
    outcome.map_err(|error| format!("cannot make {}: {error}", dir.display()))
}

/// Writes `file`: the whole of it, or nothing. One that is there keeps its owner's right to it, and no
/// right of others that this mode does not give.
///
/// # Errors
/// A line that names it.
pub(super) fn write(file: &Planned) -> Result<(), String> {
    let Planned { path, content, mode, group } = file;
    let part = path.with_extension("init-part");
    let written = || {
        fs::remove_file(&part).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let mut options = OpenOptions::new();
        let mut target = options.write(true).create_new(true).mode(*mode).open(&part)?;
        if let Some(group) = *group {
            fchown(&target, None, Some(group))?;
        }
        // Whatever the umask is.
        target.set_permissions(fs::Permissions::from_mode(*mode))?;
        target.write_all(content.as_bytes())?;
        target.sync_all()?;
        fs::rename(&part, path)
    };
    written().map_err(|error| format!("cannot write {}: {error}", path.display()))
}
