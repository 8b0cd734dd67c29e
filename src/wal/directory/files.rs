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

/// Bytes that the files in `dir` take.
pub(in crate::wal) fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
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
