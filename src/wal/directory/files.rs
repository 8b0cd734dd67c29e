//! Files and directories of the log, whoever looks at them.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use crate::wal::offset::Offset;

/// sled's file in a generation, the one with the blocks.
pub(in crate::wal) const DATA_FILE: &str = "db";

/// The generations in a directory, oldest first.
pub(in crate::wal) fn generations(dir: &Path) -> io::Result<Vec<Offset>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(first) = first_offset(&entry.file_name())
        {
            all.push(first);
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// What the name of a generation's directory says.
pub(in crate::wal) fn first_offset(name: &OsStr) -> Option<Offset> {
    let is_id = |name: &&str| name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    name.to_str().filter(is_id)?.parse().ok()
}

/// Bytes that the files in `dir` take, as far as they are there.
pub(in crate::wal) fn bytes_in(dir: &Path) -> io::Result<u64> {
    let Some(entries) = if_there(fs::read_dir(dir))? else { return Ok(0) };
    let mut bytes = 0;
    for entry in entries {
        bytes += if_there(entry?.metadata())?.map_or(0, |file| file.len());
    }
    Ok(bytes)
}

/// What was found; none if it is not there.
pub(in crate::wal) fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// How files that stay are opened.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
}

/// Makes `dir` and what is missing above it, durably. Its own name is made durable even if it was
/// there: whoever made it may not have come to that.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let missing = dir.ancestors().skip(1).take_while(|ancestor| !ancestor.exists()).count();
    fs::create_dir_all(&dir)?;
    dir.ancestors().skip(1).take(missing + 1).try_for_each(sync_dir)
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
