//! The way into the intake's queue, and the waiting before it.
//!
//! Nothing is dropped here: when the queue is full, or the payloads in it take their share of the
//! memory, nothing more is read from the broker, and TCP tells it.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::connection::Connection;
use super::packet::{Publish, Sent};
use super::session::KEEP_ALIVE;
use crate::base::time::Timestamp;
use crate::intake::queue::{AckToken, Delivery, Inbound, Packet};

/// Payload bytes that the intake has not dealt with yet, however many messages they are; a message that
/// is larger comes alone.
const BUDGET_BYTES: usize = 4 * 1024 * 1024;

/// The intake's queue, seen from the broker's side.
pub(super) struct Inlet {
    /// The last strong handle, so that letting go of it closes the queue; `None`: that has happened.
    deliveries: Option<mpsc::Sender<Inbound>>,
    budget: Arc<Semaphore>,
}

/// How a delivery found its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    AtOnce,
    /// There was a wait, during which nothing was read from the broker.
    AfterAWait,
    /// Nobody takes deliveries any more.
    Nowhere,
}

impl Inlet {
    pub(super) fn new(deliveries: mpsc::Sender<Inbound>) -> Self {
        Self { deliveries: Some(deliveries), budget: Arc::new(Semaphore::new(BUDGET_BYTES)) }
    }

    /// Lets the intake end, once it has dealt with what is in the queue.
    pub(super) fn close(&mut self) {
        self.deliveries = None;
    }

    /// Hands a message to the intake. While it waits for its place the broker is told by
    /// `connection` that we live.
    pub(super) async fn forward(
        &self,
        publish: Publish,
        packet: Option<Packet>,
        ack: AckToken,
        connection: Option<&mut Connection>,
    ) -> Forwarded {
        let Some(deliveries) = &self.deliveries else { return Forwarded::Nowhere };
        let received_at = Timestamp::now();
        let Publish { topic, payload, omitted, retain: is_retained, .. } = publish;
        let bytes =
            u32::try_from((topic.len() + payload.len()).min(BUDGET_BYTES)).unwrap_or(u32::MAX);
        let send = |place: mpsc::Permit<'_, Inbound>, budget: OwnedSemaphorePermit| {
            let budget = Some(budget);
            place.send(Inbound::Message(Delivery {
                topic,
                payload,
                is_retained,
                omitted,
                received_at,
                packet,
                ack,
                budget,
            }));
        };
        if let Ok(budget) = Arc::clone(&self.budget).try_acquire_many_owned(bytes)
            && let Ok(place) = deliveries.try_reserve()
        {
            send(place, budget);
            return Forwarded::AtOnce;
        }
        let place = async {
            let budget = Arc::clone(&self.budget).acquire_many_owned(bytes).await.ok()?;
            Some((deliveries.reserve().await.ok()?, budget))
        };
        match while_keeping_alive(connection, place).await {
            Some((place, budget)) => {
                send(place, budget);
                Forwarded::AfterAWait
            }
            None => Forwarded::Nowhere,
        }
    }
}

/// Waits for `place`, and tells the broker meanwhile that we live.
async fn while_keeping_alive<T>(
    connection: Option<&mut Connection>,
    place: impl Future<Output = T>,
) -> T {
    let mut place = pin!(place);
    let Some(connection) = connection else { return place.await };
    loop {
        if let Ok(place) = timeout(KEEP_ALIVE / 2, &mut place).await {
            return place;
        }
        let pinged = match connection.queue(Sent::Ping) {
            Ok(()) => connection.flush().await,
            Err(loss) => Err(loss),
        };
        if pinged.is_err() {
            tracing::debug!("the broker takes no ping; the next read will tell why");
        }
    }
}
