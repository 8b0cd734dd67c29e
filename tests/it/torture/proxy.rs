//! A proxy between the service and the broker that records what was acknowledged on the wire, and
//! can get in the way.

use std::collections::{HashSet, VecDeque};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::relay::{Relay, pass};
use crate::harness::wire::Packet;

/// Passes everything on, packet by packet.
pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
    _relay: Relay,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    /// Open connections, both ends of each.
    links: Mutex<Vec<TcpStream>>,
}

/// What went by.
#[derive(Default)]
struct Seen {
    acked: HashSet<Vec<u8>>,
    /// Descriptions of PUBACKs that came when others were due.
    out_of_order: Vec<String>,
}

impl Proxy {
    /// To the broker on `broker_port`.
    pub(super) fn start(broker_port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let relay = Relay::start(broker_port, move |client, broker| {
            served.connected(&client, &broker);
        });
        Self { port: relay.port, shared, _relay: relay }
    }

    /// Whether a message with this payload was acknowledged.
    pub(super) fn has_acked(&self, payload: &str) -> bool {
        self.shared.seen.lock().unwrap().acked.contains(payload.as_bytes())
    }

    /// Breaks every connection.
    pub(super) fn cut(&self) {
        for link in self.shared.links.lock().unwrap().drain(..) {
            link.shutdown(Shutdown::Both).ok();
        }
    }

    /// Every PUBACK has to leave in the order in which its message came.
    #[track_caller]
    pub(super) fn must_be_in_order(&self) {
        let seen = self.shared.seen.lock().unwrap();
        assert!(seen.out_of_order.is_empty(), "{:?}", seen.out_of_order);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn connected(self: &Arc<Self>, client: &TcpStream, broker: &TcpStream) {
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        for stream in [client, broker] {
            stream.set_write_timeout(Some(Duration::from_secs(30))).ok();
        }
        self.links.lock().unwrap().extend([clone(client), clone(broker)]);
        // Received and not yet acknowledged on this connection, oldest first.
        let waiting = Arc::new(Mutex::new(VecDeque::new()));
        let received = Arc::clone(&waiting);
        copy(clone(broker), clone(client), move |packet| {
            if let Packet::Publish { id: Some(id), payload, .. } = packet {
                received.lock().unwrap().push_back((id, payload));
            }
        });
        let shared = Arc::clone(self);
        copy(clone(client), clone(broker), move |packet| {
            if let Packet::PubAck { id } = packet {
                let due = waiting.lock().unwrap().pop_front();
                let mut seen = shared.seen.lock().unwrap();
                match due {
                    Some((next, payload)) if next == id => {
                        seen.acked.insert(payload);
                    }
                    due => {
                        let due = due.map(|(id, _)| id);
                        seen.out_of_order.push(format!("PUBACK {id}, {due:?} was due"));
                    }
                }
            }
        });
    }
}

/// Passes what comes from `from` on to `to`, after showing each packet to `see`.
fn copy(from: TcpStream, to: TcpStream, mut see: impl FnMut(Packet) + Send + 'static) {
    let mut inbox = Vec::new();
    pass(from, to, move |bytes| {
        inbox.extend(bytes);
        let mut at = 0;
        while let Some((packet, length)) = Packet::decode(&inbox[at..]) {
            see(packet);
            at += length;
        }
        inbox.drain(..at);
        true
    });
}
