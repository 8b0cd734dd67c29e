//! Times of arrival: each message has one of its own, and the same one when it is delivered again.
//!
//! Two messages of one device with one time would be one row. So a time is that of the clock, or a
//! microsecond after the last one that was given, also if the clock is set back. But a clock that was an
//! hour ahead, and is set right, is believed: else all that comes would have times of the future for ever.
//!
//! A message that the broker has not heard acknowledged comes again, after the connection or this process
//! broke: with the same packet id, and marked as a repeat. Its [`Receipt`], in memory or in the log, says
//! which time it had, and the table's key then sees the same row. Its content must be the same, too: a
//! packet id is used again for other messages. Only the newest receipt of a packet id counts, none behind
//! which [`MOST_BETWEEN`] messages have come, and none after the broker has begun a session anew, whose
//! repeats are its own. That the broker has heard an acknowledgement is no reason to forget the receipt: one
//! that is restored to an earlier state has not.
//!
//! Pure: no clock, no log.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::queue::{Delivery, Packet};
use crate::base::time::Timestamp;
use crate::wal::{LeftReceipts, NO_PACKET, Receipt};

/// A receipt counts until so many messages have come after it: half of the packet ids that MQTT has. A broker
/// counts them through and begins again. The message of an id that it has used long ago was acknowledged; what it
/// delivers again by that id is the next one, of which the first delivery was lost with its connection, and a
/// value that stays the same makes the two equal. More than half of them no broker has under way.
const MOST_BETWEEN: usize = 1 << 15;

/// Times that are further ahead of the clock were given by one that was wrong. Microseconds.
const LEAP: i64 = 60 * 60 * 1_000_000;

/// While times are further ahead of the clock than this, none are kept for letters. Microseconds.
const LEAD: i64 = 10_000_000;

/// The times that were given.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// The last one, in microseconds.
    newest: Option<i64>,
    /// The last one before it leapt ahead.
    before_leap: Option<i64>,
    /// Whether the clock was found to be set back by as much, and nobody has been told.
    is_set_back: bool,
    /// The session at the broker that the receipts belong to.
    session: u64,
    /// How many messages have come with a packet id, of those that have left a receipt to an earlier
    /// process as well.
    came: usize,
    /// By packet id, with how many had come when it was last made or asked for.
    receipts: HashMap<u16, (Receipt, usize)>,
}

/// What a delivery has got.
pub(super) struct Arrival {
    pub(super) time: Timestamp,
    /// Of an earlier delivery of the same message.
    again: Option<Receipt>,
}

impl Arrivals {
    /// Goes on where an earlier process has ended, by what it has left in the log.
    #[must_use]
    pub fn after(left: LeftReceipts) -> Self {
        let newest = left.newest.map(Timestamp::as_micros);
        let mut arrivals = Self { newest, ..Self::default() };
        for receipt in left.receipts.into_iter().filter(Receipt::is_of_packet) {
            arrivals.came += 1;
            let new = (receipt, arrivals.came);
            let known = arrivals.receipts.entry(receipt.packet_id).or_insert(new);
            // In one commit they stand by table, and times only grow.
            if receipt.time >= known.0.time {
                *known = new;
            }
        }
        arrivals
    }

    /// The time of a message that comes in. It is given once [`Self::give`] says so.
    pub(super) fn arrive(&mut self, delivery: &Delivery) -> Arrival {
        let again = self.pass(delivery).filter(|receipt| receipt.hash == hash(delivery));
        let clock = delivery.received_at.as_micros();
        if self.newest.is_some_and(|newest| newest.saturating_sub(clock) > LEAP) {
            self.newest = self.before_leap.filter(|before| before.saturating_sub(clock) <= LEAP);
            self.is_set_back = true;
        }
        let micros = self.newest.map_or(clock, |newest| clock.max(newest.saturating_add(1)));
        let fresh = Timestamp::from_micros(micros).unwrap_or(delivery.received_at);
        Arrival { time: again.map_or(fresh, |receipt| receipt.time), again }
    }

    /// Takes note of a delivery, whether anything becomes of it or not; the receipt of its packet id, if
    /// it can be meant.
    pub(super) fn pass(&mut self, delivery: &Delivery) -> Option<Receipt> {
        let Packet { id, is_again, session } = delivery.packet?;
        if session != self.session {
            self.session = session;
            self.receipts.clear();
        }
        let known = self.receipts.get(&id).filter(|_| is_again);
        let meant = known.filter(|(_, at)| self.came - at < MOST_BETWEEN);
        if let Some((receipt, _)) = meant {
            return Some(*receipt);
        }
        self.came += 1;
        self.receipts.remove(&id);
        None
    }

    /// How many of so many times are to be kept for what may become readings later. Whatever comes takes the next that
    /// is free, so that a flood of what is rejected would move everybody's time into the future, and in the end
    /// by [`LEAP`]. What is put back of a letter that has come in such a flood has one time to itself, and with
    /// the others that it needs it may meet readings that came next.
    pub(super) fn to_spare(&self, delivery: &Delivery, times: usize) -> usize {
        let clock = delivery.received_at.as_micros();
        let is_ahead = self.newest.is_some_and(|newest| newest.saturating_sub(clock) > LEAD);
        if is_ahead { 1 } else { times }
    }

