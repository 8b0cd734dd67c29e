//! What is on its way between the broker and the client.

use iot_ingestor::mqtt::packet::{Received, Sent};

use crate::kept::MessageId;

/// On its way to the broker.
pub(crate) enum FromClient {
    Connect,
    Packet(Sent),
}

/// On its way to the client.
pub(crate) enum ToClient {
    ConnAck { session_present: bool },
    Message { packet_id: u16, message: MessageId, qos: u8, dup: bool },
    Packet(Received),
}

/// What the client reads.
pub(crate) enum Read {
    Connected {
        session_present: bool,
    },
    Packet(Received),
    Nothing,
    /// The connection is gone.
    Closed,
}
