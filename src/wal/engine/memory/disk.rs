//! What is in a generation, as the process sees it and as a power cut leaves it.
//!
//! Each insert and each removal that no completed sync covers is, when the power goes, kept, dropped or
//! torn. After a sync that failed nothing says any more that what it was to cover is not on the disk, nor
//! is it: the kernel reports lost pages once, and the next sync succeeds without them.

use std::collections::{BTreeMap, BTreeSet};

use crate::wal::frame::{self, HEADER_BYTES};
use crate::wal::offset::{Offset, OffsetRange};

/// What a power cut makes of a write that no completed sync covers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Kept,
    Dropped,
    /// Only the first part of it was written, this share of it.
    Torn(f64),
}

/// The blocks of a generation by their first offset.
#[derive(Default)]
pub(super) struct Contents {
    blocks: BTreeMap<Offset, Vec<u8>>,
    bytes: u64,
    /// What was there on the disk before, of all that no completed sync covers.
    before: BTreeMap<Offset, Option<Vec<u8>>>,
    /// What a sync that failed was to cover, which none will.
    beyond_sync: BTreeSet<Offset>,
    /// Blocks that the disk does not read, and how many more times not.
    read_errors: BTreeMap<Offset, u32>,
}

impl Contents {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn insert(&mut self, first: Offset, frame: &[u8]) {
        self.replace(first, Some(frame.to_vec()));
    }

    /// Takes the blocks out that end at or below `flushed`.
    pub(super) fn remove_below(&mut self, flushed: Offset) {
        while let Some((first, frame)) = self.blocks.first_key_value() {
            if !frame::check(frame).is_ok_and(|header| header.end() <= flushed) {
                return;
            }
            let first = *first;
            self.replace(first, None);
        }
    }

    fn replace(&mut self, first: Offset, frame: Option<Vec<u8>>) {
        self.bytes += frame.as_ref().map_or(0, |frame| frame.len() as u64);
        let before = match frame {
            Some(frame) => self.blocks.insert(first, frame),
            None => self.blocks.remove(&first),
        };
        self.bytes -= before.as_ref().map_or(0, |frame| frame.len() as u64);
        self.before.entry(first).or_insert(before);
    }

    pub(super) fn sync(&mut self) {
        let beyond = &self.beyond_sync;
        self.before.retain(|first, _| beyond.contains(first));
    }

    pub(super) fn fail_sync(&mut self) {
        self.beyond_sync.extend(self.before.keys().copied());
    }

    /// What the power cut leaves: `fate` is asked for each write that no completed sync covers.
    pub(super) fn cut_power(&mut self, fate: &mut dyn FnMut() -> Fate) {
        self.beyond_sync.clear();
        for (first, before) in std::mem::take(&mut self.before) {
            let now = self.blocks.get(&first).cloned();
            let left = match fate() {
                Fate::Kept => continue,
                Fate::Dropped => before,
                Fate::Torn(share) => now.or(before).map(|frame| torn(frame, share)),
            };
            self.replace(first, left);
        }
        self.before.clear();
    }

    /// The block that holds `offset`, or the first one behind it, as far as their headers are known.
    pub(super) fn block_at(&self, offset: Offset) -> Option<(Offset, &[u8])> {
        let below = self.blocks.range(..=offset).next_back();
        let below = below.filter(|(_, frame)| {
            frame::envelope(frame).map_or(true, |header| header.end() > offset)
        });
        let found = below.or_else(|| self.blocks.range(offset + 1..).next());
        found.map(|(first, frame)| (*first, frame.as_slice()))
    }

    pub(super) fn get(&self, first: Offset) -> Option<&[u8]> {
        self.blocks.get(&first).map(Vec::as_slice)
    }

    pub(super) fn firsts(&self) -> Vec<Offset> {
        self.blocks.keys().copied().collect()
    }

    /// Flips a bit of the block that begins at `first`, wherever it is kept.
    pub(super) fn flip_bit(&mut self, first: Offset, bit: usize) {
        if let Some(frame) = self.blocks.get_mut(&first) {
            let bit = bit % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    pub(super) fn fail_reads(&mut self, first: Offset, times: u32) {
        self.read_errors.insert(first, times);
    }

    #[cfg(test)]
    pub(super) fn mend_reads(&mut self) {
        self.read_errors.clear();
    }

    /// Whether the disk reads the block that begins at `first`, this time.
    pub(super) fn reads(&mut self, first: Offset) -> bool {
        match self.read_errors.get_mut(&first) {
            None | Some(0) => true,
            // For good.
            Some(&mut u32::MAX) => false,
            Some(times) => {
                *times -= 1;
                false
            }
        }
    }

    /// The offsets in the block that begins at `first`.
    pub(super) fn offsets(&self, first: Offset) -> Option<OffsetRange> {
        let header = frame::envelope(self.get(first)?).ok()?;
        Some(OffsetRange { from: header.first, to: header.end() - 1 })
    }
}

/// What is left of a frame of which only a first part was written.
fn torn(mut frame: Vec<u8>, share: f64) -> Vec<u8> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a short length"
    )]
    let kept = (frame.len() as f64 * share) as usize;
    // Something of it is always amiss, or it would not be torn.
    let kept = kept.min(frame.len() - 1).max(HEADER_BYTES.min(frame.len() - 1) / 2);
    frame[kept..].fill(0);
    if let Some(last) = frame.last_mut() {
        *last = !*last;
    }
    frame
}
