//! The intake's shell in the simulation: does one thing at a time, so that anything can happen between
//! any two.

use std::collections::VecDeque;

use iot_ingestor::base::time::Timestamp;
use iot_ingestor::dead_letters::RejectedMessage;
use iot_ingestor::intake::arrivals::Arrivals;
use iot_ingestor::intake::group::{Group, Outcome, Step};
use iot_ingestor::intake::queue::{Inbound, Replayed, Settled};
use iot_ingestor::telemetry::Record;
use iot_ingestor::telemetry::admit::Admission;
use iot_ingestor::telemetry::validate::TimeOfDay;
use iot_ingestor::wal::{Log, Receipt, Room, Writer};

use crate::ledger::{Ledger, Violation};
use crate::letters::{Letters, Refusal};
use crate::mutants::Mutant;
use crate::publisher::{self, number};
use crate::trace::{Happened, Trace};

/// Deliveries that may wait for it.
const QUEUE: usize = 8;

pub(crate) struct Intake {
    pub(crate) queue: VecDeque<Inbound>,
    writer: Writer,
    arrivals: Arrivals,
    group: Option<Group>,
    is_maintenance_due: bool,
    /// Readings that deliveries have brought into the log.
    pub(crate) accepted: u64,
    /// Those that an operator has put back.
    pub(crate) replayed: u64,
    /// Those of the present group, once they are committed, until they are counted.
    uncounted: u64,
    /// A mutant commits these when they are acknowledged already.
    put_off: Vec<Arrived>,
}

/// A record that came in then, and the receipt of its message if it has the time of that.
type Arrived = (Timestamp, Record, Option<Receipt>);

/// What became of one thing that it did.
pub(crate) enum Did {
    Nothing,
    /// Something that others need not know.
    Something,
    /// Deliveries are settled, in the order of receipt.
    Settled(Vec<Settled>),
    /// Something could not be made durable: the process ends.
    Failed,
}

/// What it works with.
pub(crate) struct Around<'w> {
    pub(crate) ledger: &'w mut Ledger,
    pub(crate) letters: &'w mut Letters,
    pub(crate) log: &'w Log,
    pub(crate) trace: &'w mut Trace,
    pub(crate) now: TimeOfDay,
    pub(crate) admission: &'w Admission,
    pub(crate) mutant: Option<Mutant>,
}

