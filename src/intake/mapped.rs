//! What a group notes of messages that mappings have taken or left alone.

use std::collections::HashMap;
use std::time::Duration;

use super::newest::NewestTopics;
use crate::base::text::cut;
use crate::dead_letters::REASON_MAX_BYTES;
use crate::telemetry::rejection::Reason;

/// What became of what mappings have taken or left alone.
#[derive(Debug, Default)]
pub struct MappedTally {
    taken: Vec<(usize, Taken)>,
    refusals: Vec<(Refused, u64)>,
    /// Topics that no mapping takes.
    pub(super) unmapped: NewestTopics<()>,
    /// Messages that no mapping takes and that are not kept.
    dropped: u64,
}

/// What became of what one mapping has taken or left alone.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How often each of [`OUTCOMES`].
    pub(super) counts: [u64; OUTCOMES.len()],
    /// Messages that it has taken.
    pub(super) messages: u64,
    /// Those of them that came with QoS 0.
    pub(super) qos0_messages: u64,
    /// Why the last one was rejected that was.
    pub(super) last_reason: Option<String>,
}

/// A message that a mapping has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TakenMessage<'r> {
    /// Readings that are good.
    pub(super) stored: u64,
    /// Those that are not.
    pub(super) rejected: u64,
    pub(super) is_qos0: bool,
    /// What is wrong with the last of them.
    pub(super) last_reason: Option<&'r str>,
}

/// What can become of it: readings for the first two, messages for the last.
const OUTCOMES: [&str; 3] = ["stored", "rejected", "ignored"];

/// Which mapping has rejected something, if it was one, and by which rule.
pub(super) type Refused = (Option<usize>, Reason);

impl MappedTally {
    /// A message was taken by `mapping`, which made so many readings of it and rejected so many.
    pub(super) fn take(&mut self, mapping: usize, message: TakenMessage<'_>) {
        let taken = self.of(mapping);
        taken.counts[0] += message.stored;
        taken.counts[1] += message.rejected;
        taken.messages += 1;
        taken.qos0_messages += u64::from(message.is_qos0);
        if let Some(reason) = message.last_reason {
            taken.last_reason = Some(cut(reason, REASON_MAX_BYTES).into_owned());
        }
    }

    /// A message was left alone by `mapping`.
    pub(super) fn leave(&mut self, mapping: usize) {
        self.of(mapping).counts[2] += 1;
    }

    /// No mapping has taken a message of this topic; whether it is kept as a dead letter.
    pub(super) fn pass(&mut self, topic: &str, is_kept: bool) {
        self.unmapped.add(topic, 1, ());
        self.dropped += u64::from(!is_kept);
    }

    /// Messages that no mapping takes and that are not kept.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn of(&mut self, mapping: usize) -> &mut Taken {
        let known = self.taken.iter().position(|(other, _)| *other == mapping);
        let at = known.unwrap_or(self.taken.len());
        if known.is_none() {
            self.taken.push((mapping, Taken::default()));
        }
        &mut self.taken[at].1
    }

    pub(super) fn refuse(&mut self, refused: Refused, count: u64) {
        match self.refusals.iter_mut().find(|(other, _)| *other == refused) {
            Some((_, all)) => *all += count,
            None => self.refusals.push((refused, count)),
        }
    }

    /// The index of each mapping, and what became of what it has taken or left alone.
    pub(super) fn taken(&self) -> impl Iterator<Item = (usize, &Taken)> {
        self.taken.iter().map(|(mapping, taken)| (*mapping, taken))
    }

    /// Whether no mapping has anything to do with the group.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.unmapped.is_empty()
    }

    /// The index of each mapping, an outcome, and how often.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (usize, &'static str, u64)> {
        self.taken.iter().flat_map(|(mapping, taken)| {
            let all = OUTCOMES.into_iter().zip(taken.counts);
            all.filter(|(_, count)| *count > 0).map(|(outcome, count)| (*mapping, outcome, count))
        })
    }

    /// What was rejected by which rule of which mapping, and how often.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (Refused, u64)> {
        self.refusals.iter().copied()
    }
}

/// When what was said last, so that a device that sends nonsense all day makes a line a minute.
#[derive(Debug, Default)]
pub(super) struct Notices(HashMap<Refused, Notice>);

#[derive(Debug)]
struct Notice {
    said_at: Duration,
    since: u64,
}

/// What is said of one kind again at the earliest.
const PAUSE: Duration = Duration::from_secs(60);

impl Notices {
    /// How many there were since this was said last, if it is to be said now.
    pub(super) fn note(&mut self, refused: Refused, count: u64, now: Duration) -> Option<u64> {
        let Some(notice) = self.0.get_mut(&refused) else {
            self.0.insert(refused, Notice { said_at: now, since: 0 });
            return Some(count);
        };
        notice.since += count;
        if now.saturating_sub(notice.said_at) < PAUSE {
            return None;
        }
        notice.said_at = now;
        Some(std::mem::take(&mut notice.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_mapping() {
        let mut tally = MappedTally::default();
        let message = |stored, rejected| TakenMessage { stored, rejected, ..Default::default() };
        tally.take(1, message(2, 1));
        tally.leave(0);
        tally.take(1, message(1, 0));
        let counts: Vec<_> = tally.counts().collect();
        assert_eq!(counts, [(1, "stored", 3), (1, "rejected", 1), (0, "ignored", 1)]);
    }

    #[test]
    fn what_goes_on_is_said_once_a_minute_with_a_count() {
        let mut notices = Notices::default();
        let refused = (Some(0), Reason::WrongType);
        let at = Duration::from_secs;
        assert_eq!(notices.note(refused, 3, at(10)), Some(3));
        assert_eq!(notices.note(refused, 1, at(11)), None);
        assert_eq!(notices.note((None, Reason::NoMapping), 2, at(11)), Some(2));
        assert_eq!(notices.note(refused, 5, at(69)), None);
        assert_eq!(notices.note(refused, 1, at(70)), Some(7));
        assert_eq!(notices.note(refused, 1, at(71)), None);
    }
}
