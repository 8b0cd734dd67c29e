//! Packets as bytes. The only file of the service that knows rumqttc.
//!
//! rumqttc 0.25.1 reads and writes all packets but two here. Its client is not used, and its reading
//! of PUBLISH and SUBACK neither:
//! - its codec fails on a topic that is not UTF-8 (`mqttbytes/mod.rs`, `read_mqtt_string`), and with it
//!   the connection: the broker delivers the message again, for ever, and nothing behind it;
//! - its state machine fails on a PUBREL whose PUBLISH it has not seen (`state.rs`,
//!   `handle_incoming_pubrel`), as an earlier client may have left in the session;
//! - it acknowledges a message of QoS 2 by a PUBACK, if at all, when acks are manual;
//! - its reading of SUBACK fails on a return code that MQTT 3.1.1 does not know;
//! - its event loop prints packets at debug level and in its errors, a CONNECT with the password among
//!   them, and takes no other address of a name than the first that connects.

use bytes::{Buf, Bytes, BytesMut};
use rumqttc::{
    ConnectReturnCode, Packet, PubAck, PubComp, PubRec, PubRel, QoS, Subscribe, SubscribeFilter,
    Unsubscribe,
};

use crate::mqtt::packet::{Answer, Granted, Publish, Qos, Received, Sent};
use crate::telemetry::topic::Topic;

/// The largest packet that there is: a limit of our own would make the broker deliver a larger one
/// again and again.
const MAX_PACKET_BYTES: usize = 268_435_455 + 5;

const PUBLISH: u8 = 3;

/// The first byte of a SUBACK.
const SUBACK: u8 = 0x90;

/// What came is not MQTT 3.1.1. Holds nothing of what came.
#[derive(Debug, thiserror::Error)]
#[error("what the broker sent is not MQTT 3.1.1: {0}")]
pub(super) struct Malformed(String);

impl Malformed {
    fn new(what: &str) -> Self {
        Self(what.to_owned())
    }
}

/// The answer to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnAck {
    Accepted { session_present: bool },
    Refused(&'static str),
}

/// Whom the broker is told that we are.
pub(super) struct Identity<'a> {
    pub(super) client_id: &'a str,
    pub(super) login: Option<(&'a str, &'a str)>,
    pub(super) keep_alive_secs: u16,
    /// Whether the broker is to keep the session when the connection ends.
    pub(super) is_persistent: bool,
}

/// Bytes of the packet that `bytes` begin with; `None` if they do not say yet.
///
/// # Errors
/// If they begin with none.
pub(super) fn packet_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    Ok(header(bytes)?.map(|(length, rest)| length + rest))
}

/// Length of the fixed header, and of what follows it.
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut rest = 0;
    for (at, digit) in bytes.iter().skip(1).enumerate() {
        rest |= usize::from(digit & 0x7f) << (7 * at);
        if digit & 0x80 == 0 {
            return Ok(Some((at + 2, rest)));
        }
        if at == 3 {
            return Err(Malformed::new("a length of more than four bytes"));
        }
    }
    Ok(None)
}

/// Takes the first packet off `bytes`, which must hold the whole of it.
///
/// # Errors
/// If it is none that a broker sends.
pub(super) fn decode(bytes: &mut BytesMut) -> Result<Received, Malformed> {
    if is_publish(bytes) {
        let Some((header, rest)) = header(bytes)? else {
            return Err(Malformed::new("a packet that is cut off"));
        };
        return publish(bytes.split_to(header + rest), header, 0);
    }
    if bytes.first() == Some(&SUBACK) {
        return suback(bytes);
    }
    Ok(match Packet::read(bytes, MAX_PACKET_BYTES).map_err(rumqttc_error)? {
        Packet::PubRel(packet) => Received::PubRel(packet.pkid),
        Packet::PubRec(packet) => Received::PubRec(packet.pkid),
        Packet::UnsubAck(packet) => Received::UnsubAck(packet.pkid),
        Packet::PingResp => Received::Pong,
        Packet::PubAck(_) | Packet::PubComp(_) => Received::Other,
        _ => return Err(Malformed::new("a packet that no broker sends here")),
    })
}