    /// So many times from that of `arrival` on, a microsecond apart, belong to its message.
    pub(super) fn give(&mut self, arrival: &Arrival, times: usize) {
        let more = i64::try_from(times).unwrap_or(i64::MAX).saturating_sub(1);
        let last = arrival.time.as_micros().saturating_add(more);
        if self.newest.is_some_and(|newest| last.saturating_sub(newest) > LEAP) {
            self.before_leap = self.newest;
        }
        self.newest = self.newest.max(Some(last));
    }

    /// The receipt of a message that has got times by `arrival`.
    pub(super) fn receipt(&mut self, delivery: &Delivery, arrival: &Arrival) -> Receipt {
        let time = arrival.time;
        let Some(Packet { id, .. }) = delivery.packet else {
            return Receipt { packet_id: NO_PACKET, hash: 0, time };
        };
        let receipt =
            arrival.again.unwrap_or_else(|| Receipt { packet_id: id, hash: hash(delivery), time });
        self.receipts.insert(id, (receipt, self.came));
        receipt
    }

    /// Whether times that were given were found to be of a clock that was far ahead, since this was asked
    /// last.
    pub(super) fn take_set_back(&mut self) -> bool {
        std::mem::take(&mut self.is_set_back)
    }
}

/// Of what a delivery says, and to which topic. It is on the disk: it must stay as it is.
fn hash(delivery: &Delivery) -> u64 {
    let Delivery { topic, payload, omitted, .. } = delivery;
    let digest = Sha256::new()
        .chain_update((topic.len() as u64).to_le_bytes())
        .chain_update(topic.as_bytes())
        .chain_update((*omitted as u64).to_le_bytes())
        .chain_update(payload)
        .finalize();
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::base::properties::seeded;
    use crate::intake::queue::AckToken;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn delivery(packet: Option<Packet>, payload: &str, micros: i64) -> Delivery {
        Delivery {
            topic: "t/d".into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            is_retained: false,
            omitted: 0,
            received_at: at(micros),
            packet,
            ack: AckToken { epoch: 1, position: None },
            budget: None,
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a delivery has it")]
    fn packet(id: u16, is_again: bool) -> Option<Packet> {
        Some(Packet { id, is_again, session: 0 })
    }

    /// A message of so many readings; its time.
    fn take(arrivals: &mut Arrivals, delivery: &Delivery, times: usize) -> (i64, Receipt) {
        let arrival = arrivals.arrive(delivery);
        arrivals.give(&arrival, times);
        (arrival.time.as_micros(), arrivals.receipt(delivery, &arrival))
    }

    #[test]
    fn a_time_is_that_of_the_clock_or_the_next_that_is_free() {
        let mut arrivals = Arrivals::default();
        let mut time = |micros, times| take(&mut arrivals, &delivery(None, "x", micros), times).0;
        assert_eq!(time(100, 1), 100);
        assert_eq!(time(100, 3), 101);
        assert_eq!(time(100, 1), 104);
        // A clock that is set back.
        assert_eq!(time(50, 1), 105);
        assert_eq!(time(1_000, 1), 1_000);
    }

    #[test]
    fn a_repeat_has_the_time_that_its_message_had_and_no_other_message_has_it() {
        let mut arrivals = Arrivals::default();
        let first = take(&mut arrivals, &delivery(packet(7, false), "21", 100), 2);
        assert_eq!(take(&mut arrivals, &delivery(packet(7, true), "21", 900), 2), first);
        assert_eq!(take(&mut arrivals, &delivery(packet(7, true), "21", 950), 2), first);
        for (other, expected) in [
            (delivery(packet(7, true), "22", 901), 901),
            (delivery(packet(7, true), "22", 902), 901),
            (delivery(packet(8, true), "22", 902), 902),
            // The packet id is used for another message, which says the same.
            (delivery(packet(7, false), "22", 903), 903),
            (delivery(packet(7, true), "22", 904), 903),
            (delivery(packet(7, true), "21", 905), 905),
        ] {
            assert_eq!(take(&mut arrivals, &other, 1).0, expected, "{expected}");
        }
    }

    #[test]
    fn a_message_of_which_nothing_is_stored_ends_what_its_packet_id_stood_for() {
        let mut arrivals = Arrivals::default();
        take(&mut arrivals, &delivery(packet(7, false), "21", 100), 1);
        arrivals.pass(&delivery(packet(7, false), "21", 200));
        assert_eq!(take(&mut arrivals, &delivery(packet(7, true), "21", 300), 1).0, 300);
    }

    #[test]
    fn a_packet_id_that_was_used_long_ago_stands_for_another_message_which_may_say_the_same() {
        const LAST: u16 = u16::MAX;
        let mut arrivals = Arrivals::default();
        let first = take(&mut arrivals, &delivery(packet(1, false), "21", 1), 1).1;
        let mut left = vec![first];
        for id in 2..=LAST {
            left.push(take(&mut arrivals, &delivery(packet(id, false), "21", i64::from(id)), 1).1);
        }
        let half = u16::try_from(MOST_BETWEEN).unwrap();
        let after = |left: &[Receipt]| {
            Arrivals::after(LeftReceipts { receipts: left.to_vec(), newest: Some(at(LAST.into())) })
        };
        for mut arrivals in [after(&left), arrivals] {
            let mut time = |id| take(&mut arrivals, &delivery(packet(id, true), "21", 0), 1).0;
            let free = i64::from(LAST) + 1;
            for id in [LAST, LAST - half + 1] {
                assert_eq!(time(id), i64::from(id));
            }
            // Each that is new is one more; one that was asked for is as good as new.
            assert_eq!([1, 2, LAST - half].map(&mut time), [free, free + 1, free + 2]);
            assert_eq!([1, 2, LAST - half].map(&mut time), [free, free + 1, free + 2]);
            assert_eq!(time(LAST - half + 1), i64::from(LAST - half + 1));
            assert_eq!(time(LAST - half + 2), free + 3);
        }
    }

    #[test]
    fn a_session_that_is_new_has_no_repeats_of_an_earlier_one() {
        let mut arrivals = Arrivals::default();
        take(&mut arrivals, &delivery(packet(7, false), "21", 100), 1);
        let of_new = |micros| {
            let packet = packet(7, true).map(|packet| Packet { session: 1, ..packet });
            delivery(packet, "21", micros)
        };
        assert_eq!(take(&mut arrivals, &of_new(200), 1).0, 200);
        assert_eq!(take(&mut arrivals, &of_new(300), 1).0, 200);
    }

    #[test]
    fn a_clock_that_was_far_ahead_and_is_set_right_is_believed() {
        const FAR: i64 = 1_000_000_000_000;
        let mut arrivals = Arrivals::default();
        let time =
            |arrivals: &mut Arrivals, micros| take(arrivals, &delivery(None, "x", micros), 1).0;
        assert_eq!(time(&mut arrivals, 100), 100);
        assert_eq!(time(&mut arrivals, FAR), FAR);
        assert!(!arrivals.take_set_back());
        // None of before is given twice.
        assert_eq!(time(&mut arrivals, 50), 101);
        assert!(arrivals.take_set_back() && !arrivals.take_set_back());
        assert_eq!(time(&mut arrivals, 50), 102);
        // Nor does it last for ever by the log.
        let left = LeftReceipts { receipts: Vec::new(), newest: Some(at(FAR)) };
        assert_eq!(time(&mut Arrivals::after(left), 200), 200);
        let left = LeftReceipts { receipts: Vec::new(), newest: Some(at(LEAP + 200)) };
        assert_eq!(time(&mut Arrivals::after(left), 200), LEAP + 201);
    }

    #[test]
    fn the_next_process_goes_on_by_what_the_log_has() {
        let mut arrivals = Arrivals::default();
        let old = take(&mut arrivals, &delivery(packet(7, false), "20", 90), 1).1;
        let one = take(&mut arrivals, &delivery(packet(7, false), "21", 100), 3).1;
        let none = take(&mut arrivals, &delivery(None, "21", 100), 1).1;
        assert_eq!((none.packet_id, none.time), (NO_PACKET, at(103)));
        let left = LeftReceipts { receipts: vec![one, old, none], newest: Some(at(103)) };
        let mut next = Arrivals::after(left);
        assert_eq!(take(&mut next, &delivery(packet(7, true), "20", 95), 1).0, 104);
        assert_eq!(take(&mut next, &delivery(packet(7, true), "20", 95), 1).0, 104);
        let left = LeftReceipts { receipts: vec![one, old, none], newest: Some(at(103)) };
        assert_eq!(
            take(&mut Arrivals::after(left), &delivery(packet(7, true), "21", 900), 3).1,
            one
        );
    }

    #[test]
    fn the_hash_stays_what_it_is_on_disks() {
        assert_eq!(hash(&delivery(None, "21.5", 0)), GOLDEN_HASH);
        let cut = Delivery { omitted: 1, ..delivery(None, "21.5", 0) };
        assert_ne!(hash(&cut), GOLDEN_HASH);
    }

    const GOLDEN_HASH: u64 = 0xdcc9_0b8c_a2be_d69b;

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn whatever_the_clock_does_within_an_hour_no_time_is_given_twice(
            steps in proptest::collection::vec((0..2_000_i64, 1..5_usize, 0..4_u16, any::<bool>()), 1..200),
        ) {
            let mut arrivals = Arrivals::default();
            let mut given = std::collections::BTreeMap::new();
            for (number, (micros, times, id, is_again)) in steps.into_iter().enumerate() {
                // A repeat is of the message that the packet id stood for last, or of one that never came.
                let payload = number.to_string();
                let packet = packet(id, is_again).filter(|_| id > 0);
                let (time, _) = take(&mut arrivals, &delivery(packet, &payload, micros), times);
                for time in time..time + i64::try_from(times).unwrap() {
                    prop_assert_eq!(given.insert(time, number), None);
                }
            }
        }
    }
}
