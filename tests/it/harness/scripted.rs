//! A broker that does what the test says, and sees every packet.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::wire::{Packet, Stream};
use super::{PATIENCE, eventually};

pub(crate) struct ScriptedBroker {
    listener: TcpListener,
    pub(crate) port: u16,
}

impl ScriptedBroker {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// Waits for a client and lets it in. With a new session, until it has subscribed too.
    #[track_caller]
    pub(crate) fn accept(&self, session_present: bool) -> Link {
        self.accept_granting(session_present, &[])
    }

    /// As [`Self::accept`], with these return codes for what it subscribes to; 1 for the rest.
    #[track_caller]
    pub(crate) fn accept_granting(&self, session_present: bool, granted: &[u8]) -> Link {
        self.accept_after(Duration::ZERO, session_present, granted)
    }

    /// As [`Self::accept_granting`], with the CONNACK that much later.
    #[track_caller]
    pub(crate) fn accept_after(
        &self,
        pause: Duration,
        session_present: bool,
        granted: &[u8],
    ) -> Link {
        let (tcp, _) = eventually("a client comes", || self.listener.accept().ok());
        tcp.set_nonblocking(false).unwrap();
        let mut link = Link {
            stream: Stream::new(tcp).unwrap(),
            client_id: String::new(),
            keep_alive: 0,
            pings: 0,
            filters: Vec::new(),
            granted: granted.to_vec(),
            dropped: Vec::new(),
            acks: VecDeque::new(),
            answers: VecDeque::new(),
            is_closed: false,
            has_said_goodbye: false,
        };
        match link.stream.next(PATIENCE) {
            Ok(Some(Packet::Connect { client_id, clean_session, keep_alive })) => {
                assert!(!clean_session, "the session has to be a persistent one");
                link.keep_alive = keep_alive;
                link.client_id = client_id;
            }
            other => panic!("expected CONNECT, received {other:?}"),
        }
        std::thread::sleep(pause);
        link.stream.send(&Packet::ConnAck { session_present }).unwrap();
        if !session_present {
            let deadline = Instant::now() + PATIENCE;
            while link.filters.is_empty() {
                assert!(Instant::now() < deadline && !link.is_closed, "no SUBSCRIBE");
                link.serve(Duration::from_millis(100));
            }
        }
        link
    }
}

impl ScriptedBroker {
    /// Whether a client wants to come in; it is not let in.
    pub(crate) fn has_caller(&self) -> bool {
        self.listener.accept().is_ok()
    }

    /// Waits until a client connects, and turns it away without a word.
    #[track_caller]
    pub(crate) fn accept_and_close(&self) {
        eventually("a client comes", || self.listener.accept().ok());
    }
}

/// One connection of one client.
pub(crate) struct Link {
    stream: Stream,
    pub(crate) client_id: String,
    /// Seconds that it promises to be silent for at most.
    pub(crate) keep_alive: u16,
    /// PINGREQs received.
    pings: u32,
    /// What it has subscribed to on this connection.
    pub(crate) filters: Vec<String>,
    /// What it has unsubscribed from.
    pub(crate) dropped: Vec<String>,
    granted: Vec<u8>,
    /// Answers of any kind, in their order.
    answers: VecDeque<Packet>,
    /// PUBACKs received and not yet looked at.
    acks: VecDeque<u16>,
    pub(crate) is_closed: bool,
    /// Whether it was closed with a DISCONNECT.
    pub(crate) has_said_goodbye: bool,
}

impl Link {
    /// Sends a message under this packet id; returns false if the connection is closed.
    pub(crate) fn deliver(&mut self, id: u16, topic: &str, payload: impl Into<Vec<u8>>) -> bool {
        self.send(Some(id), false, topic, payload)
    }

    /// Delivers messages by their packet ids, all in one go, as a broker fills a window.
    pub(crate) fn deliver_at_once(
        &mut self,
        topic: &str,
        messages: impl Iterator<Item = (u16, String)>,
    ) -> bool {
        for (id, payload) in messages {
            let (topic, payload) = (topic.to_owned(), payload.into());
            let id = Some(id);
            self.stream.queue(&Packet::Publish { id, dup: false, retain: false, topic, payload });
        }
        self.stream.flush().is_ok()
    }

