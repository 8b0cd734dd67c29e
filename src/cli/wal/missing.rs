//! What cannot be read, in words.

use std::fmt::Write as _;

use crate::base::number::with_commas;
use crate::base::output::complain;
use crate::wal::inspect::ExaminedGeneration;
use crate::wal::{Offset, OffsetRange};

/// What keeps an answer from being whole.
#[derive(Default)]
pub(super) struct Missing {
    pub(super) ranges: Vec<OffsetRange>,
    newer_versions: Vec<u16>,
}

impl Missing {
    pub(super) fn add(&mut self, generation: &ExaminedGeneration, from: Offset) {
        let ranges = generation.missing().iter().filter(|range| range.to >= from);
        self.ranges
            .extend(ranges.map(|range| OffsetRange { from: range.from.max(from), ..*range }));
        self.newer_versions.extend(generation.newer_versions());
    }

    /// Says so on standard error; whether there was something to say.
    pub(super) fn report(mut self) -> bool {
        self.newer_versions.sort_unstable();
        self.newer_versions.dedup();
        for version in &self.newer_versions {
            complain(&format!(
                "ingestor: some blocks are of version {version}, written by a newer version of this program: only that can read them"
            ));
        }
        if !self.ranges.is_empty() {
            let unreadable = unreadable(&self.ranges);
            complain(&format!("ingestor: {unreadable}; `ingestor wal verify` says where"));
        }
        !self.ranges.is_empty() || !self.newer_versions.is_empty()
    }
}

/// The first few of many ranges, in words.
fn unreadable(ranges: &[OffsetRange]) -> String {
    const SHOWN: usize = 3;
    let records = ranges.iter().map(OffsetRange::records).sum();
    let mut text = format!("{} records cannot be read, offsets", with_commas(records));
    for (at, OffsetRange { from, to }) in ranges.iter().take(SHOWN).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string does not fail.
        write!(text, "{comma} {from} to {to}").ok();
    }
    if ranges.len() > SHOWN {
        write!(text, " and {} more ranges", ranges.len() - SHOWN).ok();
    }
    text
}
