//! The seam between MQTT and the intake: what comes in, and its acknowledgements on their way back.
//!
//! A packet id belongs to one connection: after a reconnect the broker uses it again, for another
//! message. A PUBACK that was meant for the old connection would acknowledge a message that nobody
//! stored. So every delivery carries the epoch of its connection; its ack is queued only while
//! that epoch lasts, and the queue ends with it. The queue is written by the thread that owns the
//! connection, so what it takes from the queue is always of the connection that it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use crate::base::time::Timestamp;
use crate::telemetry::Reading;

/// What comes in.
pub enum Inbound {
    /// A message, to be acknowledged.
    Message(Delivery),
    /// Readings that an operator puts back, to be answered.
    Replay(Replay),
}

/// Readings of a dead letter that are good now.
pub struct Replay {
    /// To be put into the log.
    pub readings: Vec<Reading>,
    /// Told once they are durable, or that the log is full.
    pub done: oneshot::Sender<Replayed>,
}

/// What became of a [`Replay`]. If the process ends before it is known, the sender is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// Every reading is in the log, durable.
    Committed,
    /// None is: the log is full.
    Full,
}

/// What a delivery is acknowledged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken {
    /// Of the connection that brought it.
    pub epoch: u64,
    /// `None`: it came with QoS 0 and wants no ack.
    pub packet_id: Option<u16>,
}

/// A message received and not yet acknowledged.
pub struct Delivery {
    /// The topic it was published to.
    pub topic: String,
    /// The payload as published.
    pub payload: Bytes,
    /// When it came in.
    pub received_at: Timestamp,
    /// What it is acknowledged by.
    pub ack: AckToken,
    /// Its share of the memory that waiting deliveries may take, given back when it is dropped.
    pub budget: Option<OwnedSemaphorePermit>,
}

/// Takes acks for deliveries of the present connection. Clones share it.
#[derive(Clone, Default)]
pub struct Acks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    queued: Notify,
}

#[derive(Default)]
struct Queue {
    epoch: u64,
    /// Packet ids in the order in which they are to be acknowledged.
    packet_ids: Vec<u16>,
    /// A delivery of this epoch was given up.
    is_broken: bool,
}

impl Acks {
    /// Acknowledges `deliveries` in their order, which must be that of their receipt. Those of an
    /// earlier connection are passed over, and those behind one that was given up: the broker
    /// delivers them again. Never blocks. Returns how many were queued.
    pub fn send<'d>(&self, deliveries: impl IntoIterator<Item = &'d Delivery>) -> u64 {
        let mut queue = self.lock();
        if queue.is_broken {
            return 0;
        }
        let before = queue.packet_ids.len();
        let epoch = queue.epoch;
        let of_this_connection =
            deliveries.into_iter().filter(|delivery| delivery.ack.epoch == epoch);
        queue.packet_ids.extend(of_this_connection.filter_map(|delivery| delivery.ack.packet_id));
        let queued = queue.packet_ids.len() - before;
        drop(queue);
        if queued > 0 {
            self.shared.queued.notify_one();
        }
        queued as u64
    }

    /// Gives `deliveries` up: they were not stored. The broker delivers them again only on another
    /// connection, so the present one is left if they came by it.
    pub fn give_up<'d>(&self, deliveries: impl IntoIterator<Item = &'d Delivery>) {
        let mut queue = self.lock();
        let epoch = queue.epoch;
        if deliveries.into_iter().any(|delivery| delivery.ack.epoch == epoch) {
            queue.is_broken = true;
            drop(queue);
            self.shared.queued.notify_one();
        }
    }

    /// Whether the present connection has to be left.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().is_broken
    }

    /// Waits until there are acks to be written, or the connection has to be left. Can be dropped
    /// and called again at any time.
    pub(crate) async fn queued(&self) {
        self.shared.queued.notified().await;
    }

    /// Takes what is queued for the present connection.
    pub(crate) fn take(&self) -> Vec<u16> {
        std::mem::take(&mut self.lock().packet_ids)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Ends the present epoch, with the acks that were queued in it; returns its number.
    pub(crate) fn end_epoch(&self) -> u64 {
        let mut queue = self.lock();
        let ended = queue.epoch;
        queue.epoch += 1;
        queue.packet_ids.clear();
        queue.is_broken = false;
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(acks: &Acks, packet_id: u16) -> Delivery {
        let ack = AckToken { epoch: acks.epoch(), packet_id: Some(packet_id) };
        let (topic, payload) = ("telemetry/a".to_owned(), Bytes::from_static(b"x"));
        Delivery { topic, payload, received_at: Timestamp::now(), ack, budget: None }
    }

    #[test]
    fn acks_keep_the_order_of_receipt() {
        let acks = Acks::default();
        let deliveries = [delivery(&acks, 7), delivery(&acks, 3), delivery(&acks, 5)];
        assert_eq!(acks.send(&deliveries), 3);
        assert_eq!(acks.take(), [7, 3, 5]);
    }

    #[test]
    fn an_ack_of_an_earlier_connection_is_never_written() {
        let acks = Acks::default();
        let (early, late) = (delivery(&acks, 1), delivery(&acks, 2));
        acks.send([&early]);
        acks.end_epoch();
        assert_eq!(acks.send([&late]), 0);
        assert!(acks.take().is_empty());
        let reused = delivery(&acks, 2);
        assert_eq!(acks.send([&late, &reused]), 1);
        assert_eq!(acks.take(), [2]);
    }

    #[test]
    fn behind_a_delivery_that_was_given_up_nothing_is_acknowledged() {
        let acks = Acks::default();
        let (stored, given_up, behind) =
            (delivery(&acks, 1), delivery(&acks, 2), delivery(&acks, 3));
        acks.send([&stored]);
        acks.give_up([&given_up]);
        assert_eq!(acks.send([&behind]), 0);
        assert!(acks.is_broken());
        assert_eq!(acks.take(), [1]);
    }

    #[test]
    fn giving_up_what_an_earlier_connection_brought_leaves_the_present_one_alone() {
        let acks = Acks::default();
        let early = delivery(&acks, 1);
        acks.end_epoch();
        acks.give_up([&early]);
        assert!(!acks.is_broken());
        assert_eq!(acks.send([&delivery(&acks, 1)]), 1);
    }
}
