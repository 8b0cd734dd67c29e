//! What is wrong with elements of a message, which is kept once, in a letter whose reason has room for all of it.

use std::fmt::Write as _;

use crate::base::text::{cut, share_out};
use crate::dead_letters::{REASON_MAX_BYTES, RejectedPart};
use crate::telemetry::rejection::{Reason, Rejection, Stage, Tally};

/// Faults of one message that are told, and ranges of elements that are named for each.
const MOST_LISTED: usize = 100;

/// A sentence about elements is told with so many bytes about which they are, or more.
const LEAST_INDEXES: usize = 40;

/// What is wrong with elements of a message.
#[derive(Default)]
pub(super) struct BadElements {
    /// As far as they are listed.
    faults: Vec<Fault>,
    /// Readings that broke a rule that is not listed.
    unlisted: usize,
    /// How many each rule has rejected.
    pub(super) tally: Tally,
}

/// A rule that elements have broken in the same field of the same mapping.
struct Fault {
    reason: Reason,
    /// About the first of them: it shows its value.
    sentence: String,
    /// Elements of which it says all.
    same: Indexes,
    /// Elements that have broken it with another value.
    alike: Indexes,
}

/// Indexes of elements, as far as they are listed.
#[derive(Default)]
struct Indexes {
    /// The first and the last of each range.
    ranges: Vec<(usize, usize)>,
    more: usize,
}

impl BadElements {
    pub(super) fn add(&mut self, index: Option<usize>, rejection: Rejection) {
        let Rejection { reason, message } = rejection;
        self.tally.add(reason);
        let is_known =
            |fault: &Fault| fault.reason == reason && place(&fault.sentence) == place(&message);
        let at = match self.faults.iter().position(is_known) {
            Some(at) => at,
            None if self.faults.len() < MOST_LISTED => {
                let sentence = message.clone().into_owned();
                let (same, alike) = Default::default();
                self.faults.push(Fault { reason, sentence, same, alike });
                self.faults.len() - 1
            }
            None => {
                self.unlisted += 1;
                return;
            }
        };
        let fault = &mut self.faults[at];
        let of = if fault.sentence == message { &mut fault.same } else { &mut fault.alike };
        if let Some(index) = index {
            of.add(index);
        }
    }

    /// What was found wrong last, of what is told.
    pub(super) fn last_reason(&self) -> Option<&str> {
        self.faults.last().map(|fault| fault.sentence.as_str())
    }

    /// The letter of the message, if anything is wrong with it.
    pub(super) fn into_part(self, payload: &[u8]) -> Option<RejectedPart> {
        let stage = self.stage()?;
        let reason = share_out(
            &self.faults,
            self.unlisted,
            REASON_MAX_BYTES,
            |fault| place(&fault.sentence).len() + '…'.len_utf8() + LEAST_INDEXES,
            Fault::told,
        );
        Some(RejectedPart { range: 0..payload.len(), stage, reason })
    }

    fn stage(&self) -> Option<Stage> {
        self.faults.first().map(|fault| fault.reason.stage())
    }
}

/// What a sentence is about: it begins with its mapping and what of it was not made.
fn place(sentence: &str) -> &str {
    sentence.split_once(": ").map_or(sentence, |(place, _)| place)
}

impl Fault {
    /// In at most `room` bytes, as far as the first index of each kind has room.
    fn told(&self, room: usize) -> String {
        let whole = self.elements(usize::MAX);
        let rest = self.sentence.len().saturating_add(whole.len());
        if rest <= room {
            return format!("{}{whole}", self.sentence);
        }
        let least = self.elements(room / 2);
        let sentence = cut(&self.sentence, room.saturating_sub(least.len()).max('…'.len_utf8()));
        format!("{sentence}{}", self.elements(room.saturating_sub(sentence.len())))
    }

