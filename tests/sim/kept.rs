//! What a broker keeps of a client: its subscription, what waits for it, and what it has not acknowledged.

use std::collections::VecDeque;

/// The number of a published message.
pub(crate) type MessageId = usize;

/// How many messages it sends before it waits for acknowledgements.
const WINDOW: usize = 4;

/// So few packet ids that each comes again soon.
const PACKET_IDS: u16 = 6;

#[derive(Default)]
pub(crate) struct Session {
    pub(crate) is_subscribed: bool,
    pub(crate) waiting: VecDeque<(MessageId, u8)>,
    /// Sent and not acknowledged, in the order in which they were sent first.
    pub(crate) in_flight: Vec<InFlight>,
    pub(crate) last_packet_id: u16,
}

pub(crate) struct InFlight {
    pub(crate) packet_id: u16,
    pub(crate) message: MessageId,
    pub(crate) qos: u8,
    /// Of QoS 2, and PUBREC came: it is PUBREL that is sent again.
    pub(crate) is_received: bool,
    pub(crate) is_sent_on_this_connection: bool,
    pub(crate) was_sent_before: bool,
}

impl Session {
    pub(crate) fn has_to_send_again(&self) -> bool {
        self.in_flight.iter().any(|one| !one.is_sent_on_this_connection)
    }

    pub(crate) fn sends_next(&self) -> bool {
        let fits = |(_, qos): &(MessageId, u8)| *qos == 0 || self.in_flight.len() < WINDOW;
        self.is_subscribed && self.waiting.front().is_some_and(fits)
    }

    pub(crate) fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id % PACKET_IDS + 1;
            if self.in_flight.iter().all(|one| one.packet_id != self.last_packet_id) {
                return self.last_packet_id;
            }
        }
    }
}
