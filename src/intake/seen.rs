//! What mappings have been seen to do since the start, and the newest topics that none takes: for whoever
//! looks, and nothing that anything relies on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::mapped::MappedTally;
use super::newest::NewestTopics;
use crate::base::time::Clock;
use crate::telemetry::mapping::{Mapping, Mappings};

/// Shared by the intake, which notes, and whoever looks. Clones share it.
#[derive(Clone)]
pub(crate) struct Seen {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

/// Moments are those of the clock's monotonic time.
#[derive(Debug, Default)]
struct State {
    mappings: Vec<Entry>,
    unmapped: NewestTopics<Duration>,
}

#[derive(Debug)]
struct Entry {
    counts: SeenMapping,
    last_message: Option<Duration>,
    last_rejected: Option<Duration>,
}

/// A mapping, and what became of what it has taken since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SeenMapping {
    /// As the configuration calls it.
    pub(crate) name: String,
    /// Its topic filters, as they are written there.
    pub(crate) topics: Vec<String>,
    /// The table that it fills.
    pub(crate) table: String,
    /// Whether a reading of it can get the time of its arrival.
    pub(crate) by_arrival: bool,
    /// Messages that it has taken.
    pub(crate) messages: u64,
    /// Those of them that came with `QoS` 0.
    pub(crate) qos0_messages: u64,
    /// Readings that it has made of them.
    pub(crate) stored: u64,
    /// Readings, or whole messages, that are dead letters.
    pub(crate) rejected: u64,
    /// Messages that it leaves alone.
    pub(crate) ignored: u64,
    /// Why the last one was rejected.
    pub(crate) last_reason: Option<String>,
    /// Since the last message that it has taken.
    pub(crate) last_message: Option<Duration>,
    /// Since it has rejected one.
    pub(crate) last_rejected: Option<Duration>,
}

/// A topic that no mapping takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenTopic {
    /// Its beginning, if it is long.
    pub(crate) topic: String,
    /// Messages, as long as it is among the newest.
    pub(crate) messages: u64,
    /// Since the last of them.
    pub(crate) age: Duration,
}

impl Seen {
    /// Nothing yet, of these mappings.
    #[must_use]
    pub(crate) fn of(mappings: &Mappings, clock: Arc<dyn Clock>) -> Self {
        let entry = |mapping: &Mapping| Entry {
            counts: SeenMapping {
                name: mapping.name.clone(),
                topics: mapping.topics().map(str::to_owned).collect(),
                table: mapping.table().to_owned(),
                by_arrival: mapping.uses_arrival(),
                ..SeenMapping::default()
            },
            last_message: None,
            last_rejected: None,
        };
        let mappings = mappings.list.iter().map(entry).collect();
        let state = State { mappings, ..State::default() };
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Takes note of a group that is settled.
    pub(super) fn note(&self, tally: &MappedTally) {
        if tally.is_empty() {
            return;
        }
        let (now, mut state) = (self.clock.monotonic(), self.lock());
        for (at, taken) in tally.taken() {
            let Some(entry) = state.mappings.get_mut(at) else { continue };
            let [stored, rejected, ignored] = taken.counts;
            entry.counts.messages += taken.messages;
            entry.counts.qos0_messages += taken.qos0_messages;
            entry.counts.stored += stored;
            entry.counts.rejected += rejected;
            entry.counts.ignored += ignored;
            if taken.messages > 0 {
                entry.last_message = Some(now);
            }
            if let Some(reason) = &taken.last_reason {
                entry.counts.last_reason = Some(reason.clone());
                entry.last_rejected = Some(now);
            }
        }
        for (topic, messages, ()) in tally.unmapped.iter() {
            state.unmapped.add(topic, messages, now);
        }
    }

    /// The mappings, in the order of the file.
    #[must_use]
    pub(crate) fn mappings(&self) -> Vec<SeenMapping> {
        let (now, state) = (self.clock.monotonic(), self.lock());
        let since = |then: Option<Duration>| then.map(|then| now.saturating_sub(then));
        let dated = |entry: &Entry| SeenMapping {
            last_message: since(entry.last_message),
            last_rejected: since(entry.last_rejected),
            ..entry.counts.clone()
        };
        state.mappings.iter().map(dated).collect()
    }

    /// The newest topics that no mapping takes, the newest first.
    #[must_use]
    pub(crate) fn unmapped(&self) -> Vec<SeenTopic> {
        let (now, state) = (self.clock.monotonic(), self.lock());
        let seen = |(topic, messages, then): (&str, u64, Duration)| SeenTopic {
            topic: topic.to_owned(),
            messages,
            age: now.saturating_sub(then),
        };
        let mut all: Vec<_> = state.unmapped.iter().map(seen).collect();
        all.reverse();
        all
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::settings::Sources;
    use crate::base::time::{ManualClock, Timestamp};
    use crate::intake::mapped::TakenMessage;

    const MAPPINGS: &str = r#"
        [[default.mapping]]
        name = "one"
        topic = ["a/{d}", "$share/g/b/{d...}"]
        device = "{d}"
        time = "received"
        table = "ones"
        fields = ["x"]
        [[default.mapping]]
        name = "other"
        topic = "c/{d}"
        device = "{d}"
        time = { path = "t" }
        fields = ["y"]
    "#;

    #[test]
    fn what_groups_tell_adds_up_and_the_last_reason_stays() {
        let mut sources = Sources::new(BTreeMap::new(), MAPPINGS);
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        let seen = Seen::of(&Mappings::read(&mut sources), Arc::new(clock.clone()));
        sources.finish().unwrap();
        seen.note(&MappedTally::default());
        let mut tally = MappedTally::default();
        let last_reason = Some("hot");
        tally.take(0, TakenMessage { stored: 3, rejected: 1, is_qos0: true, last_reason });
        tally.leave(1);
        tally.unmapped.add("new", 1, ());
        seen.note(&tally);
        let mut tally = MappedTally::default();
        tally.take(0, TakenMessage { stored: 1, ..TakenMessage::default() });
        tally.unmapped.add("newer", 1, ());
        clock.advance(Duration::from_secs(2));
        seen.note(&tally);
        clock.advance(Duration::from_secs(3));
        let [one, other] = <[_; 2]>::try_from(seen.mappings()).unwrap();
        let expected = SeenMapping {
            name: "one".to_owned(),
            topics: ["a/{d}", "$share/g/b/{d...}"].map(str::to_owned).to_vec(),
            table: "ones".to_owned(),
            by_arrival: true,
            messages: 2,
            qos0_messages: 1,
            stored: 4,
            rejected: 1,
            ignored: 0,
            last_reason: Some("hot".to_owned()),
            last_message: Some(Duration::from_secs(3)),
            last_rejected: Some(Duration::from_secs(5)),
        };
        assert_eq!(one, expected);
        let left = (other.messages, other.ignored, other.last_message, other.by_arrival);
        assert_eq!(left, (0, 1, None, false));
        let topics: Vec<_> =
            seen.unmapped().into_iter().map(|seen| (seen.topic, seen.age.as_secs())).collect();
        assert_eq!(topics, [("newer".to_owned(), 3), ("new".to_owned(), 5)]);
    }
}
