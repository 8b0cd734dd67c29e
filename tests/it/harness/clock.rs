//! A time of day that a test sets, for one service alone, by libfaketime.

use std::fs;
use std::path::Path;

use super::Service;

/// Where Debian's package `faketime` puts it.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// More than half a century: the clock of a box that starts in 1970, or soon after.
pub(crate) const UNSET: &str = "-20000d";

impl Service {
    /// With a clock that [`Self::set_clock`] sets; it is right at first.
    pub(crate) fn with_clock(self) -> Self {
        let library = FAKETIME.iter().find(|path| Path::new(path).exists());
        let library = library.expect("libfaketime is needed: apt-get install faketime");
        let clock = self.dir().join("clock").display().to_string();
        let service = self
            .set("LD_PRELOAD", library)
            .set("FAKETIME_TIMESTAMP_FILE", clock)
            .set("FAKETIME_NO_CACHE", 1)
            .set("FAKETIME_DONT_FAKE_MONOTONIC", 1);
        service.set_clock("+0");
        service
    }

    /// Sets the clock this far from the right time, as libfaketime has it: `-1d`, `+0`.
    pub(crate) fn set_clock(&self, off_by: &str) {
        let clock = self.dir().join("clock");
        // Whole or not at all: it is read all the time.
        fs::write(clock.with_extension("new"), off_by).unwrap();
        fs::rename(clock.with_extension("new"), clock).unwrap();
    }
}
