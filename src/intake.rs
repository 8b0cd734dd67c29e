//! The intake: decode, validate, commit, ack.
//!
//! A thread of its own owns the log's writer. It waits for one delivery, takes whatever else has
//! arrived, makes all of it durable at once (readings in the log, rejected payloads in the
//! dead-letter store), and then acknowledges the group in the order of receipt. What arrives
//! during one fdatasync is the next group, so group commit needs no timer.
//!
//! If a commit fails nothing of the group is acknowledged and the thread ends with the error,
//! which ends the process: the broker delivers the messages again to the next one.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::dead_letters::{DeadLetterError, DeadLetters, NewDeadLetter, PAYLOAD_MAX_BYTES};
use crate::decode::decode;
use crate::metrics::Metrics;
use crate::mqtt::{Acks, Delivery};
use crate::rejection::{Reason, Rejection};
use crate::supervisor::Activity;
use crate::validate::{Clock, Rules, validate};
use crate::wal::{Room, WalError, Writer};

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

/// What the intake works with.
pub struct Intake {
    /// Where deliveries come from; closed when the process stops.
    pub deliveries: mpsc::Receiver<Delivery>,
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
        let mut deliveries = Vec::with_capacity(GROUP_MESSAGES);
        let mut clock_was_plausible = true;
        loop {
            deliveries.clear();
            if self.deliveries.blocking_recv_many(&mut deliveries, GROUP_MESSAGES) == 0 {
                return Ok(());
            }
            self.activity.begin();
            if *self.room.borrow() == Room::Open {
                let clock = Clock::read();
                if clock.is_plausible() != clock_was_plausible {
                    clock_was_plausible = clock.is_plausible();
                    report_clock(clock);
                }
                let mut rest = deliveries.as_slice();
                while !rest.is_empty() {
                    let (group, behind) = rest.split_at(group_len(rest));
                    self.take_in(group, clock)?;
                    rest = behind;
                }
            }
            // Else nothing is acknowledged: the source is leaving the broker, which keeps them.
            self.writer.maintain()?;
            self.activity.end();
        }
    }

    /// Makes a group durable, then acknowledges it.
    fn take_in(&mut self, group: &[Delivery], clock: Clock) -> Result<(), IntakeError> {
        let Self { writer, rules, metrics, max_payload_bytes, .. } = self;
        let mut rejected = Vec::new();
        let mut accepted = 0;
        for delivery in group {
            let mut reject = |rejection: Rejection, payload| {
                metrics.rejected(rejection.reason);
                rejected.push(NewDeadLetter {
                    received_at: delivery.received_at(),
                    topic: delivery.topic(),
                    stage: rejection.reason.stage(),
                    reason: rejection.message,
                    payload,
                });
            };
            let payload = delivery.payload();
            if payload.len() > *max_payload_bytes {
                let message = format!(
                    "the payload has {} bytes, {max_payload_bytes} are allowed; its first {} are kept",
                    payload.len(),
                    payload.len().min(PAYLOAD_MAX_BYTES)
                );
                reject(Rejection::new(Reason::PayloadTooLarge, message), payload);
                continue;
            }
            decode(payload, |raw, outcome| {
                match outcome.and_then(|reading| validate(&reading, rules, clock).map(|()| reading))
                {
                    Ok(reading) => {
                        accepted += 1;
                        writer.append(delivery.received_at(), reading);
                    }
                    Err(rejection) => reject(rejection, raw),
                }
            });
        }
        self.dead_letters.append(&rejected)?;
        self.writer.commit()?;
        self.metrics.valid_messages.inc_by(accepted);
        let acked = self.acks.send(group);
        self.metrics.acks.inc_by(acked.sent);
        Ok(())
    }
}

/// How many of `deliveries`, at least one, make a group.
fn group_len(deliveries: &[Delivery]) -> usize {
    let mut bytes = 0;
    let fitting = deliveries.iter().take_while(|delivery| {
        bytes += delivery.payload().len();
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
