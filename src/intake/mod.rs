//! The intake: decode, validate, commit, ack.
//!
//! A thread of its own owns the log's writer. It waits for one delivery, takes whatever else has
//! arrived, makes all of it durable at once (readings in the log, rejected payloads in the
//! dead-letter store), and then acknowledges the group in the order of receipt. What arrives
//! during one fdatasync is the next group; only a stream so dense that commits would be what the
//! processor is busy with is gathered for a moment first (`linger`).
//!
//! A replayed dead letter takes the same way, with an answer to its operator in place of the ack.
//!
//! If a commit fails nothing of the group is acknowledged and the thread ends with the error,
//! which ends the process: the broker delivers the messages again to the next one.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::base::activity::Activity;
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::dead_letters::{DeadLetterError, DeadLetters, NewDeadLetter, PAYLOAD_MAX_BYTES};
use crate::telemetry::decode::decode;
use crate::telemetry::rejection::{Reason, Rejection};
use crate::telemetry::validate::{Clock, Rules, validate};
use crate::wal::{Room, WalError, Writer};

mod linger;
pub mod queue;
mod settings;

pub use settings::Settings;

use linger::Linger;
use queue::{Acks, Delivery, Inbound, Replay, Replayed};

/// Most messages in one group: bounds the wait of the first for its ack.
const GROUP_MESSAGES: usize = 4_096;

/// Most payload bytes in one group: bounds its memory.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Why the intake ended; nothing of its last group was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The log failed.
    #[error("the log cannot be written: {0}")]
    Wal(#[from] WalError),
    /// The dead-letter store failed.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
}

impl IntakeError {
    fn is_disk_full(&self) -> bool {
        match self {
            Self::Wal(error) => error.is_disk_full(),
            Self::DeadLetters(error) => error.is_disk_full(),
        }
    }
}

/// What the intake works with.
pub struct Intake {
    /// Where everything comes from; closed when the process stops.
    pub inbound: mpsc::Receiver<Inbound>,
    /// The log's writing end.
    pub writer: Writer,
    /// Whether the log takes records.
    pub room: watch::Receiver<Room>,
    /// Where rejected payloads go.
    pub dead_letters: Arc<DeadLetters>,
    /// Where acks go.
    pub acks: Acks,
    /// Validation.
    pub rules: Rules,
    /// Longest payload that is decoded, in bytes.
    pub max_payload_bytes: usize,
    /// Counters.
    pub metrics: Metrics,
    /// Shows the watchdog that the intake is not stuck.
    pub activity: Activity,
}

impl Intake {
    /// Works until the deliveries end.
    ///
    /// # Errors
    /// If something could not be made durable.
    pub fn run(mut self) -> Result<(), IntakeError> {
        let mut inbound = Vec::with_capacity(GROUP_MESSAGES);
        let mut linger = Linger::default();
        let mut clock_was_plausible = true;
        while self.inbound.blocking_recv_many(&mut inbound, GROUP_MESSAGES) > 0 {
            self.activity.begin();
            let more = linger.wait(&self.inbound, GROUP_MESSAGES - inbound.len());
            if more > 0 {
                self.inbound.blocking_recv_many(&mut inbound, more);
            }
            if *self.room.borrow() == Room::Open {
                let clock = Clock::read();
                if clock.is_plausible() != clock_was_plausible {
                    clock_was_plausible = clock.is_plausible();
                    report_clock(clock);
                }
                while !inbound.is_empty() {
                    self.activity.begin();
                    let group = inbound.drain(..group_len(&inbound)).collect();
                    self.take_in(group, clock)?;
                }
            } else {
                // Nothing is acknowledged: the source leaves the broker, which keeps it all.
                let (deliveries, replays) = split(inbound.drain(..));
                self.refuse(&deliveries, replays);
            }
            self.writer.maintain()?;
            self.activity.end();
        }
        Ok(())
    }