/// Whether `bytes` begin with a message.
pub(super) fn is_publish(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first >> 4 == PUBLISH)
}

/// A message of which the last `omitted` bytes were not kept.
///
/// # Errors
/// If it is none, as far as that can be told.
pub(super) fn decode_cut(bytes: BytesMut, omitted: usize) -> Result<Received, Malformed> {
    match header(&bytes)? {
        Some((header, _)) => publish(bytes, header, omitted),
        None => Err(Malformed::new("a packet that is cut off")),
    }
}

/// MQTT 3.1.1, 3.3, with any bytes as the topic.
fn publish(bytes: BytesMut, header: usize, omitted: usize) -> Result<Received, Malformed> {
    let mut packet = bytes.freeze();
    let flags = packet[0];
    packet.advance(header);
    let topic_length = usize::from(number(&mut packet)?);
    if topic_length > packet.len() {
        return Err(Malformed::new("a topic that is longer than its packet"));
    }
    let topic = Topic::from(packet.split_to(topic_length));
    let qos = match (flags >> 1) & 3 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce(packet_id(&mut packet)?),
        2 => Qos::ExactlyOnce(packet_id(&mut packet)?),
        _ => return Err(Malformed::new("a message of QoS 3")),
    };
    let (dup, retain) = (flags & 8 != 0, flags & 1 != 0);
    Ok(Received::Publish(Publish { topic, payload: packet, omitted, qos, dup, retain }))
}

fn packet_id(packet: &mut Bytes) -> Result<u16, Malformed> {
    match number(packet)? {
        0 => Err(Malformed::new("a packet id of 0")),
        id => Ok(id),
    }
}

fn number(packet: &mut Bytes) -> Result<u16, Malformed> {
    packet.try_get_u16().map_err(|_| Malformed::new("a packet that is too short"))
}

/// MQTT 3.1.1, 3.9. A code that it does not know, as brokers of MQTT 5 have them, is a refusal.
fn suback(bytes: &mut BytesMut) -> Result<Received, Malformed> {
    let Some((header, rest)) = header(bytes)? else {
        return Err(Malformed::new("a packet that is cut off"));
    };
    let mut packet = bytes.split_to(header + rest).freeze();
    packet.advance(header);
    let packet_id = number(&mut packet)?;
    let granted = |code: &u8| match code {
        0 => Granted::QosZero,
        1 | 2 => Granted::Yes,
        _ => Granted::Refused,
    };
    Ok(Received::SubAck { packet_id, granted: packet.iter().map(granted).collect() })
}

/// Takes the CONNACK off `bytes`, which must hold the whole of it.
///
/// # Errors
/// If it is another packet.
pub(super) fn connack(bytes: &mut BytesMut) -> Result<ConnAck, Malformed> {
    let Packet::ConnAck(connack) = Packet::read(bytes, MAX_PACKET_BYTES).map_err(rumqttc_error)?
    else {
        return Err(Malformed::new("no CONNACK"));
    };
    Ok(match connack.code {
        ConnectReturnCode::Success => {
            ConnAck::Accepted { session_present: connack.session_present }
        }
        ConnectReturnCode::RefusedProtocolVersion => {
            ConnAck::Refused("it does not speak MQTT 3.1.1")
        }
        ConnectReturnCode::BadClientId => ConnAck::Refused("it does not take MQTT_CLIENT_ID"),
        ConnectReturnCode::ServiceUnavailable => ConnAck::Refused("it is not available"),
        ConnectReturnCode::BadUserNamePassword => ConnAck::Refused("BadUserNamePassword"),
        ConnectReturnCode::NotAuthorized => ConnAck::Refused("NotAuthorized"),
    })
}

