//! Deliveries, and their acknowledgements.
//!
//! A packet id belongs to one connection: after a reconnect the broker uses it again, for another
//! message. A PUBACK that was meant for the old connection would acknowledge a message that nobody
//! stored. So every delivery carries the epoch of its connection, and an ack is sent only while
//! that epoch lasts, under the lock that ends it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc::{AsyncClient, Publish};
use tokio::sync::OwnedSemaphorePermit;

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

/// What became of a group's acks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// Handed to the connection.
    pub sent: u64,
    /// Of an earlier connection: the broker will deliver those messages again.
    pub stale: u64,
}

/// Sends acks for deliveries of the present connection. Clones share it.
#[derive(Clone)]
pub struct Acks {
    client: AsyncClient,
    epoch: Arc<Mutex<u64>>,
}

impl Acks {
    pub(super) fn new(client: AsyncClient) -> Self {
        Self { client, epoch: Arc::default() }
    }

    /// Acknowledges `deliveries` in their order, which must be that of their receipt.
    pub fn send<'d>(&self, deliveries: impl IntoIterator<Item = &'d Delivery>) -> Acked {
        let mut acked = Acked::default();
        let epoch = self.lock();
        for delivery in deliveries {
            if delivery.epoch != *epoch {
                acked.stale += 1;
                continue;
            }
            // The queue holds more than a connection can have unacknowledged, so it is never full.
            match self.client.try_ack(&delivery.publish) {
                Ok(()) => acked.sent += 1,
                Err(error) => {
                    tracing::error!(%error, "a PUBACK could not be queued: the broker will deliver that message again");
                    acked.stale += 1;
                }
            }
        }
        acked
    }

    pub(super) fn epoch(&self) -> u64 {
        *self.lock()
    }

    /// Ends the present epoch. `clean_up` runs before an ack of the next one can be queued.
    pub(super) fn end_epoch(&self, clean_up: impl FnOnce()) {
        let mut epoch = self.lock();
        *epoch += 1;
        clean_up();
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
