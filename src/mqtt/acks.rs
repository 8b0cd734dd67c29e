//! Deliveries, and their acknowledgements.
//!
//! A packet id belongs to one connection: after a reconnect the broker uses it again, for another
//! message. A PUBACK that was meant for the old connection would acknowledge a message that nobody
//! stored. So every delivery carries the epoch of its connection; its ack is queued only while
//! that epoch lasts, and the queue ends with it. The queue is written by the thread that owns the
//! connection, so what it takes from the queue is always of the connection that it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::{Publish, QoS};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::reading::Timestamp;

/// A message received and not yet acknowledged.
pub struct Delivery {
    publish: Publish,
    epoch: u64,
    received_at: Timestamp,
    /// Its share of the memory that waiting deliveries may take.
    _budget: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    pub(super) fn new(
        publish: Publish,
        epoch: u64,
        received_at: Timestamp,
        budget: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { publish, epoch, received_at, _budget: budget }
    }

    /// The topic it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.publish.topic
    }

    /// The payload as published.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    /// When it came in.
    #[must_use]
    pub fn received_at(&self) -> Timestamp {
        self.received_at
    }
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
        // What came with QoS 0 has no packet id and wants no ack.
        let of_this_connection = deliveries
            .into_iter()
            .filter(|delivery| delivery.epoch == epoch && delivery.publish.qos == QoS::AtLeastOnce);
        queue.packet_ids.extend(of_this_connection.map(|delivery| delivery.publish.pkid));
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
        if deliveries.into_iter().any(|delivery| delivery.epoch == epoch) {
            queue.is_broken = true;
            drop(queue);
            self.shared.queued.notify_one();
        }
    }

    /// Whether the present connection has to be left.
    pub(super) fn is_broken(&self) -> bool {
        self.lock().is_broken
    }

    /// Waits until there are acks to be written, or the connection has to be left. Can be dropped
    /// and called again at any time.
    pub(super) async fn queued(&self) {
        self.shared.queued.notified().await;
    }

    /// Takes what is queued for the present connection.
    pub(super) fn take(&self) -> Vec<u16> {
        std::mem::take(&mut self.lock().packet_ids)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Ends the present epoch, with the acks that were queued in it; returns its number.
    pub(super) fn end_epoch(&self) -> u64 {
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
        let mut publish = Publish::new("telemetry/a", QoS::AtLeastOnce, "x");
        publish.pkid = packet_id;
        Delivery::new(publish, acks.epoch(), Timestamp::now(), None)
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
