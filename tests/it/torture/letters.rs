//! The dead-letter store, as it lies on the disk.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::harness::service::DeadLetter;

/// Payloads of the letters in a store; torn lines are no letters.
pub(super) fn dead_letters(dir: &Path) -> HashSet<String> {
    let Ok(segments) = fs::read_dir(dir) else { return HashSet::new() };
    let text = segments.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect::<Vec<_>>();
    let lines = text.iter().flat_map(|text| text.split(|byte| *byte == b'\n'));
    let letter = |line: &[u8]| {
        let (sum, json) = line.split_at_checked(9)?;
        let is_intact = sum == format!("{:08x} ", crc32fast::hash(json)).as_bytes();
        is_intact.then(|| serde_json::from_slice::<DeadLetter>(json).ok()).flatten()
    };
    lines.filter_map(letter).map(|letter| letter.payload_text()).collect()
}
