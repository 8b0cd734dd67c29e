//! An open connection: packets out of what is read, and into what is written.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::codec::{self, ConnAck, Identity, Malformed};
use crate::mqtt::packet::{Received, Sent};
use crate::mqtt::session::Loss;

/// Longest wait for the broker to take what is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the answer to the last ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(2);

/// Room for what is read at once; a burst of half a millisecond fits.
const READ_BYTES: usize = 16 * 1024;

/// Less room than this is not worth a read.
const LEAST_READ_BYTES: usize = 4 * 1024;

/// Messages of up to so many bytes are kept whole, also where payloads may only be shorter.
const KEPT_BYTES: usize = 1024 * 1024;

/// The longest topic, and more than what else stands before a payload.
const HEAD_MAX_BYTES: usize = 65_535 + 16;

const _: () = assert!(KEPT_BYTES >= 2 * HEAD_MAX_BYTES);

/// What a connection runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(in crate::mqtt) struct Connection {
    stream: Box<dyn Stream>,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Of a message that is longer, only so many bytes are kept: it becomes a dead letter, which keeps less.
    kept_bytes: usize,
    cut: Option<Cut>,
}

/// A message that is too long to be kept.
struct Cut {
    begin: BytesMut,
    omitted: usize,
    /// Bytes of it that are still to come, and are let go of then.
    left: usize,
}

impl Connection {
    /// A connection over `stream` for payloads of up to so many bytes.
    pub(super) fn new(stream: impl Stream + 'static, max_payload_bytes: usize) -> Self {
        let inbox = BytesMut::with_capacity(4 * READ_BYTES);
        let kept_bytes = KEPT_BYTES.max(max_payload_bytes.saturating_add(HEAD_MAX_BYTES));
        let (stream, outbox) = (Box::new(stream), BytesMut::new());
        Self { stream, inbox, outbox, kept_bytes, cut: None }
    }

    /// Takes the next packet, if the whole of it has been read.
    ///
    /// # Errors
    /// If it is none: the connection is of no more use.
    pub(in crate::mqtt) fn next(&mut self) -> Result<Option<Received>, Loss> {
        if !self.holds_packet()? {
            return Ok(None);
        }
        let packet = match self.cut.take() {
            Some(Cut { begin, omitted, .. }) => codec::decode_cut(begin, omitted),
            None => codec::decode(&mut self.inbox),
        };
        packet.map(Some).map_err(malformed)
    }

    /// Waits until [`Self::next`] has something to say.
    ///
    /// # Errors
    /// If the connection is over.
    pub(in crate::mqtt) async fn readable(&mut self) -> Result<(), Loss> {
        while !self.holds_packet()? {
            if self.read().await? == 0 {
                let error = "the broker closed the connection".to_owned();
                return Err(Loss { closed_by_broker: true, ..Loss::new(error) });
            }
        }
        Ok(())
    }

    /// Queues a packet.
    ///
    /// # Errors
    /// If it is too long.
    pub(in crate::mqtt) fn queue(&mut self, packet: Sent) -> Result<(), Loss> {
        codec::encode(packet, &mut self.outbox).map_err(malformed)
    }

    /// Queues a subscription with QoS 0.
    ///
    /// # Errors
    /// If the filter is too long.
    pub(in crate::mqtt) fn queue_look(&mut self, packet_id: u16, filter: &str) -> Result<(), Loss> {
        codec::subscribe_to_look(packet_id, filter, &mut self.outbox).map_err(malformed)
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// If the connection is over, or the broker takes nothing.
    pub(in crate::mqtt) async fn flush(&mut self) -> Result<(), Loss> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let Self { stream, outbox, .. } = self;
        let write = async {
            while outbox.has_remaining() {
                stream.write_buf(outbox).await?;
            }
            stream.flush().await
        };
        match timeout(WRITE_TIMEOUT, write).await {
            Ok(written) => written.map_err(|error| lost(&error)),
            Err(_) => Err(Loss::new("the broker does not take what is written to it")),
        }
    }