    /// Which elements it is about.
    fn elements(&self, room: usize) -> String {
        const LIKE: &str = ", and the like";
        let same = self.same.told(if self.alike.ranges.is_empty() { room } else { room / 2 });
        if self.alike.ranges.is_empty() {
            return same;
        }
        let left = room.saturating_sub(same.len() + LIKE.len());
        format!("{same}{LIKE}{}", self.alike.told(left))
    }
}

impl Indexes {
    fn add(&mut self, index: usize) {
        let is_full = self.ranges.len() >= MOST_LISTED;
        match self.ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ if is_full => self.more += 1,
            _ => self.ranges.push((index, index)),
        }
    }

    /// In at most `room` bytes, as far as the first of them has room.
    fn told(&self, room: usize) -> String {
        let count = |ranges: &[(usize, usize)]| {
            ranges.iter().map(|(first, last)| last - first + 1).sum::<usize>()
        };
        let all = count(&self.ranges) + self.more;
        let mut text = match all {
            0 => return String::new(),
            1 => " in element".to_owned(),
            _ => " in elements".to_owned(),
        };
        for (at, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let range = match last - first {
                0 => format!("{comma} {first}"),
                _ => format!("{comma} {first}-{last}"),
            };
            let after = all - count(&self.ranges[..=at]);
            let end = if after == 0 { String::new() } else { format!(" and {after} more") };
            if at > 0 && text.len() + range.len() + end.len() > room {
                let after = all - count(&self.ranges[..at]);
                write!(text, " and {after} more").ok();
                return text;
            }
            text.push_str(&range);
        }
        if self.more > 0 {
            write!(text, " and {} more", self.more).ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(elements: impl IntoIterator<Item = (usize, String)>) -> String {
        let mut bad = BadElements::default();
        for (index, what) in elements {
            bad.add(Some(index), Rejection::new(Reason::ValueOutOfRange, what));
        }
        let part = bad.into_part(b"[...]").unwrap();
        assert_eq!((part.range, part.stage), (0..5, Stage::Validate));
        assert!(part.reason.len() <= REASON_MAX_BYTES, "{}", part.reason);
        part.reason
    }

    #[test]
    fn a_message_is_one_letter_that_names_its_bad_elements() {
        let all = [(0, "hot"), (1, "hot"), (3, "cold"), (7, "hot")];
        let all = all.map(|(index, what)| (index, what.to_owned()));
        assert_eq!(reason(all), "hot in elements 0-1, 7; cold in element 3");
        assert_eq!(BadElements::default().into_part(b"x"), None);
    }

    #[test]
    fn values_that_break_one_rule_are_one_sentence() {
        let value = |index| (index, format!("mapping \"m\", field \"a\": {index} is over 5"));
        assert_eq!(
            reason((10..60).map(value)),
            "mapping \"m\", field \"a\": 10 is over 5 in element 10, and the like in elements 11-59"
        );
    }

    #[test]
    fn however_long_it_is_mapping_and_field_come_first_and_elements_are_counted() {
        let long = "x".repeat(600);
        let what = |field: &str| format!("mapping \"m\", field \"{field}\": {long}");
        let told = reason((0..500).map(|index| (index * 2, what("a"))));
        assert!(told.starts_with("mapping \"m\", field \"a\": xxx"), "{told}");
        assert!(told.contains("… in elements 0, 2, 4, ") && told.ends_with(" more"), "{told}");
        let many = |fields: usize| {
            reason(
                (0..fields)
                    .flat_map(|n| [n, n + 200].map(|index| (index, what(&format!("field_{n}"))))),
            )
        };
        let told = many(5);
        for n in 0..5 {
            let field = format!("mapping \"m\", field \"field_{n}\"");
            assert!(told.contains(&field), "{field} in {told}");
            assert!(told.contains(&format!(" in elements {n}, {}", n + 200)), "{n} in {told}");
        }
        let told = many(150);
        assert!(told.starts_with("mapping \"m\", field \"field_0\""), "{told}");
        assert!(told.ends_with(" more"), "{told}");
    }
}
