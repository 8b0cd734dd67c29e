//! Which letters go so that others have room.

use super::letter::DeadLetterError;
use super::segment::{Class, Segment};
use super::store::{SHARE_OF_UNMATCHED, Store};

impl Store {
    /// Makes room for `needed` bytes within the bound. Acknowledged readings have room or have not;
    /// for others the oldest others go. What no mapping takes has a share of its own as soon as there is
    /// any, so that neither pushes the other out.
    pub(super) fn make_room(
        &mut self,
        class: Class,
        needed: u64,
        evicted: &mut dyn FnMut(u64),
    ) -> Result<(), DeadLetterError> {
        let fill = self.fill();
        if class == Class::Database && fill.kept_bytes + needed > fill.max_kept_bytes {
            return Err(DeadLetterError::Full);
        }
        let is_unmatched = |segment: &Segment| segment.class == Class::Unmatched;
        let has_ring = class == Class::Unmatched || self.segments.values().any(is_unmatched);
        let ring = if has_ring { self.max_bytes / SHARE_OF_UNMATCHED } else { 0 };
        let (of_ring, of_others) =
            if class == Class::Unmatched { (needed, 0) } else { (0, needed) };
        self.shrink(ring, of_ring, Class::Unmatched, is_unmatched, evicted)?;
        let may_go = |segment: &Segment| segment.may_go() && !is_unmatched(segment);
        self.shrink(self.max_bytes - ring, of_others, Class::Rejected, may_go, evicted)
    }

    /// Drops the oldest of the segments that `may_go` until all but the ring, or the ring alone, takes no
    /// more than `bound` with the bytes that are `needed`. The newest is written to, and says which ids
    /// have been given out.
    fn shrink(
        &mut self,
        bound: u64,
        needed: u64,
        class: Class,
        may_go: impl Fn(&Segment) -> bool,
        evicted: &mut dyn FnMut(u64),
    ) -> Result<(), DeadLetterError> {
        let is_of_ring = class == Class::Unmatched;
        loop {
            let is_counted = |segment: &&Segment| (segment.class == Class::Unmatched) == is_of_ring;
            let bytes: u64 =
                self.segments.values().filter(is_counted).map(|segment| segment.bytes).sum();
            if bytes + needed <= bound {
                return Ok(());
            }
            let newest = self.number_of_newest(class);
            let mut segments = self.segments.iter();
            let oldest =
                segments.find(|(number, segment)| may_go(segment) && Some(**number) != newest);
            let Some((&number, _)) = oldest else { return Ok(()) };
            self.evict(number, evicted)?;
        }
    }

    /// Drops a segment.
    fn evict(&mut self, number: u32, evicted: &mut dyn FnMut(u64)) -> Result<(), DeadLetterError> {
        let what = "drop the oldest dead letters";
        let (letters, _) =
            self.drop_segment(number).map_err(|source| DeadLetterError::Io { what, source })?;
        evicted(letters);
        Ok(())
    }
}
