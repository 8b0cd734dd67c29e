//! What a broker may send to a client that only subscribes, and what such a client sends, as MQTT
//! 3.1.1 has it. Plain data, so that [`super::session`] decides on it without a connection.

use bytes::Bytes;

use crate::telemetry::topic::Topic;

/// A packet of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Publish(Publish),
    /// The broker will not send the message with this packet id, of QoS 2, again.
    PubRel(u16),
    /// An answer to a message of QoS 2, which we never send; an earlier client may have.
    PubRec(u16),
    /// The answer to a SUBSCRIBE, one code a filter, in their order.
    SubAck {
        /// That of the SUBSCRIBE.
        packet_id: u16,
        /// What was granted.
        granted: Vec<Granted>,
    },
    /// The answer to an UNSUBSCRIBE.
    UnsubAck(u16),
    /// The answer to a ping.
    Pong,
    /// An answer to a message of QoS 1, or the last to one of QoS 2, which we never send.
    Other,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where it was published to.
    pub topic: Topic,
    /// As published, but for its end if it is far too long.
    pub payload: Bytes,
    /// Bytes of the payload that were not kept.
    pub omitted: usize,
    /// How it is to be acknowledged.
    pub qos: Qos,
    /// It may have been sent before.
    pub dup: bool,
    /// The broker had kept it for whoever subscribes.
    pub retain: bool,
}

/// Quality of service, with the packet id by which a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// QoS 0: not acknowledged.
    AtMostOnce,
    /// QoS 1: PUBACK.
    AtLeastOnce(u16),
    /// QoS 2: PUBREC, upon which the broker sends PUBREL.
    ExactlyOnce(u16),
}

/// What a broker answers to one filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Subscribed, with QoS 1 or 2.
    Yes,
    /// Subscribed with QoS 0: what is lost on the way is not sent again.
    QosZero,
    /// Not subscribed.
    Refused,
}

/// A packet for the broker, after the CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// An answer to a packet of the broker.
    Answer(Answer),
    /// Asks for messages, with QoS 1.
    Subscribe {
        /// Comes back with the answer.
        packet_id: u16,
        /// At least one.
        filters: Vec<String>,
    },
    /// Asks for no more of them.
    Unsubscribe {
        /// Comes back with the answer.
        packet_id: u16,
        /// At least one.
        filters: Vec<String>,
    },
    /// Asks for a sign of life, and is one.
    Ping,
    /// Ends the connection in order.
    Disconnect,
}

/// An answer to a packet of the broker, with its packet id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The message of QoS 1 is ours.
    PubAck(u16),
    /// The message of QoS 2 is ours.
    PubRec(u16),
    /// To a PUBREC that nothing of ours has brought about.
    PubRel(u16),
    /// The packet id of a message of QoS 2 is free again.
    PubComp(u16),
}
