//! How much the store may take.

use crate::base::settings::{Setting, Sources};

const MIB: u64 = 1024 * 1024;

/// What can be set here, and what holds if it is not.
pub(crate) const SETTINGS: &[Setting] = &[Setting::new(
    "DEAD_LETTER_MAX_BYTES",
    "67108864",
    "limit of the dead-letter store in bytes; beyond it the oldest are dropped and counted; rows that the database refused are never dropped, and may take three quarters of it",
)];

/// How much the store may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Bytes on disk.
    pub(crate) max_bytes: u64,
}

impl Settings {
    /// Reads them.
    #[must_use]
    pub(crate) fn read(from: &mut Sources) -> Self {
        Self { max_bytes: from.number("DEAD_LETTER_MAX_BYTES", 64 * MIB, MIB..=1 << 32) }
    }

    /// Every setting as name and value.
    #[must_use]
    pub(crate) fn describe(&self) -> Vec<(&'static str, String)> {
        vec![("DEAD_LETTER_MAX_BYTES", self.max_bytes.to_string())]
    }
}
