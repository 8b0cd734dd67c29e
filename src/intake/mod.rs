//! The intake: decode, validate, commit, ack.
//!
//! What comes in ([`queue`]) is made durable in groups: readings in the log, rejected payloads in
//! the dead-letter store. Then the group is acknowledged in the order of receipt. [`group`] decides,
//! the thread carries it out and owns the log's writer. What has no time of its own gets that of its
//! arrival ([`arrivals`]).
//!
//! A replayed dead letter takes the same way, and so does what comes by HTTP, with an answer in place of the ack.
//!
//! If a commit fails nothing of the group is acknowledged and the thread ends with the error,
//! which ends the process: the broker delivers the messages again to the next one.

pub mod arrivals;
mod elements;
pub mod group;
mod linger;
mod mapped;
mod newest;
pub mod queue;
mod refusal;
pub(crate) mod seen;
mod settings;
mod thread;

pub(crate) use refusal::fitting;
pub(crate) use settings::{SETTINGS, Settings};
pub(crate) use thread::Intake;
