//! One connection to the broker, as packets: the port behind which the network is.
//!
//! Everything that waits here can be dropped at any time: what has been read stays in the inbox, and
//! what is to be written in the outbox.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::packet::{Received, Sent};
use super::session::Loss;

mod codec;
mod dial;

pub(super) use dial::{Dialer, Opened};

use codec::{ConnAck, Identity, Malformed};

/// Longest wait for the broker to take what is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Room for what is read at once; a burst of half a millisecond fits.
const READ_BYTES: usize = 16 * 1024;

/// Less room than this is not worth a read.
const LEAST_READ_BYTES: usize = 4 * 1024;

/// What a connection runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    inbox: BytesMut,
    outbox: BytesMut,
}

impl Connection {
    fn new(stream: impl Stream + 'static) -> Self {
        let inbox = BytesMut::with_capacity(4 * READ_BYTES);
        Self { stream: Box::new(stream), inbox, outbox: BytesMut::new() }
    }

    /// Takes the next packet, if the whole of it has been read.
    ///
    /// # Errors
    /// If it is none: the connection is of no more use.
    pub(super) fn next(&mut self) -> Result<Option<Received>, Loss> {
        if !self.holds_packet()? {
            return Ok(None);
        }
        codec::decode(&mut self.inbox).map(Some).map_err(malformed)
    }

    /// Waits until [`Self::next`] has something to say.
    ///
    /// # Errors
    /// If the connection is over.
    pub(super) async fn readable(&mut self) -> Result<(), Loss> {
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
    pub(super) fn queue(&mut self, packet: Sent) -> Result<(), Loss> {
        codec::encode(packet, &mut self.outbox).map_err(malformed)
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// If the connection is over, or the broker takes nothing.
    pub(super) async fn flush(&mut self) -> Result<(), Loss> {
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

    /// Introduces us to the broker; its answer. Can be dropped only with the connection.
    async fn greet(&mut self, identity: &Identity<'_>) -> Result<ConnAck, Loss> {
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
        let length = codec::packet_length(&self.inbox).map_err(malformed)?;
        Ok(length.is_some_and(|length| self.inbox.len() >= length))
    }

    /// Reads what there is, and returns how much: nothing at the end.
    async fn read(&mut self) -> Result<usize, Loss> {
        let length = codec::packet_length(&self.inbox).map_err(malformed)?;
        let missing = length.unwrap_or(0).saturating_sub(self.inbox.len());
        if self.inbox.capacity() - self.inbox.len() < missing.max(LEAST_READ_BYTES) {
            self.inbox.reserve(missing.max(READ_BYTES));
        }
        self.stream.read_buf(&mut self.inbox).await.map_err(|error| lost(&error))
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
