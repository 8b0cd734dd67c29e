//! A broker as MQTT 3.1.1 lets one be: a persistent session, a narrow window, packet ids that are used
//! again soon, redelivery in order with DUP, QoS 0 to 2, retained messages, topics that overtake each
//! other, and at any moment a connection that breaks with what is on its way, or a session that is
//! forgotten.

use std::collections::VecDeque;

use iot_ingestor::mqtt::packet::{Answer, Granted, Publish, Qos, Received, Sent};

use crate::kept::{InFlight, MessageId, Session};
use crate::ledger::{Ledger, Violation};
use crate::publisher::topic_of;
use crate::schedule::Dice;
use crate::wire::{FromClient, Read, ToClient};

#[derive(Default)]
pub(crate) struct Broker {
    session: Option<Session>,
    connection: Option<Connection>,
    retained: Option<MessageId>,
    /// Nobody gets through to it.
    pub(crate) is_down: bool,
    /// It refuses the next subscription.
    pub(crate) refuses_next: bool,
}

#[derive(Default)]
struct Connection {
    from_client: VecDeque<FromClient>,
    to_client: VecDeque<ToClient>,
    /// Packet ids that came on it and wait for PUBACK or PUBREC on it, in their order.
    unacknowledged: VecDeque<u16>,
    is_accepted: bool,
    /// The broker's end is gone; what is in `to_client` can still be read.
    is_cut: bool,
}

impl Broker {
    /// Takes a message for whoever is subscribed. One that overtakes is of another topic than the
    /// message before it.
    pub(crate) fn publish(&mut self, message: MessageId, qos: u8, retain: bool, overtakes: bool) {
        if retain {
            self.retained = Some(message);
        }
        if let Some(session) = self.session.as_mut().filter(|one| one.is_subscribed) {
            let behind = usize::from(overtakes && !session.waiting.is_empty());
            session.waiting.insert(session.waiting.len() - behind, (message, qos));
        }
    }

    /// The client connects; false if it cannot.
    pub(crate) fn connect(&mut self) -> bool {
        if self.is_down {
            return false;
        }
        let from_client = VecDeque::from([FromClient::Connect]);
        self.connection = Some(Connection { from_client, ..Connection::default() });
        true
    }

