//! Answers in the order in which what they answer has come (MQTT 3.1.1, 4.6).
//!
//! What comes in takes a position; its answer leaves once it is due and all before it have left.
//! So one that is never settled holds back all behind it, whoever settles those.

use std::collections::VecDeque;

use crate::mqtt::packet::Answer;

/// The answers that a connection owes.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Position of the first of `owed`.
    first: u64,
    owed: VecDeque<Owed>,
}

#[derive(Debug)]
struct Owed {
    answer: Answer,
    is_due: bool,
}

impl Order {
    /// Owes `answer` from now on; returns its position.
    pub(super) fn owe(&mut self, answer: Answer, is_due: bool) -> u64 {
        self.owed.push_back(Owed { answer, is_due });
        self.first + self.owed.len() as u64 - 1
    }

    /// What was at this position has been dealt with.
    pub(super) fn settle(&mut self, position: u64) {
        let index = position.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(owed) = index.and_then(|index| self.owed.get_mut(index)) {
            owed.is_due = true;
        }
    }

    /// Takes the next answer that may leave.
    pub(super) fn pop_due(&mut self) -> Option<Answer> {
        let answer = self.owed.front().filter(|owed| owed.is_due)?.answer;
        self.owed.pop_front();
        self.first += 1;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_order_they_are_settled_in_answers_leave_in_that_of_receipt(
            // How many are owed, and in which order they are settled.
            order in Just((0..200_u16).collect::<Vec<_>>()).prop_shuffle(),
            never in 0..200_u16,
        ) {
            let mut owed = Order::default();
            let positions: Vec<u64> =
                (0..200).map(|id| owed.owe(Answer::PubAck(id), false)).collect();
            let mut left = Vec::new();
            for id in order {
                if id != never {
                    owed.settle(positions[usize::from(id)]);
                }
                left.extend(std::iter::from_fn(|| owed.pop_due()));
            }
            let expected: Vec<_> = (0..never).map(Answer::PubAck).collect();
            prop_assert_eq!(left, expected);
        }
    }

    #[test]
    fn a_position_that_is_settled_twice_or_was_never_given_changes_nothing() {
        let mut owed = Order::default();
        let first = owed.owe(Answer::PubAck(1), false);
        owed.owe(Answer::PubAck(2), false);
        owed.settle(first);
        assert_eq!(owed.pop_due(), Some(Answer::PubAck(1)));
        owed.settle(first);
        owed.settle(7);
        assert_eq!(owed.pop_due(), None);
    }
}
