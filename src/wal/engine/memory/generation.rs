//! A generation in memory, as it is written and as it is read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::Contents;
use super::faults::{Faults, read_error};
use crate::base::retry::read_again;
use crate::wal::contract::{Active, Bounds, Generation, Sealed, Unreadable, generation_id};
use crate::wal::error::{ON_GENERATION, WalError};
use crate::wal::found::Found;
use crate::wal::frame::{self, Block, MAGIC};
use crate::wal::index::{FrameSource, IndexedGeneration};
use crate::wal::offset::Offset;
use crate::wal::recovery::Survey;

/// Handles on it go on working when it is deleted, as descriptors of a deleted file do.
pub(super) struct MemoryGeneration {
    contents: Mutex<Contents>,
    faults: Arc<Mutex<Faults>>,
}

impl MemoryGeneration {
    pub(super) fn new(faults: Arc<Mutex<Faults>>) -> Self {
        Self { contents: Mutex::default(), faults }
    }

    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it to be read, as the raw file of a generation on disk is opened.
    pub(super) fn open(
        generation: &Arc<Self>,
        first: Offset,
        bounds: Bounds,
    ) -> Result<Sealed, WalError> {
        let mut survey = Survey::new(first, bounds);
        let mut contents = generation.contents();
        for block in contents.firsts() {
            let mut read = || if contents.reads(block) { Ok(()) } else { Err(read_error()) };
            let is_read = match read_again(&mut read, |_| {}) {
                Err(error) if bounds.unreadable == Unreadable::IsAnError => {
                    return Err(WalError::unread(generation_id(first), ON_GENERATION)(error));
                }
                read => read.is_ok(),
            };
            match contents.get(block).filter(|frame| is_read && frame.starts_with(&MAGIC)) {
                Some(frame) => survey.add(block, &Found::at_start_of(frame)),
                None => survey.add(block, &Found::Unreadable(read_error())),
            }
        }
        drop(contents);
        let (frames, findings) = survey.finish();
        let generation = Arc::clone(generation);
        let source = SealedSource { generation, path: generation_id(first).into() };
        Ok(findings.seal(first, IndexedGeneration { source, frames }))
    }
}

/// Reads of a generation that is only read. A position is the offset of a block.
struct SealedSource {
    generation: Arc<MemoryGeneration>,
    path: PathBuf,
}

impl FrameSource for SealedSource {
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let mut contents = self.generation.contents();
        if !contents.reads(position) {
            return Err(read_error());
        }
        let frame = contents.get(position).filter(|frame| frame.len() >= buffer.len());
        let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(&frame[..buffer.len()]);
        Ok(())
    }

    fn wait(&self, _: Duration) {}

    fn path(&self) -> &Path {
        &self.path
    }

    fn disk_bytes(&self) -> u64 {
        self.generation.contents().bytes()
    }
}

impl Generation for MemoryGeneration {
    fn block_at(&self, offset: Offset) -> Result<Option<Block>, WalError> {
        let mut contents = self.contents();
        let Some((first, _)) = contents.block_at(offset) else { return Ok(None) };
        let io = |source| WalError::Io { what: "read back from the WAL", source };
        if !contents.reads(first) {
            return Err(io(read_error()));
        }
        let frame = contents.get(first).unwrap_or_default();
        let damaged = |error| io(io::Error::new(io::ErrorKind::InvalidData, error));
        frame::decode(frame).map(Some).map_err(damaged)
    }

    fn disk_bytes(&self) -> u64 {
        self.contents().bytes()
    }
}

impl Active for MemoryGeneration {
    fn insert(&self, first: Offset, frame: &[u8]) -> Result<(), WalError> {
        let io = |source| WalError::Io { what: "write to the WAL", source };
        self.faults().write(frame.len() as u64).map_err(io)?;
        self.contents().insert(first, frame);
        Ok(())
    }

    fn sync(&self) -> Result<(), WalError> {
        let synced = self.faults().sync();
        match &synced {
            Ok(()) => self.contents().sync(),
            Err(_) => self.contents().fail_sync(),
        }
        synced.map_err(|source| WalError::Io { what: "sync the WAL", source })
    }

    fn remove_below(&self, flushed: Offset) -> Result<(), WalError> {
        let io = |source| WalError::Io { what: "free space in the WAL", source };
        self.faults().write(0).map_err(io)?;
        let mut contents = self.contents();
        let before = contents.bytes();
        contents.remove_below(flushed);
        let freed = before - contents.bytes();
        drop(contents);
        self.faults().free(freed);
        Ok(())
    }

    fn as_generation(self: Arc<Self>) -> Arc<dyn Generation> {
        self
    }
}
