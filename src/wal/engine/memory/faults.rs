//! What goes wrong with the place in memory, as its tests ask for it.

use std::io;

/// What goes wrong from now on.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) fail_next_sync: bool,
    pub(super) fail_next_create: bool,
    /// The disk reads blocks and nothing else: neither positions, nor reports, nor sizes.
    pub(super) reads_only_blocks: bool,
    pub(super) capacity: Option<u64>,
    pub(super) used: u64,
    /// Calls that still work before the power goes; all fail after that.
    pub(super) power_left: Option<u32>,
}

pub(super) fn read_error() -> io::Error {
    io::Error::other("injected: the disk does not read")
}

impl Faults {
    /// A call that changes the disk: whether the machine is still on.
    pub(super) fn call(&mut self) -> io::Result<()> {
        match &mut self.power_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("injected: the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// A read of anything but a block.
    pub(super) fn read(&self) -> io::Result<()> {
        if self.reads_only_blocks {
            return Err(read_error());
        }
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: u64) -> io::Result<()> {
        self.call()?;
        if bytes > 0 && self.capacity.is_some_and(|capacity| self.used + bytes > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used += bytes;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.call()?;
        if std::mem::take(&mut self.fail_next_sync) {
            return Err(io::Error::other("injected: the sync failed"));
        }
        Ok(())
    }

    pub(super) fn free(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }
}
