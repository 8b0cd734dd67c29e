//! The seam between MQTT and the intake: what comes in, and what became of it on the way back.
//!
//! The intake settles deliveries in the order of receipt; which of them are still to be
//! acknowledged, and when, is decided by the session that the connection belongs to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use crate::base::time::Timestamp;
use crate::telemetry::Record;
use crate::telemetry::topic::Topic;

/// What comes in.
pub enum Inbound {
    /// A message, to be acknowledged.
    Message(Delivery),
    /// Readings that come by HTTP, to be answered.
    Replay(Replay),
}

/// Good readings that no message has brought: of a dead letter, or of a body.
pub struct Replay {
    /// To be put into the log.
    pub readings: Vec<Record>,
    /// Whether they have never come before, so that they count as accepted.
    pub is_new: bool,
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

/// What a delivery is acknowledged by. Whoever has received it gives it, and knows what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckToken {
    /// Of the connection that brought it.
    pub epoch: u64,
    /// Its place among those that want an ack; `None`: it came with QoS 0 and wants none.
    pub position: Option<u64>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// All of it is durable: it may be acknowledged.
    Stored(AckToken),
    /// Nothing of it is to be acknowledged: the broker has to deliver it again.
    GivenUp(AckToken),
}

/// What a delivery may be recognised by when it comes once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its packet id, which the broker uses again once the message is acknowledged.
    pub id: u16,
    /// The broker says that it may have sent it before.
    pub is_again: bool,
    /// Another one each time that the broker has begun our session anew.
    pub session: u64,
}

/// A message received and not yet acknowledged.
pub struct Delivery {
    /// The topic it was published to.
    pub topic: Topic,
    /// The payload as published, but for its end if it is far too long.
    pub payload: Bytes,
    /// Whether the broker had kept it for whoever subscribes.
    pub is_retained: bool,
    /// Bytes of the payload that were not kept.
    pub omitted: usize,
    /// When it came in.
    pub received_at: Timestamp,
    /// What it was delivered by; `None` with QoS 0.
    pub packet: Option<Packet>,
    /// What it is acknowledged by.
    pub ack: AckToken,
    /// Its share of the memory that waiting deliveries may take, given back when it is dropped.
    pub budget: Option<OwnedSemaphorePermit>,
}

/// Takes what became of deliveries, for the session. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Acks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    settled: Mutex<Vec<Settled>>,
    queued: Notify,
}

impl Acks {
    /// `deliveries`, in the order of their receipt, are durable. Never blocks.
    pub(crate) fn send<'d>(&self, deliveries: impl IntoIterator<Item = &'d Delivery>) {
        self.settle(deliveries.into_iter().map(|delivery| Settled::Stored(delivery.ack)));
    }

    /// Gives `deliveries` up: they were not stored. The broker delivers them again only on another
    /// connection, so the one that brought them is left.
    pub(crate) fn give_up<'d>(&self, deliveries: impl IntoIterator<Item = &'d Delivery>) {
        self.settle(deliveries.into_iter().map(|delivery| Settled::GivenUp(delivery.ack)));
    }

    /// Waits until something was settled. Can be dropped and called again at any time.
    pub(crate) async fn queued(&self) {
        self.shared.queued.notified().await;
    }

    /// Takes what was settled since, in its order.
    pub(crate) fn take(&self) -> Vec<Settled> {
        std::mem::take(&mut self.lock())
    }

    fn settle(&self, settled: impl Iterator<Item = Settled>) {
        let mut queue = self.lock();
        queue.extend(settled);
        let is_news = !queue.is_empty();
        drop(queue);
        if is_news {
            self.shared.queued.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Settled>> {
        self.shared.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_settled_comes_back_in_its_order_and_once() {
        let acks = Acks::default();
        let [first, second, third] = [0, 1, 2].map(|position| Delivery {
            topic: "telemetry/a".into(),
            payload: Bytes::from_static(b"x"),
            is_retained: false,
            omitted: 0,
            received_at: Timestamp::UNIX_EPOCH,
            packet: None,
            ack: AckToken { epoch: 1, position: Some(position) },
            budget: None,
        });
        acks.send([&first, &second]);
        acks.give_up([&third]);
        let expected =
            [Settled::Stored(first.ack), Settled::Stored(second.ack), Settled::GivenUp(third.ack)];
        assert_eq!(acks.take(), expected);
        assert_eq!(acks.take(), []);
    }
}