    /// Whether a connection stands, on its side too.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.as_ref().is_some_and(|one| one.is_accepted && !one.is_cut)
    }

    /// The client writes a packet, which is lost if the connection is gone.
    pub(crate) fn write(&mut self, packet: Sent) {
        if let Some(connection) = self.connection.as_mut().filter(|one| !one.is_cut) {
            connection.from_client.push_back(FromClient::Packet(packet));
        }
    }

    /// Whether the client would find something when it reads.
    pub(crate) fn is_readable(&self) -> bool {
        self.connection.as_ref().is_none_or(|one| one.is_cut || !one.to_client.is_empty())
    }

    /// The client reads a packet.
    pub(crate) fn read(&mut self, ledger: &Ledger) -> Read {
        let Some(connection) = &mut self.connection else { return Read::Closed };
        match connection.to_client.pop_front() {
            Some(ToClient::ConnAck { session_present }) => Read::Connected { session_present },
            Some(ToClient::Packet(packet)) => Read::Packet(packet),
            Some(ToClient::Message { packet_id, message, qos, dup }) => {
                let qos = match qos {
                    0 => Qos::AtMostOnce,
                    1 => Qos::AtLeastOnce(packet_id),
                    _ => Qos::ExactlyOnce(packet_id),
                };
                let payload = ledger.messages[message].payload.clone();
                let topic = topic_of(message, ledger.messages[message].by_arrival);
                let topic = bytes::Bytes::from(topic).into();
                Read::Packet(Received::Publish(Publish {
                    topic,
                    payload,
                    omitted: 0,
                    qos,
                    dup,
                    retain: false,
                }))
            }
            None if connection.is_cut => {
                self.connection = None;
                Read::Closed
            }
            None => Read::Nothing,
        }
    }

    /// The connection breaks. Of what is under way in either direction a part arrives all the same;
    /// returns what was acknowledged by that.
    pub(crate) fn cut(&mut self, dice: &mut Dice) -> Result<Vec<MessageId>, Violation> {
        let Some(connection) = self.connection.as_mut().filter(|one| !one.is_cut) else {
            return Ok(Vec::new());
        };
        let arriving = dice.below(connection.from_client.len() + 1);
        connection.from_client.truncate(arriving);
        let acknowledged = self.take_all()?;
        if let Some(connection) = &mut self.connection {
            let arriving = dice.below(connection.to_client.len() + 1);
            connection.to_client.truncate(arriving);
            connection.is_cut = true;
        }
        Ok(acknowledged)
    }

    /// The client is gone, without a word; what it wrote last arrives, or a part of it.
    pub(crate) fn client_is_gone(&mut self, dice: &mut Dice) -> Result<Vec<MessageId>, Violation> {
        let acknowledged = self.cut(dice)?;
        self.connection = None;
        Ok(acknowledged)
    }

    /// The client has closed the connection; all that it wrote arrives.
    pub(crate) fn client_has_closed(&mut self) -> Result<Vec<MessageId>, Violation> {
        let acknowledged = self.take_all()?;
        self.connection = None;
        Ok(acknowledged)
    }

    /// The broker starts again without what it kept of the session.
    pub(crate) fn forget(&mut self) {
        self.session = None;
        if let Some(connection) = &mut self.connection {
            connection.to_client.clear();
            connection.is_cut = true;
        }
    }

    pub(crate) fn can_work(&self) -> bool {
        let Some(connection) = self.connection.as_ref().filter(|one| !one.is_cut) else {
            return false;
        };
        let sends = |session: &Session| session.has_to_send_again() || session.sends_next();
        !connection.from_client.is_empty()
            || (connection.is_accepted && self.session.as_ref().is_some_and(sends))
    }

    /// Does one thing, if there is one to do; returns what was acknowledged by that.
    pub(crate) fn work(&mut self) -> Result<Option<MessageId>, Violation> {
        let Some(connection) = self.connection.as_mut().filter(|one| !one.is_cut) else {
            return Ok(None);
        };
        if connection.from_client.is_empty() {
            self.send();
            return Ok(None);
        }
        self.take()
    }

    /// Whether it holds nothing for the client any more.
    pub(crate) fn is_drained(&self) -> bool {
        self.session.as_ref().is_some_and(|one| {
            one.is_subscribed && one.in_flight.is_empty() && one.waiting.is_empty()
        })
    }

    fn take_all(&mut self) -> Result<Vec<MessageId>, Violation> {
        let mut acknowledged = Vec::new();
        while self.connection.as_ref().is_some_and(|one| !one.is_cut && !one.from_client.is_empty())
        {
            acknowledged.extend(self.take()?);
        }
        Ok(acknowledged)
    }

    /// Takes one packet of the client.
    fn take(&mut self) -> Result<Option<MessageId>, Violation> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        match connection.from_client.pop_front() {
            None | Some(FromClient::Packet(Sent::Ping)) => {
                connection.to_client.push_back(ToClient::Packet(Received::Pong));
            }
            Some(FromClient::Connect) => {
                connection.is_accepted = true;
                let session_present = self.session.is_some();
                connection.to_client.push_back(ToClient::ConnAck { session_present });
                for one in &mut self.session.get_or_insert_default().in_flight {
                    one.was_sent_before |= std::mem::take(&mut one.is_sent_on_this_connection);
                }
            }
            Some(FromClient::Packet(Sent::Subscribe { packet_id, filters })) => {
                let refuses = std::mem::take(&mut self.refuses_next);
                let granted = if refuses { Granted::Refused } else { Granted::Yes };
                let granted = vec![granted; filters.len()];
                let answer = Received::SubAck { packet_id, granted };
                connection.to_client.push_back(ToClient::Packet(answer));
                if let Some(session) = self.session.as_mut().filter(|_| !refuses) {
                    session.is_subscribed = true;
                    session.waiting.extend(self.retained.map(|message| (message, 1)));
                }
            }
            Some(FromClient::Packet(Sent::Unsubscribe { packet_id, .. })) => {
                connection.to_client.push_back(ToClient::Packet(Received::UnsubAck(packet_id)));
            }
            Some(FromClient::Packet(Sent::Disconnect)) => connection.is_cut = true,
            Some(FromClient::Packet(Sent::Answer(answer))) => return self.answered(answer),
        }
        Ok(None)
    }

    fn answered(&mut self, answer: Answer) -> Result<Option<MessageId>, Violation> {
        let (Some(connection), Some(session)) = (&mut self.connection, &mut self.session) else {
            return Ok(None);
        };
        let (packet_id, qos) = match answer {
            Answer::PubAck(packet_id) => (packet_id, 1),
            Answer::PubRec(packet_id) => (packet_id, 2),
            Answer::PubComp(packet_id) => {
                session.in_flight.retain(|one| one.packet_id != packet_id || !one.is_received);
                return Ok(None);
            }
            Answer::PubRel(_) => return Ok(None),
        };
        let expected = connection.unacknowledged.pop_front();
        let is_meant =
            |one: &InFlight| one.packet_id == packet_id && one.qos == qos && !one.is_received;
        let at = session.in_flight.iter().position(is_meant);
        let Some(at) = at.filter(|_| expected.is_some()) else {
            return Err(Violation(format!(
                "{answer:?}, and this connection has brought no such message"
            )));
        };
        if expected != Some(packet_id) {
            return Err(Violation(format!(
                "{answer:?}, and packet {} came before it",
                expected.unwrap_or_default()
            )));
        }
        if qos == 1 {
            return Ok(Some(session.in_flight.remove(at).message));
        }
        let one = &mut session.in_flight[at];
        one.is_received = true;
        connection.to_client.push_back(ToClient::Packet(Received::PubRel(packet_id)));
        Ok(Some(one.message))
    }

    /// Sends what was sent before, then what waits, as far as the window lets it.
    fn send(&mut self) {
        let (Some(connection), Some(session)) = (&mut self.connection, &mut self.session) else {
            return;
        };
        if !connection.is_accepted {
            return;
        }
        let again = session.in_flight.iter_mut().find(|one| !one.is_sent_on_this_connection);
        if let Some(one) = again {
            one.is_sent_on_this_connection = true;
            let InFlight { packet_id, message, qos, .. } = *one;
            let dup = one.was_sent_before;
            connection.to_client.push_back(if one.is_received {
                ToClient::Packet(Received::PubRel(packet_id))
            } else {
                connection.unacknowledged.push_back(packet_id);
                ToClient::Message { packet_id, message, qos, dup }
            });
            return;
        }
        if !session.sends_next() {
            return;
        }
        let Some((message, qos)) = session.waiting.pop_front() else { return };
        let mut packet_id = 0;
        if qos > 0 {
            packet_id = session.next_packet_id();
            connection.unacknowledged.push_back(packet_id);
            session.in_flight.push(InFlight {
                packet_id,
                message,
                qos,
                is_received: false,
                is_sent_on_this_connection: true,
                was_sent_before: false,
            });
        }
        connection.to_client.push_back(ToClient::Message { packet_id, message, qos, dup: false });
    }
}
