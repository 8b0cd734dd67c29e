//! The intake's thread: the shell around [`Group`], which owns the log's writer.
//!
//! It waits for one delivery, takes whatever else has arrived, and makes it durable at once. What
//! arrives during one fdatasync is the next group; only a stream so dense that commits would be
//! what the processor is busy with is gathered for a moment first ([`Linger`]).

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::arrivals::Arrivals;
use super::group::{GROUP_MESSAGES, Group, Outcome, Step};
use super::linger::Linger;
use super::mapped::{MappedTally, Notices};
use super::queue::{Acks, Inbound, Replayed};
use super::seen::Seen;
use crate::base::activity::Activity;
use crate::base::metrics::{Metrics, NO_MAPPING};
use crate::base::time::Timestamp;
use crate::dead_letters::{DeadLetterError, DeadLetters};
use crate::telemetry::admit::Admission;
use crate::telemetry::validate::TimeOfDay;
use crate::wal::{Room, WalError, Writer};

/// Why the intake ended; nothing of its last group was acknowledged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IntakeError {
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
pub(crate) struct Intake {
    /// Where everything comes from; closed when the process stops.
    pub(crate) inbound: mpsc::Receiver<Inbound>,
    /// The log's writing end.
    pub(crate) writer: Writer,
    /// Whether the log takes records.
    pub(crate) room: watch::Receiver<Room>,
    /// Where rejected payloads go.
    pub(crate) dead_letters: Arc<DeadLetters>,
    /// Where acks go.
    pub(crate) acks: Acks,
    /// What messages have to keep to.
    pub(crate) admission: Admission,
    /// The times of arrival that were given.
    pub(crate) arrivals: Arrivals,
    /// What mappings have done, for whoever looks.
    pub(crate) seen: Seen,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// Shows the watchdog that the intake is not stuck.
    pub(crate) activity: Activity,
}

impl Intake {
    /// Works until the deliveries end.
    ///
    /// # Errors
    /// If something could not be made durable.
    pub(crate) fn run(mut self) -> Result<(), IntakeError> {
        let mut inbound = Vec::with_capacity(GROUP_MESSAGES);
        let mut linger = Linger::default();
        let mut notices = Notices::default();
        let started = Instant::now();
        let mut clock_was_plausible = true;
        while self.inbound.blocking_recv_many(&mut inbound, GROUP_MESSAGES) > 0 {
            self.activity.begin();
            let more = self.wait_for_more(&mut linger, GROUP_MESSAGES - inbound.len());
            if more > 0 {
                self.inbound.blocking_recv_many(&mut inbound, more);
            }
            let clock = TimeOfDay::at(Timestamp::now());
            if clock.is_plausible() != clock_was_plausible {
                clock_was_plausible = clock.is_plausible();
                report_clock(clock);
            }
            let mut waiting = inbound.drain(..).peekable();
            while waiting.peek().is_some() {
                let group = if *self.room.borrow() == Room::Open {
                    Group::gather(&mut waiting, &self.admission, clock, &mut self.arrivals)
                } else {
                    // Nothing is acknowledged: the source leaves the broker, which keeps it all.
                    Group::refused(waiting.by_ref(), &mut self.arrivals)
                };
                if self.arrivals.take_set_back() {
                    tracing::warn!(
                        "the clock was more than an hour ahead, and is set back: times of arrival follow it again; readings that came meanwhile keep theirs"
                    );
                }
                self.settle(group, &mut |mapped, admission| {
                    report_refusals(&mut notices, admission, mapped, started.elapsed());
                })?;
            }
            self.writer.maintain()?;
            self.activity.end();
        }
        Ok(())
    }

    /// Waits while [`Linger`] says so; how many messages the group then takes of those that are there, `most` at
    /// most.
    fn wait_for_more(&self, linger: &mut Linger, most: usize) -> usize {
        let since = Instant::now();
        let mut there = self.inbound.len();
        while let Some(pause) = linger.pause(there, most, since.elapsed()) {
            std::thread::sleep(pause);
            there = self.inbound.len();
        }
        there.min(most)
    }

    /// Does what the group asks for, to its end.
    fn settle(
        &mut self,
        mut group: Group,
        refused: &mut dyn FnMut(&MappedTally, &Admission),
    ) -> Result<(), IntakeError> {
        let mut failure = None;
        loop {
            self.activity.begin();
            let done = match group.step() {
                Step::StoreLetters { messages, rejected } => {
                    let stored =
                        self.dead_letters.append_messages(&messages).map_err(IntakeError::from);
                    if stored.is_ok() {
                        for (reason, readings) in rejected.counts() {
                            self.metrics.rejected(reason.as_str(), readings);
                        }
                    }
                    stored
                }
                Step::Commit { readings, receipts } => {
                    let mut receipts = receipts.into_iter().peekable();
                    for (at, (received_at, reading)) in readings.enumerate() {
                        let receipt = receipts.next_if(|(of, _)| *of == at);
                        let receipt = receipt.map(|(_, receipt)| receipt);
                        self.writer.append_arrived(received_at, reading, receipt);
                    }
                    self.writer.commit().map_err(IntakeError::from)
                }
                Step::Acknowledge { deliveries, replays, accepted, mapped } => {
                    self.metrics.valid_messages.inc_by(accepted);
                    for (at, outcome, count) in mapped.counts() {
                        self.metrics.mapped(self.admission.mapping_name(at), outcome, count);
                    }
                    if mapped.dropped() > 0 {
                        self.metrics.mapped(NO_MAPPING, "ignored", mapped.dropped());
                    }
                    self.seen.note(mapped);
                    refused(mapped, &self.admission);
                    for replay in replays {
                        // An operator who has gone needs no answer.
                        replay.done.send(Replayed::Committed).ok();
                    }
                    self.acks.send(deliveries);
                    return Ok(());
                }
                Step::GiveUp { deliveries, replays } => {
                    self.acks.give_up(deliveries);
                    for replay in replays {
                        replay.done.send(Replayed::Full).ok();
                    }
                    return Ok(());
                }
                Step::Stop => return failure.map_or(Ok(()), Err),
            };
            group.heard(match done {
                Ok(()) => Outcome::Durable,
                Err(error) if error.is_disk_full() => {
                    tracing::warn!(
                        %error,
                        "the disk is full: messages were not stored and not acknowledged, the broker keeps them"
                    );
                    Outcome::DiskFull
                }
                Err(error) => {
                    failure = Some(error);
                    Outcome::Failed
                }
            });
        }
    }
}

/// A line for each mapping and rule when it first occurs, then at most one a minute.
fn report_refusals(
    notices: &mut Notices,
    admission: &Admission,
    mapped: &MappedTally,
    now: Duration,
) {
    for (refused @ (mapping, reason), count) in mapped.refusals() {
        let Some(count) = notices.note(refused, count, now) else { continue };
        let mapping = mapping.map(|at| admission.mapping_name(at));
        tracing::warn!(
            mapping,
            reason = reason.as_str(),
            count,
            "messages are rejected: they are dead letters, which say what is wrong; correct the mapping, restart, and replay them"
        );
    }
}

fn report_clock(clock: TimeOfDay) {
    if clock.is_plausible() {
        tracing::info!(clock = %clock.now(), "the clock is plausible again: timestamps in the future are rejected again");
    } else {
        tracing::warn!(
            clock = %clock.now(),
            "the clock reads a time before this program was built: timestamps in the future are accepted until it is set"
        );
    }
}