    pub(crate) fn send(
        &mut self,
        id: Option<u16>,
        dup: bool,
        topic: &str,
        payload: impl Into<Vec<u8>>,
    ) -> bool {
        let (topic, payload) = (topic.to_owned(), payload.into());
        self.say(&Packet::Publish { id, dup, retain: false, topic, payload })
    }

    /// Sends any packet; returns false if the connection is closed.
    pub(crate) fn say(&mut self, packet: &Packet) -> bool {
        self.stream.send(packet).is_ok()
    }

    /// The next `count` answers of any kind.
    #[track_caller]
    pub(crate) fn answers(&mut self, count: usize) -> Vec<Packet> {
        let deadline = Instant::now() + PATIENCE;
        while self.answers.len() < count {
            assert!(Instant::now() < deadline && !self.is_closed, "only {:?}", self.answers);
            self.serve(Duration::from_millis(100));
        }
        self.answers.drain(..count).collect()
    }

    /// Takes what comes until `is_done`.
    #[track_caller]
    pub(crate) fn serve_until(&mut self, what: &str, mut is_done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_done(self) {
            assert!(Instant::now() < deadline && !self.is_closed, "it does not come: {what}");
            self.serve(Duration::from_millis(100));
        }
    }

    /// What the next SUBSCRIBEs are answered by.
    pub(crate) fn grant(&mut self, granted: &[u8]) {
        self.granted = granted.to_vec();
    }

    /// The packet id of the next PUBACK; `None` if none comes within `patience`, or ever.
    pub(crate) fn ack(&mut self, patience: Duration) -> Option<u16> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(id) = self.acks.pop_front() {
                return Some(id);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_closed {
                return None;
            }
            self.serve(left);
        }
    }

    /// The packet ids of the next `count` PUBACKs.
    #[track_caller]
    pub(crate) fn acks(&mut self, count: usize) -> Vec<u16> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let next = self.ack(PATIENCE);
            ids.push(next.unwrap_or_else(|| panic!("no further PUBACK after {ids:?}")));
        }
        ids
    }

    /// The packet ids of the PUBACKs that were read along with earlier ones.
    pub(crate) fn acks_so_far(&mut self) -> Vec<u16> {
        loop {
            let before = self.acks.len();
            self.serve(Duration::ZERO);
            if self.acks.len() == before {
                return self.acks.drain(..).collect();
            }
        }
    }

    /// Whether a PINGREQ comes within `patience`.
    pub(crate) fn ping(&mut self, patience: Duration) -> bool {
        let (deadline, before) = (Instant::now() + patience, self.pings);
        while self.pings == before && !self.is_closed && Instant::now() < deadline {
            self.serve(Duration::from_millis(100));
        }
        self.pings > before
    }

    /// All PUBACKs that still come until the client closes the connection.
    #[track_caller]
    pub(crate) fn acks_until_closed(&mut self) -> Vec<u16> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_closed {
            assert!(Instant::now() < deadline, "the client does not close the connection");
            self.serve(Duration::from_millis(100));
        }
        self.acks.drain(..).collect()
    }

    /// Takes a packet, if one comes within `patience`, and answers it as brokers do.
    fn serve(&mut self, patience: Duration) {
        let answer = match self.stream.next(patience) {
            Err(_) => {
                self.is_closed = true;
                return;
            }
            Ok(None) => return,
            Ok(Some(packet)) => match packet {
                Packet::PubAck { id } => {
                    self.acks.push_back(id);
                    self.answers.push_back(packet);
                    return;
                }
                Packet::PubRec { .. } | Packet::PubRel { .. } | Packet::PubComp { .. } => {
                    self.answers.push_back(packet);
                    return;
                }
                Packet::Unsubscribe { id, filters } => {
                    self.dropped.extend(filters);
                    Packet::UnsubAck { id }
                }
                Packet::Subscribe { id, filters } => {
                    let granted = self.granted.iter().copied().chain(std::iter::repeat(1));
                    let granted = granted.take(filters.len()).collect();
                    self.filters.extend(filters);
                    Packet::SubAck { id, granted }
                }
                Packet::PingReq => {
                    self.pings += 1;
                    Packet::PingResp
                }
                Packet::Disconnect => {
                    self.is_closed = true;
                    self.has_said_goodbye = true;
                    return;
                }
                other => panic!("a client does not send {other:?} here"),
            },
        };
        if self.stream.send(&answer).is_err() {
            self.is_closed = true;
        }
    }
}
