//! What stands where in the log: for each stretch of it, from when to when its readings were measured.
//!
//! A reading carries the time of its device and not that of its receipt, so the newest readings may stand
//! anywhere. Who looks for them reads the stretches with the newest times first, and knows when it has them.
//!
//! It is made as blocks are committed, and costs a comparison a record. Of what an earlier process has left
//! nothing is known before somebody has read it. However much waits, there are at most [`MOST`] stretches:
//! past that, two neighbours become one.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::time::Timestamp;
use crate::wal::frame::Block;
use crate::wal::offset::Offset;

/// A run of consecutive records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The offset of its first record.
    pub(crate) first: Offset,
    /// One past that of its last.
    pub(crate) end: Offset,
    /// The earliest time that a device has given.
    pub(crate) oldest: Timestamp,
    /// The latest.
    pub(crate) newest: Timestamp,
}

impl Stretch {
    /// `None` if there is no record in it.
    pub(super) fn of(block: &Block) -> Option<Self> {
        let mut times = block.readings.iter().map(crate::telemetry::Record::timestamp);
        let one = times.next()?;
        let (oldest, newest) = times
            .fold((one, one), |(oldest, newest), at: Timestamp| (oldest.min(at), newest.max(at)));
        Some(Self { first: block.first, end: block.end(), oldest, newest })
    }

    fn records(&self) -> u64 {
        self.end - self.first
    }

    /// Both, of which `next` comes later in the log.
    fn joined(self, next: Self) -> Self {
        Self {
            first: self.first,
            end: next.end,
            oldest: self.oldest.min(next.oldest),
            newest: self.newest.max(next.newest),
        }
    }
}

/// Of what is no longer in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// The latest time of a reading that this process has seen, and trimmed.
    pub(crate) newest: Option<Timestamp>,
    /// Of what is gone from below this offset, nothing is known.
    pub(crate) unknown_below: Offset,
}

/// Records of a stretch, as long as there are few of them.
const RECORDS: u64 = 512;
const MOST: usize = 64 * 1_024;
/// Of a chunk, which is copied if somebody reads it while it grows.
const CHUNK: usize = 1_024;

const _: () = assert!(MOST.is_multiple_of(CHUNK));

/// The stretches of the log, oldest first.
pub(super) struct Stretches {
    chunks: VecDeque<Arc<Vec<Stretch>>>,
    /// Records at which a stretch is long enough.
    enough: u64,
    /// From here on every committed record is in one.
    from: Offset,
    gone: Gone,
}

impl Stretches {
    /// Of a log that an earlier process has written up to `next`, and trimmed up to `trimmed`.
    pub(super) fn new(trimmed: Offset, next: Offset) -> Self {
        let gone = Gone { newest: None, unknown_below: trimmed };
        Self { chunks: VecDeque::new(), enough: RECORDS, from: next, gone }
    }

    /// Adds what was committed last.
    pub(super) fn push(&mut self, stretch: Stretch) {
        if let Some(last) = self.chunks.back_mut() {
            let last = Arc::make_mut(last);
            if let Some(before) = last.last_mut()
                && before.records() < self.enough
                && before.end == stretch.first
            {
                *before = before.joined(stretch);
                return;
            }
            if last.len() < CHUNK {
                last.push(stretch);
                return;
            }
        }
        if self.chunks.len() >= MOST / CHUNK {
            self.halve();
        }
        let mut chunk = Vec::with_capacity(CHUNK);
        chunk.push(stretch);
        self.chunks.push_back(Arc::new(chunk));
    }

    pub(super) fn known_from(&self) -> Offset {
        self.from
    }

