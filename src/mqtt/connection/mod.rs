//! One connection to the broker, as packets: the port behind which the network is.
//!
//! Everything that waits here can be dropped at any time: what has been read stays in the inbox, and
//! what is to be written in the outbox.

mod codec;
mod dial;
mod stream;

pub(super) use dial::{Dialer, Opened};
pub(super) use stream::Connection;
