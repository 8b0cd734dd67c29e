//! MQTT 3.1.1 on the wire, as much of it as clients and brokers of QoS 1 need.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect {
        client_id: String,
        clean_session: bool,
        /// In seconds.
        keep_alive: u16,
    },
    ConnAck {
        session_present: bool,
    },
    /// Without an id: QoS 0.
    Publish {
        id: Option<u16>,
        dup: bool,
        /// To be kept, or one that was kept.
        retain: bool,
        topic: String,
        payload: Vec<u8>,
    },
    PubAck {
        id: u16,
    },
    Subscribe {
        id: u16,
        filters: Vec<String>,
    },
    SubAck {
        id: u16,
        granted: Vec<u8>,
    },
    PubRec {
        id: u16,
    },
    PubRel {
        id: u16,
    },
    PubComp {
        id: u16,
    },
    Unsubscribe {
        id: u16,
        filters: Vec<String>,
    },
    UnsubAck {
        id: u16,
    },
    PingReq,
    PingResp,
    Disconnect,
    /// Any bytes at all; only to be sent.
    Raw(Vec<u8>),
}

impl Packet {
    /// A message of this QoS with any topic.
    pub(crate) fn message(qos: u8, id: u16, dup: bool, topic: &[u8], payload: &str) -> Self {
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend(topic);
        body.extend(id.to_be_bytes());
        body.extend(payload.as_bytes());
        let mut bytes = Vec::new();
        frame(0x30 | u8::from(dup) << 3 | qos << 1, &body, &mut bytes);
        Self::Raw(bytes)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let text = |body: &mut Vec<u8>, text: &str| {
            body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            body.extend(text.as_bytes());
        };
        let first = match self {
            Self::Connect { client_id, clean_session, keep_alive } => {
                text(&mut body, "MQTT");
                body.extend([4, u8::from(*clean_session) << 1]);
                body.extend(keep_alive.to_be_bytes());
                text(&mut body, client_id);
                0x10
            }
            Self::ConnAck { session_present } => {
                body.extend([u8::from(*session_present), 0]);
                0x20
            }
            Self::Publish { id, dup, retain, topic, payload } => {
                text(&mut body, topic);
                body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
                body.extend(payload);
                0x30 | u8::from(*dup) << 3 | u8::from(id.is_some()) << 1 | u8::from(*retain)
            }
            Self::PubAck { id } => {
                body.extend(id.to_be_bytes());
                0x40
            }
            Self::Subscribe { id, filters } => {
                body.extend(id.to_be_bytes());
                for filter in filters {
                    text(&mut body, filter);
                    body.push(1);
                }
                0x82
            }
            Self::SubAck { id, granted } => {
                body.extend(id.to_be_bytes());
                body.extend(granted);
                0x90
            }
            Self::PubRec { id } => {
                body.extend(id.to_be_bytes());
                0x50
            }
            Self::PubRel { id } => {
                body.extend(id.to_be_bytes());
                0x62
            }
            Self::PubComp { id } => {
                body.extend(id.to_be_bytes());
                0x70
            }
            Self::Unsubscribe { id, filters } => {
                body.extend(id.to_be_bytes());
                for filter in filters {
                    text(&mut body, filter);
                }
                0xa2
            }
            Self::UnsubAck { id } => {
                body.extend(id.to_be_bytes());
                0xb0
            }
            Self::Raw(bytes) => {
                out.extend(bytes);
                return;
            }
            Self::PingReq => 0xc0,
            Self::PingResp => 0xd0,
            Self::Disconnect => 0xe0,
        };
        frame(first, &body, out);
    }

    /// The packet that `bytes` begin with, and its length; `None` if it is not whole yet.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut length = 0;
        let mut start = 1;
        loop {
            let digit = *bytes.get(start)?;
            length |= usize::from(digit & 0x7f) << (7 * (start - 1));
            start += 1;
            if digit & 0x80 == 0 {
                break;
            }
        }
        let mut body = Body(bytes.get(start..start + length)?);
        let flags = bytes[0] & 0x0f;
        let packet = match bytes[0] >> 4 {
            1 => {
                body.text();
                body.take(1);
                let clean_session = body.take(1)[0] & 2 != 0;
                let keep_alive = body.number();
                Self::Connect { client_id: body.text(), clean_session, keep_alive }
            }
            2 => {
                assert_eq!(body.0[1], 0, "the broker refused the connection");
                Self::ConnAck { session_present: body.0[0] & 1 != 0 }
            }
            3 => {
                let topic = body.text();
                let id = (flags & 6 != 0).then(|| body.number());
                let (dup, retain) = (flags & 8 != 0, flags & 1 != 0);
                Self::Publish { id, dup, retain, topic, payload: body.0.to_vec() }
            }
            4 => Self::PubAck { id: body.number() },
            5 => Self::PubRec { id: body.number() },
            6 => Self::PubRel { id: body.number() },
            7 => Self::PubComp { id: body.number() },
            8 => {
                let id = body.number();
                let mut filters = Vec::new();
                while !body.0.is_empty() {
                    filters.push(body.text());
                    body.take(1);
                }
                Self::Subscribe { id, filters }
            }
            10 => {
                let id = body.number();
                let mut filters = Vec::new();
                while !body.0.is_empty() {
                    filters.push(body.text());
                }
                Self::Unsubscribe { id, filters }
            }
            11 => Self::UnsubAck { id: body.number() },
            9 => Self::SubAck { id: body.number(), granted: body.0.to_vec() },
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            other => panic!("packet type {other} is not expected here"),
        };
        Some((packet, start + length))
    }
}

fn frame(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    let mut length = body.len();
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(digit | u8::from(length > 0) << 7);
        if length == 0 {
            break;
        }
    }
    out.extend(body);
}

struct Body<'b>(&'b [u8]);

impl<'b> Body<'b> {
    fn take(&mut self, bytes: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn text(&mut self) -> String {
        let length = self.number();
        String::from_utf8(self.take(length.into()).to_vec()).unwrap()
    }
}

/// A connection, seen as packets.
pub(crate) struct Stream {
    tcp: TcpStream,
    inbox: Vec<u8>,
    read: usize,
    outbox: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream) -> Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(super::PATIENCE))?;
        Ok(Self { tcp, inbox: Vec::new(), read: 0, outbox: Vec::new() })
    }

    pub(crate) fn queue(&mut self, packet: &Packet) {
        packet.encode(&mut self.outbox);
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        let outcome = self.tcp.write_all(&self.outbox);
        self.outbox.clear();
        outcome
    }

    pub(crate) fn send(&mut self, packet: &Packet) -> Result<()> {
        self.queue(packet);
        self.flush()
    }

    /// A packet that has come in already.
    pub(crate) fn received(&mut self) -> Option<Packet> {
        let (packet, length) = Packet::decode(&self.inbox[self.read..])?;
        self.read += length;
        Some(packet)
    }

    /// The next packet; `None` if none comes within `patience`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection is closed.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Option<Packet>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(packet) = self.received() {
                return Ok(Some(packet));
            }
            self.inbox.drain(..self.read);
            self.read = 0;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.tcp.set_read_timeout(Some(left))?;
            let mut chunk = vec![0; 64 * 1024];
            match self.tcp.read(&mut chunk) {
                Ok(0) => return Err(Error::from(ErrorKind::UnexpectedEof)),
                Ok(bytes) => self.inbox.extend(&chunk[..bytes]),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
