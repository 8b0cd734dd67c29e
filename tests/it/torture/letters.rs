//! The dead-letter store, as it lies on the disk.

use std::collections::HashSet;
use std::path::Path;

use crate::harness::service::DeadLetter;

/// Payloads of the letters in a store; torn lines are no letters.
pub(super) fn dead_letters(dir: &Path) -> HashSet<String> {
    DeadLetter::all_in(dir).iter().map(DeadLetter::payload_text).collect()
}
