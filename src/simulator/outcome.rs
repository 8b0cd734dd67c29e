//! How a run ends.

use std::fmt;
use std::time::Duration;

use rumqttc::ConnectReturnCode;

/// What a run came to; displayed as the one line that scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Messages handed to a connection, each counted once however often it was sent again.
    pub(crate) published: u64,
    /// Those of them that the broker acknowledged.
    pub(crate) acked: u64,
    /// From the first connection to the end.
    pub(crate) elapsed: Duration,
}

impl Summary {
    /// Acknowledged messages per second.
    #[must_use]
    pub(crate) fn per_second(&self) -> u64 {
        let micros = self.elapsed.as_micros().max(1);
        u64::try_from(u128::from(self.acked) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, acked, .. } = self;
        write!(f, "published {published} · acked {acked} · {} msg/s", self.per_second())
    }
}

/// Why a run cannot go on. A broker that is down is no such reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker answered the first connection with a refusal: somebody has to change the login
    /// or the broker. Later refusals are waited out, a restarting broker may give them.
    #[error("the broker at {broker} refuses the connection: {code:?}")]
    Refused {
        /// Host and port.
        broker: String,
        /// The broker's answer.
        code: ConnectReturnCode,
    },
    /// The authorities' file has become unreadable since it was checked.
    #[error("{0}")]
    Tls(String),
}
