//! What a group asks for, and how that can go.

use std::vec;

use crate::base::time::Timestamp;
use crate::dead_letters::RejectedMessage;
use crate::intake::mapped::MappedTally;
use crate::intake::queue::{Delivery, Replay};
use crate::telemetry::Record;
use crate::telemetry::rejection::Tally;
use crate::wal::Receipt;

/// What is to be done next.
pub enum Step<'g> {
    /// Make these durable in the dead-letter store, all or none of them counted as such; then
    /// [`heard`](super::Group::heard).
    StoreLetters {
        /// Never empty.
        messages: Vec<RejectedMessage<'g>>,
        /// What they are counted as: more readings than letters, where one letter sums up many.
        rejected: &'g Tally,
    },
    /// Append these to the log and commit; then [`heard`](super::Group::heard).
    Commit {
        /// With the time of their receipt.
        readings: vec::Drain<'g, (Timestamp, Record)>,
        /// Of those that have the time of their arrival: which they are, and by which receipt.
        receipts: Vec<(usize, Receipt)>,
    },
    /// Everything is durable: acknowledge the deliveries in their order, and answer the replays.
    Acknowledge {
        /// In the order of receipt.
        deliveries: &'g [Delivery],
        /// Put back by an operator.
        replays: vec::Drain<'g, Replay>,
        /// How many readings are in the log for the first time.
        accepted: u64,
        /// What became of what mappings have taken or left alone.
        mapped: &'g MappedTally,
    },
    /// There was no space: acknowledge nothing, leave the deliveries to the broker, and tell the
    /// replays.
    GiveUp {
        /// In the order of receipt.
        deliveries: &'g [Delivery],
        /// Put back by an operator.
        replays: vec::Drain<'g, Replay>,
    },
    /// It is unknown what is durable: acknowledge nothing and end the process.
    Stop,
}

/// How a [`Step::StoreLetters`] or a [`Step::Commit`] went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it survives a power cut.
    Durable,
    /// None of it does, for want of space.
    DiskFull,
    /// Nobody knows.
    Failed,
}
