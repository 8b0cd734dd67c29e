//! Reading a generation that nobody writes to any more: its frames, picked out of the raw file.
//!
//! sled is never asked to recover a database. It does not report damage, it forgets: recovery
//! stops at the first bad spot of its log, and everything behind it is gone without an error, or
//! it panics. But values lie contiguous and uncompressed in the `db` file, and ours are frames
//! that carry their own offsets and checksum, so the file is read without it: what is intact
//! counts, wherever it lies. What is missing is for [`recovery`](super::recovery) to say.
//!
//! A disk that does not read is not yet a damaged file. Each read is tried again a few times. After
//! that, a block that a running process needs is an I/O error, which ends the process; and a page that
//! is not read when a file is opened, at the start too, is an error, or lost, as [`Bounds::unreadable`] says.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::contract::{Bounds, Sealed, Unreadable};
use super::directory::if_there;
use super::found::Found;
use super::index::{FrameSource, IndexedGeneration};
use super::offset::{Offset, OffsetRange};
use super::recovery::{Findings, Survey};
use crate::base::retry::read_again;

mod scan;

pub(super) use scan::PAGE_BYTES;

/// The raw file of a generation.
pub(super) struct RawFile {
    pub(super) file: File,
    path: PathBuf,
    disk_bytes: u64,
}

impl FrameSource for RawFile {
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }

    fn wait(&self, pause: Duration) {
        thread::sleep(pause);
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }
}

/// Looks for the frames of the generation that begins at `first` in the file at `path`, and calls `each`
/// with everything that it finds there. A file that is not there holds nothing.
///
/// # Errors
/// If the file cannot be opened, or not be read and `bounds` say that this is an error.
pub(super) fn survey(
    path: &Path,
    first: Offset,
    bounds: Bounds,
    mut each: impl FnMut(u64, Found),
) -> io::Result<(IndexedGeneration<RawFile>, Findings)> {
    let file = match if_there(read_again(|| File::open(path), thread::sleep))? {
        Some(file) => file,
        None => File::open("/dev/null")?,
    };
    let mut survey = Survey::new(first, bounds);
    let mut unreadable = None;
    scan::scan(&file, |position, found| {
        survey.add(position, &found);
        match found {
            Found::Unreadable(error) if bounds.unreadable == Unreadable::IsAnError => {
                unreadable.get_or_insert(error);
            }
            found => each(position, found),
        }
    })?;
    if let Some(error) = unreadable {
        return Err(error);
    }
    let (frames, findings) = survey.finish();
    let disk_bytes = file.metadata()?.len();
    let source = RawFile { file, path: path.to_owned(), disk_bytes };
    Ok((IndexedGeneration { source, frames }, findings))
}

/// Opens the raw file at `path`, of the generation that begins at `first`, to be read. A file that is
/// not there holds nothing.
///
/// # Errors
/// As [`survey`].
pub(super) fn open(path: &Path, first: Offset, bounds: Bounds) -> io::Result<Sealed> {
    let mut unreadable_pages = 0;
    let (generation, findings) = survey(path, first, bounds, |position, found| {
        if let Found::Unreadable(error) = found {
            unreadable_pages += 1;
            if unreadable_pages == 1 {
                tracing::error!(
                    path = %path.display(),
                    position,
                    %error,
                    "the disk does not read a page of a WAL generation, though it was asked several times: what only this page holds counts as lost, the rest goes on; the file is set aside in quarantine once the rest is stored, for tools that rescue what a disk still gives"
                );
            }
        }
    })?;
    if unreadable_pages > 1 {
        tracing::error!(
            path = %path.display(),
            unreadable_pages,
            "the number of pages of this WAL generation that the disk does not read"
        );
    }
    for OffsetRange { from, to } in &findings.cut_off {
        tracing::warn!(
            from,
            to,
            "these offsets of the last commit group are not in the log: it was cut off while it was written, and was not acknowledged"
        );
    }
    Ok(findings.seal(first, generation))
}
