//! Offsets: the numbers of records, and ranges of them.

/// The number of a record in the log, from 0 on, never reused.
pub type Offset = u64;

/// A range of offsets, inclusive at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OffsetRange {
    /// The first offset.
    pub from: Offset,
    /// The last offset.
    pub to: Offset,
}

impl OffsetRange {
    /// How many offsets that are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.to - self.from + 1
    }
}

/// The same offsets in as few ranges as they fit in, in order. Damage is found block by block, and a
/// torn stretch of a disk would otherwise be a thousand reports of one loss.
pub(super) fn merged(mut ranges: Vec<OffsetRange>) -> Vec<OffsetRange> {
    ranges.sort_unstable_by_key(|range| range.from);
    let mut merged: Vec<OffsetRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.from <= last.to.saturating_add(1) => {
                last.to = last.to.max(range.to);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The offsets of `ranges` that are in none of `known`, which are in order and do not touch.
pub(super) fn without(ranges: &[OffsetRange], known: &[OffsetRange]) -> Vec<OffsetRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut from = range.from;
        for one in known.iter().filter(|one| one.from <= range.to && one.to >= range.from) {
            if one.from > from {
                left.push(OffsetRange { from, to: one.from - 1 });
            }
            from = from.max(one.to.saturating_add(1));
        }
        if from <= range.to {
            left.push(OffsetRange { from, to: range.to });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(bounds: &[(Offset, Offset)]) -> Vec<OffsetRange> {
        bounds.iter().map(|(from, to)| OffsetRange { from: *from, to: *to }).collect()
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        let merged = merged(ranges(&[(7, 9), (0, 1), (2, 4), (3, 3), (20, 21), (9, 12)]));
        assert_eq!(merged, ranges(&[(0, 4), (7, 12), (20, 21)]));
    }

    #[test]
    fn only_what_is_not_known_yet_is_left() {
        let known = ranges(&[(2, 3), (6, 8)]);
        assert_eq!(without(&ranges(&[(0, 10)]), &known), ranges(&[(0, 1), (4, 5), (9, 10)]));
        assert_eq!(without(&ranges(&[(2, 3), (7, 7)]), &known), []);
        assert_eq!(without(&ranges(&[(3, 4)]), &known), ranges(&[(4, 4)]));
    }
}