    /// Adds what stands before all others, from `first` on; `None` if nothing of it can be read.
    pub(super) fn extend_back(&mut self, first: Offset, stretch: Option<Stretch>) {
        self.from = first;
        let Some(stretch) = stretch else { return };
        if self.chunks.len() >= MOST / CHUNK {
            self.halve();
        }
        match self.chunks.front_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).insert(0, stretch),
            _ => self.chunks.push_front(Arc::new(vec![stretch])),
        }
    }

    fn halve(&mut self) {
        self.enough *= 2;
        let all: Vec<Stretch> = self.chunks.drain(..).flat_map(|chunk| chunk.to_vec()).collect();
        let pairs: Vec<Stretch> =
            all.chunks(2).filter_map(|pair| pair.iter().copied().reduce(Stretch::joined)).collect();
        self.chunks.extend(pairs.chunks(CHUNK).map(|chunk| Arc::new(chunk.to_vec())));
    }

    /// Everything below `trimmed` is given up.
    pub(super) fn trim(&mut self, trimmed: Offset) {
        let unknown = trimmed.min(self.from);
        self.gone.unknown_below = self.gone.unknown_below.max(unknown);
        while let Some(chunk) = self.chunks.front_mut() {
            let done = chunk.partition_point(|stretch| stretch.end <= trimmed);
            // One that is trimmed in part counts as gone, too.
            let touched = chunk.partition_point(|stretch| stretch.first < trimmed);
            let newest = chunk[..touched].iter().map(|stretch| stretch.newest).max();
            self.gone.newest = self.gone.newest.max(newest);
            if done < chunk.len() {
                if done > 0 {
                    Arc::make_mut(chunk).drain(..done);
                }
                return;
            }
            self.chunks.pop_front();
        }
    }

    pub(super) fn gone(&self) -> Gone {
        self.gone
    }

    /// From which offset on all are known, and the stretches that reach beyond `from`, oldest first.
    pub(super) fn beyond(&self, from: Offset) -> (Offset, Vec<Arc<Vec<Stretch>>>) {
        let reaches = |chunk: &&Arc<Vec<Stretch>>| chunk.last().is_some_and(|one| one.end > from);
        (self.from, self.chunks.iter().filter(reaches).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000).unwrap()
    }

    fn stretch(first: Offset, records: u64, seconds: [i64; 2]) -> Stretch {
        let [oldest, newest] = seconds.map(at);
        Stretch { first, end: first + records, oldest, newest }
    }

    fn all(stretches: &Stretches) -> Vec<Stretch> {
        stretches.beyond(0).1.iter().flat_map(|chunk| chunk.to_vec()).collect()
    }

    #[test]
    fn small_blocks_share_a_stretch_and_a_gap_ends_one() {
        let mut stretches = Stretches::new(0, 100);
        stretches.push(stretch(100, 10, [5, 6]));
        stretches.push(stretch(110, 10, [1, 2]));
        stretches.push(stretch(130, 600, [9, 9]));
        stretches.push(stretch(730, 1, [7, 7]));
        let expected =
            [stretch(100, 20, [1, 6]), stretch(130, 600, [9, 9]), stretch(730, 1, [7, 7])];
        assert_eq!(all(&stretches), expected);
        assert_eq!(stretches.beyond(0).0, 100);
    }

    #[test]
    fn what_is_trimmed_leaves_the_latest_time_of_it_behind() {
        let mut stretches = Stretches::new(7, 100);
        assert_eq!(stretches.gone(), Gone { newest: None, unknown_below: 7 });
        stretches.push(stretch(100, 600, [5, 8]));
        stretches.push(stretch(700, 600, [1, 2]));
        stretches.push(stretch(1_300, 600, [20, 30]));
        stretches.trim(50);
        assert_eq!(stretches.gone(), Gone { newest: None, unknown_below: 50 });
        stretches.trim(1_000);
        assert_eq!(stretches.gone(), Gone { newest: Some(at(8)), unknown_below: 100 });
        assert_eq!(all(&stretches)[0].first, 700);
        // Of which nobody knows whether the latest is among what is gone.
        stretches.trim(1_301);
        assert_eq!(stretches.gone().newest, Some(at(30)));
        stretches.trim(1_900);
        assert!(all(&stretches).is_empty());
    }

    #[test]
    fn however_much_is_committed_there_is_a_bounded_number_of_stretches_that_cover_it() {
        let mut stretches = Stretches::new(0, 0);
        let blocks = MOST as u64 * 3;
        for block in 0..blocks {
            stretches.push(stretch(block * 600, 600, [1, i64::try_from(block).unwrap()]));
        }
        let all = all(&stretches);
        assert!(all.len() <= MOST, "{}", all.len());
        assert!(all.is_sorted_by(|one, next| one.end == next.first));
        assert_eq!(all.last().unwrap().end, blocks * 600);
        assert_eq!(all.last().unwrap().newest, at(i64::try_from(blocks).unwrap() - 1));
    }
}