    /// Makes a group durable, then acknowledges it.
    fn take_in(&mut self, group: Vec<Inbound>, clock: Clock) -> Result<(), IntakeError> {
        let (deliveries, mut replays) = split(group.into_iter());
        let Self { writer, rules, max_payload_bytes, .. } = self;
        let mut rejected = Rejected::new(&self.dead_letters, &self.metrics);
        let mut accepted = 0;
        for delivery in &deliveries {
            let payload: &[u8] = &delivery.payload;
            if payload.len() > *max_payload_bytes {
                let message = format!(
                    "the payload has {} bytes, {max_payload_bytes} are allowed; its first {} are kept",
                    payload.len(),
                    payload.len().min(PAYLOAD_MAX_BYTES)
                );
                let rejection = Rejection::new(Reason::PayloadTooLarge, message);
                rejected.add(delivery, rejection, payload);
                continue;
            }
            decode(payload, |raw, outcome| {
                let valid =
                    outcome.and_then(|reading| validate(&reading, rules, clock).map(|()| reading));
                match valid {
                    Ok(reading) => {
                        accepted += 1;
                        writer.append(delivery.received_at, reading);
                    }
                    Err(rejection) => rejected.add(delivery, rejection, raw),
                }
            });
        }
        for reading in replays.iter_mut().flat_map(|replay| replay.readings.drain(..)) {
            writer.append(Timestamp::now(), reading);
        }
        let durable = rejected.store().map_err(IntakeError::from);
        let durable = durable.and_then(|()| Ok(self.writer.commit()?));
        if let Err(error) = durable {
            if !error.is_disk_full() {
                return Err(error);
            }
            tracing::warn!(
                messages = deliveries.len(),
                "the disk is full: messages were not stored and not acknowledged, the broker keeps them"
            );
            self.writer.abandon();
            self.refuse(&deliveries, replays);
            return Ok(());
        }
        self.metrics.valid_messages.inc_by(accepted);
        for replay in replays {
            // An operator who has gone needs no answer.
            replay.done.send(Replayed::Committed).ok();
        }
        self.metrics.acks.inc_by(self.acks.send(&deliveries));
        Ok(())
    }

    /// What the log has no room for is not acknowledged, and left to the broker.
    fn refuse(&self, deliveries: &[Delivery], replays: Vec<Replay>) {
        self.acks.give_up(deliveries);
        for replay in replays {
            replay.done.send(Replayed::Full).ok();
        }
    }
}

/// Rejected readings of a group, on their way into the dead-letter store. A small payload can hold
/// tens of thousands of them, so they go in portions.
struct Rejected<'g> {
    store: &'g DeadLetters,
    metrics: &'g Metrics,
    waiting: Vec<(Reason, NewDeadLetter<'g>)>,
    outcome: Result<(), DeadLetterError>,
}

impl<'g> Rejected<'g> {
    const PORTION: usize = 1_000;

    fn new(store: &'g DeadLetters, metrics: &'g Metrics) -> Self {
        Self { store, metrics, waiting: Vec::new(), outcome: Ok(()) }
    }

    fn add(&mut self, delivery: &'g Delivery, rejection: Rejection, payload: &'g [u8]) {
        let letter = NewDeadLetter {
            received_at: delivery.received_at,
            topic: &delivery.topic,
            stage: rejection.reason.stage(),
            reason: rejection.message,
            payload,
        };
        self.waiting.push((rejection.reason, letter));
        if self.waiting.len() >= Self::PORTION {
            self.write();
        }
    }

    /// Writes what waits, unless an earlier portion has failed; counts what is stored.
    fn write(&mut self) {
        let (reasons, letters): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        if self.outcome.is_ok() {
            self.outcome = self.store.append(&letters);
        }
        if self.outcome.is_ok() {
            for reason in reasons {
                self.metrics.rejected(reason.as_str());
            }
        }
    }

    fn store(mut self) -> Result<(), DeadLetterError> {
        self.write();
        self.outcome
    }
}

fn split(group: impl Iterator<Item = Inbound>) -> (Vec<Delivery>, Vec<Replay>) {
    let mut deliveries = Vec::with_capacity(group.size_hint().0);
    let mut replays = Vec::new();
    for inbound in group {
        match inbound {
            Inbound::Message(delivery) => deliveries.push(delivery),
            Inbound::Replay(replay) => replays.push(replay),
        }
    }
    (deliveries, replays)
}

/// How many of `inbound`, at least one, make a group.
fn group_len(inbound: &[Inbound]) -> usize {
    let mut bytes = 0;
    let fitting = inbound.iter().take_while(|inbound| {
        if let Inbound::Message(delivery) = inbound {
            bytes += delivery.payload.len();
        }
        bytes <= GROUP_BYTES
    });
    fitting.count().max(1)
}

fn report_clock(clock: Clock) {
    if clock.is_plausible() {
        tracing::info!(clock = %clock.now(), "the clock is plausible again: timestamps in the future are rejected again");
    } else {
        tracing::warn!(
            clock = %clock.now(),
            "the clock reads a time before this program was built: timestamps in the future are accepted until it is set"
        );
    }
}