impl Intake {
    pub(crate) fn new(writer: Writer, arrivals: Arrivals) -> Self {
        Self {
            queue: VecDeque::new(),
            writer,
            arrivals,
            group: None,
            is_maintenance_due: false,
            accepted: 0,
            replayed: 0,
            uncounted: 0,
            put_off: Vec::new(),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE
    }

    /// Readings that it has brought into the log.
    pub(crate) fn committed(&self) -> u64 {
        self.accepted + self.replayed + self.uncounted
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.group.is_none()
    }

    pub(crate) fn can_work(&self) -> bool {
        !self.is_idle() || self.is_maintenance_due
    }

    /// Takes up to `most` deliveries, or goes on with those that it has.
    pub(crate) fn work(&mut self, most: usize, around: &mut Around<'_>) -> Result<Did, Violation> {
        let Some(mut group) = self.group.take() else {
            if !self.put_off.is_empty() {
                let readings = std::mem::take(&mut self.put_off);
                self.commit(readings, around)?;
                return Ok(Did::Something);
            }
            if self.queue.is_empty() {
                return Ok(self.maintain(around.trace));
            }
            let most = most.min(self.queue.len());
            around.trace.note(Happened::Gathered, most as u64, 0);
            let mut waiting = self.queue.drain(..most).peekable();
            self.group = Some(if *around.log.room().borrow() == Room::Open {
                Group::gather(&mut waiting, around.admission, around.now, &mut self.arrivals)
            } else {
                Group::refused(waiting.by_ref(), &mut self.arrivals)
            });
            assert!(waiting.next().is_none(), "a group takes so few at once");
            return Ok(Did::Something);
        };
        let outcome = match group.step() {
            Step::StoreLetters { messages, .. } => {
                let topics =
                    |one: &RejectedMessage<'_>| vec![one.topic.to_owned(); one.parts.len()];
                let topics: Vec<String> = messages.iter().flat_map(topics).collect();
                let outcome = store(around.letters, topics.iter().map(String::as_str));
                around.trace.note(Happened::Lettered, topics.len() as u64, outcome as u64);
                outcome
            }
            Step::Commit { readings, receipts } => {
                let mut readings: Vec<Arrived> =
                    readings.map(|(received_at, record)| (received_at, record, None)).collect();
                if around.mutant != Some(Mutant::NoReceipts) {
                    for (at, receipt) in receipts {
                        readings[at].2 = Some(receipt);
                    }
                }
                if around.mutant == Some(Mutant::AckBeforeCommit) {
                    self.put_off = readings;
                    Outcome::Durable
                } else {
                    self.commit(readings, around)?
                }
            }
            Step::Acknowledge { deliveries, replays, accepted, .. } => {
                self.accepted += accepted;
                for replay in replays {
                    // Each of one reading.
                    self.replayed += 1;
                    replay.done.send(Replayed::Committed).ok();
                }
                self.uncounted = 0;
                let settled = deliveries.iter().map(|one| Settled::Stored(one.ack));
                let settled: Vec<_> = settled.collect();
                self.is_maintenance_due = true;
                return Ok(Did::Settled(settled));
            }
            Step::GiveUp { deliveries, replays } => {
                for replay in replays {
                    replay.done.send(Replayed::Full).ok();
                }
                let settled = deliveries.iter().map(|one| Settled::GivenUp(one.ack));
                let settled: Vec<_> = settled.collect();
                self.is_maintenance_due = true;
                return Ok(Did::Settled(settled));
            }
            Step::Stop => return Ok(Did::Failed),
        };
        group.heard(outcome);
        self.group = Some(group);
        Ok(Did::Something)
    }

    fn commit(
        &mut self,
        readings: Vec<Arrived>,
        around: &mut Around<'_>,
    ) -> Result<Outcome, Violation> {
        let first = *around.log.committed().borrow();
        let count = readings.len() as u64;
        for (received_at, reading, receipt) in readings {
            self.writer.append_arrived(received_at, reading, receipt);
        }
        let outcome = match self.writer.commit() {
            Ok(()) => Outcome::Durable,
            Err(error) if error.is_disk_full() => Outcome::DiskFull,
            Err(_) => Outcome::Failed,
        };
        around.trace.note(Happened::Committed, count, outcome as u64);
        if outcome == Outcome::Durable {
            self.uncounted += count;
            // They stand by table.
            let committed = around.log.read_tail(first, first + count).unwrap();
            let numbers: Vec<u64> =
                committed.records().map(|(_, reading)| number(reading)).collect();
            around.ledger.committed(first, &numbers)?;
        }
        Ok(outcome)
    }

    fn maintain(&mut self, trace: &mut Trace) -> Did {
        if !std::mem::take(&mut self.is_maintenance_due) {
            return Did::Nothing;
        }
        let done = self.writer.maintain();
        trace.note(Happened::Maintained, u64::from(done.is_ok()), 0);
        if done.is_ok() { Did::Something } else { Did::Failed }
    }
}

/// Letters of messages that were turned away, which are named by their topics.
fn store<'l>(letters: &mut Letters, topics: impl Iterator<Item = &'l str>) -> Outcome {
    let mut by_message = std::collections::BTreeMap::<u64, u32>::new();
    for topic in topics {
        *by_message.entry(publisher::message_of(topic)).or_default() += 1;
    }
    for (message, count) in by_message {
        match letters.append_intake(message, count) {
            Ok(()) => {}
            Err(Refusal::Full) => return Outcome::DiskFull,
            Err(Refusal::Failed) => return Outcome::Failed,
        }
    }
    Outcome::Durable
}