    /// Whether so many pings are answered soon. What comes beside is passed over: it is not acknowledged, and
    /// comes again.
    pub(in crate::mqtt) async fn has_pongs(&mut self, mut pongs: u32) -> bool {
        let wait = async {
            loop {
                while let Some(packet) = self.next().ok()? {
                    pongs -= u32::from(packet == Received::Pong);
                    if pongs == 0 {
                        return Some(());
                    }
                }
                self.read().await.ok().filter(|bytes| *bytes > 0)?;
            }
        };
        matches!(timeout(PONG_TIMEOUT, wait).await, Ok(Some(())))
    }

    /// Introduces us to the broker; its answer. Can be dropped only with the connection.
    pub(super) async fn greet(&mut self, identity: &Identity<'_>) -> Result<ConnAck, Loss> {
        codec::connect(identity, &mut self.outbox).map_err(malformed)?;
        let connect = self.outbox.clone();
        self.flush().await?;
        loop {
            let is_over = match self.stream.read_buf(&mut self.inbox).await {
                Ok(length) => length == 0,
                // What was sent to somebody who had gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
                Err(error) => return Err(lost(&error)),
            };
            if !self.inbox.is_empty() && self.inbox[0] != CONNACK {
                if is_over || self.inbox.len() >= TELLING_BYTES {
                    return Err(Loss::new(no_broker(&self.inbox, &connect)));
                }
            } else if self.holds_packet()? {
                return codec::connack(&mut self.inbox).map_err(malformed);
            }
            if is_over {
                return Err(Loss::new(
                    "the connection was closed instead of an answer to CONNECT: no MQTT broker, or one that wants TLS, or a limit of its own",
                ));
            }
        }
    }

    fn holds_packet(&self) -> Result<bool, Loss> {
        if let Some(cut) = &self.cut {
            return Ok(cut.left == 0);
        }
        let length = codec::packet_length(&self.inbox).map_err(malformed)?;
        Ok(length.is_some_and(|length| self.inbox.len() >= length))
    }

    /// Reads what there is, and returns how much: nothing at the end.
    async fn read(&mut self) -> Result<usize, Loss> {
        let length = codec::packet_length(&self.inbox).map_err(malformed)?;
        let length = length.unwrap_or(0).min(self.kept_bytes);
        let missing = length.saturating_sub(self.inbox.len());
        if self.inbox.capacity() - self.inbox.len() < missing.max(LEAST_READ_BYTES) {
            self.inbox.reserve(missing.max(READ_BYTES));
        }
        let read = self.stream.read_buf(&mut self.inbox).await.map_err(|error| lost(&error))?;
        self.let_go()?;
        Ok(read)
    }

    /// Lets go of the end of a message that is too long to be kept.
    fn let_go(&mut self) -> Result<(), Loss> {
        if self.cut.is_none() {
            let Some(length) = codec::packet_length(&self.inbox).map_err(malformed)? else {
                return Ok(());
            };
            let is_whole = self.inbox.len() >= self.kept_bytes;
            if length <= self.kept_bytes || !is_whole || !codec::is_publish(&self.inbox) {
                return Ok(());
            }
            let omitted = length - self.kept_bytes;
            let begin = self.inbox.split_to(self.kept_bytes);
            self.cut = Some(Cut { begin, omitted, left: omitted });
        }
        if let Some(cut) = &mut self.cut {
            let here = cut.left.min(self.inbox.len());
            self.inbox.advance(here);
            cut.left -= here;
        }
        Ok(())
    }
}

/// The first byte of a CONNACK.
const CONNACK: u8 = 0x20;

/// So many bytes tell one protocol from another.
const TELLING_BYTES: usize = 5;

/// What it is that has answered our `connect` by this.
fn no_broker(answer: &[u8], connect: &[u8]) -> &'static str {
    if answer.starts_with(b"HTTP/") {
        "what listens there is no MQTT broker but an HTTP server"
    } else if matches!(answer, [0x15 | 0x16, 3, ..]) {
        "what listens there wants TLS: set MQTT_TLS or MQTT_CA_FILE, or another MQTT_PORT"
    } else if connect.starts_with(answer) || answer.starts_with(connect) {
        "what listens there is no MQTT broker: it sends back what it is sent"
    } else {
        "what listens there is no MQTT broker"
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn malformed(malformed: Malformed) -> Loss {
    Loss::new(malformed.to_string())
}

fn lost(error: &io::Error) -> Loss {
    let closed_by_broker = error.kind() == io::ErrorKind::ConnectionReset;
    Loss { closed_by_broker, ..Loss::new(error.to_string()) }
}
