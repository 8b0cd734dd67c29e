//! Answers in the order in which what they answer has come (MQTT 3.1.1, 4.6).
//!
//! What comes in takes a position; its answer leaves once it is due and all before it have left.
//! So one that is never settled holds back all behind it, whoever settles those.

use std::collections::VecDeque;

use crate::mqtt::packet::Answer;

/// The answers that are still to be sent on a connection.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Position of the first of `pending`.
    first: u64,
    pending: VecDeque<PendingAnswer>,
}

#[derive(Debug)]
struct PendingAnswer {
    answer: Answer,
    is_due: bool,
}

impl Order {
    /// Whether all have left.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds an answer; returns its position.
    pub(super) fn push(&mut self, answer: Answer, is_due: bool) -> u64 {
        self.pending.push_back(PendingAnswer { answer, is_due });
        self.first + self.pending.len() as u64 - 1
    }

    /// What was at this position has been dealt with.
    pub(super) fn settle(&mut self, position: u64) {
        let index = position.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(pending) = index.and_then(|index| self.pending.get_mut(index)) {
            pending.is_due = true;
        }
    }

    /// Takes the next answer that may leave.
    pub(super) fn pop_due(&mut self) -> Option<Answer> {
        let answer = self.pending.front().filter(|pending| pending.is_due)?.answer;
        self.pending.pop_front();
        self.first += 1;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::properties::seeded;

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn whatever_order_they_are_settled_in_answers_leave_in_that_of_receipt(
            // How many are pending, and in which order they are settled.
            order in Just((0..200_u16).collect::<Vec<_>>()).prop_shuffle(),
            never in 0..200_u16,
        ) {
            let mut pending = Order::default();
            let positions: Vec<u64> =
                (0..200).map(|id| pending.push(Answer::PubAck(id), false)).collect();
            let mut left = Vec::new();
            for id in order {
                if id != never {
                    pending.settle(positions[usize::from(id)]);
                }
                left.extend(std::iter::from_fn(|| pending.pop_due()));
            }
            let expected: Vec<_> = (0..never).map(Answer::PubAck).collect();
            prop_assert_eq!(left, expected);
        }
    }

    #[test]
    fn a_position_that_is_settled_twice_or_was_never_given_changes_nothing() {
        let mut pending = Order::default();
        let first = pending.push(Answer::PubAck(1), false);
        pending.push(Answer::PubAck(2), false);
        pending.settle(first);
        assert_eq!(pending.pop_due(), Some(Answer::PubAck(1)));
        pending.settle(first);
        pending.settle(7);
        assert_eq!(pending.pop_due(), None);
    }
}