/// Appends a CONNECT.
///
/// # Errors
/// If something in it is too long.
pub(super) fn connect(identity: &Identity<'_>, bytes: &mut BytesMut) -> Result<(), Malformed> {
    let mut connect = rumqttc::Connect::new(identity.client_id);
    connect.clean_session = !identity.is_persistent;
    connect.keep_alive = identity.keep_alive_secs;
    if let Some((user, password)) = identity.login {
        connect.set_login(user, password);
    }
    write(&Packet::Connect(connect), bytes)
}

/// Appends `packet`.
///
/// # Errors
/// If it is too long.
pub(super) fn encode(packet: Sent, bytes: &mut BytesMut) -> Result<(), Malformed> {
    let packet = match packet {
        Sent::Answer(Answer::PubAck(id)) => Packet::PubAck(PubAck::new(id)),
        Sent::Answer(Answer::PubRec(id)) => Packet::PubRec(PubRec::new(id)),
        Sent::Answer(Answer::PubRel(id)) => Packet::PubRel(PubRel::new(id)),
        Sent::Answer(Answer::PubComp(id)) => Packet::PubComp(PubComp::new(id)),
        Sent::Subscribe { packet_id, filters } => {
            let filters = filters.into_iter();
            let filters = filters.map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
            let mut subscribe = Subscribe::new_many(filters);
            subscribe.pkid = packet_id;
            Packet::Subscribe(subscribe)
        }
        Sent::Unsubscribe { packet_id, filters } => {
            Packet::Unsubscribe(Unsubscribe { pkid: packet_id, topics: filters })
        }
        Sent::Ping => Packet::PingReq,
        Sent::Disconnect => Packet::Disconnect,
    };
    write(&packet, bytes)
}

/// Appends a SUBSCRIBE to one filter with QoS 0, which [`encode`] never does.
///
/// # Errors
/// If it is too long.
pub(super) fn subscribe_to_look(
    packet_id: u16,
    filter: &str,
    bytes: &mut BytesMut,
) -> Result<(), Malformed> {
    let filter = SubscribeFilter::new(filter.to_owned(), QoS::AtMostOnce);
    let mut subscribe = Subscribe::new_many([filter]);
    subscribe.pkid = packet_id;
    write(&Packet::Subscribe(subscribe), bytes)
}

fn write(packet: &Packet, bytes: &mut BytesMut) -> Result<(), Malformed> {
    packet.write(bytes, MAX_PACKET_BYTES).map(drop).map_err(rumqttc_error)
}

/// rumqttc's messages name the rule and at most a number, never what was in the packet.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn rumqttc_error(error: rumqttc::Error) -> Malformed {
    Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_suback_that_is_not_known_is_a_refusal_and_none_at_all_is_none() {
        let cases: [(&[u8], &[Granted]); 3] = [
            (&[], &[]),
            (&[0, 1, 2], &[Granted::QosZero, Granted::Yes, Granted::Yes]),
            (&[0x80, 0x87, 3], &[Granted::Refused; 3]),
        ];
        for (codes, expected) in cases {
            let length = 2 + u8::try_from(codes.len()).unwrap();
            let mut bytes = BytesMut::from(&[0x90, length, 0, 7][..]);
            bytes.extend_from_slice(codes);
            let granted = expected.to_vec();
            assert_eq!(decode(&mut bytes).unwrap(), Received::SubAck { packet_id: 7, granted });
            assert!(bytes.is_empty());
        }
        assert!(decode(&mut BytesMut::from(&[0x90, 1, 0][..])).is_err());
    }

    #[test]
    fn of_a_message_that_is_cut_all_is_known_but_its_end() {
        let head = b"\x32\xff\xff\xff\x7f\0\x01t\0\x09abc";
        let Received::Publish(publish) = decode_cut(BytesMut::from(&head[..]), 5).unwrap() else {
            panic!("it is a message");
        };
        assert_eq!((&*publish.topic, &*publish.payload), ("t", &b"abc"[..]));
        assert_eq!((publish.omitted, publish.qos), (5, Qos::AtLeastOnce(9)));
    }
}
