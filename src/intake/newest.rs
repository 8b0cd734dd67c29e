//! The topics that came last, a few of them, however many there are.

use std::collections::VecDeque;

use crate::base::text::cut;
use crate::dead_letters::TOPIC_MAX_BYTES;

/// More than a person reads at once.
const MOST: usize = 20;

/// Each once with a count, the newest last; `T` is when that was.
#[derive(Debug)]
pub(super) struct NewestTopics<T>(VecDeque<(String, u64, T)>);

impl<T> Default for NewestTopics<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Copy> NewestTopics<T> {
    /// `messages` more have come to `topic`.
    pub(super) fn add(&mut self, topic: &str, messages: u64, when: T) {
        let topic = cut(topic, TOPIC_MAX_BYTES);
        let known = self.0.iter().rposition(|(other, ..)| *other == topic);
        let (topic, before) = match known.and_then(|at| self.0.remove(at)) {
            Some((topic, before, _)) => (topic, before),
            None => (topic.into_owned(), 0),
        };
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((topic, before + messages, when));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64, T)> {
        self.0.iter().map(|(topic, messages, when)| (topic.as_str(), *messages, *when))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_comes_again_is_the_newest_and_the_oldest_makes_room() {
        let mut topics = NewestTopics::default();
        for number in 0..MOST {
            topics.add(&format!("t/{number}"), 1, number);
        }
        topics.add("t/0", 2, 100);
        topics.add("t/new", 1, 101);
        let all: Vec<_> = topics.iter().collect();
        assert_eq!(all.len(), MOST);
        assert_eq!(all[0], ("t/2", 1, 2));
        assert_eq!(all[MOST - 2..], [("t/0", 3, 100), ("t/new", 1, 101)]);
    }

    #[test]
    fn of_a_long_topic_the_beginning_is_kept_in_whole_characters() {
        let mut topics = NewestTopics::default();
        topics.add(&"ä".repeat(TOPIC_MAX_BYTES), 1, ());
        let expected = format!("{}…", "ä".repeat(TOPIC_MAX_BYTES / 2 - 2));
        assert_eq!(topics.iter().next().unwrap().0, expected);
    }
}
