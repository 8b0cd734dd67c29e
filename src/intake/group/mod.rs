//! Decides what becomes of a group: what is appended, what is rejected, and then, once the disks
//! have answered, what is acknowledged. No I/O and no clock: [`Group::step`] says what is to be
//! done, and [`Group::heard`] is told how it went.
//!
//! Always in this order, with nothing left out: the rejected readings are made durable in the
//! dead-letter store, then the accepted ones in the log, and only then the group is acknowledged,
//! in the order of receipt. Letters come first because a message that is delivered again doubles
//! them, while the table's key makes one row of a reading that is in the log twice: whatever fails
//! behind them is seldom, and nothing is acknowledged then.
//!
//! A disk without space may have some again, so the group is given up and the broker keeps it. Any
//! other failure leaves unknown what is durable: nothing is tried again, the process ends, and the
//! broker delivers all of it to the next one.
//!
//! A message is rejected within bounds whatever it holds: the first [`LETTERS_A_MESSAGE`] of its
//! bad readings make a letter each, and one more letter counts the rest and keeps the whole.

mod step;
#[cfg(test)]
mod tests;

use std::iter::Peekable;

pub use self::step::{Outcome, Step};
use super::arrivals::Arrivals;
use super::elements::BadElements;
use super::mapped::{MappedTally, TakenMessage};
use super::queue::{Delivery, Inbound, Replay};
use super::refusal::{explain, fitting, place, sum_up};
use crate::base::time::Timestamp;
use crate::dead_letters::{PAYLOAD_MAX_BYTES, RejectedMessage, RejectedPart};
use crate::telemetry::Record;
use crate::telemetry::admit::{Admission, Admitted, Part, Recipient};
use crate::telemetry::mapping::{Message, is_packed};
use crate::telemetry::rejection::{Reason, Rejection, Stage, Tally};
use crate::telemetry::validate::TimeOfDay;
use crate::wal::Receipt;

/// Most messages in one group: bounds the wait of the first for its ack.
pub(crate) const GROUP_MESSAGES: usize = 4_096;

/// Most bytes of topics and payloads in one group: bounds its memory. A larger message comes alone.
pub(crate) const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Good readings at which a group ends: a message that is compressed may bring very many, and bytes do not
/// tell that. More than messages of the built-in shape bring in [`GROUP_BYTES`].
pub(crate) const GROUP_READINGS: usize = 65_536;

/// Rejected readings at which a group ends: they take longer than good ones, and behind a flood of
/// them good ones wait.
pub(crate) const GROUP_REJECTED: u64 = 50_000;

/// Payload bytes at which a group ends of messages of which something was rejected: letters keep them.
pub(crate) const GROUP_REFUSED_BYTES: usize = 512 * 1024;

/// Letters that one message makes at most, the one that sums up the rest aside.
pub(crate) const LETTERS_A_MESSAGE: usize = 100;

/// What is to be made durable in one go, and who is told then.
#[derive(Default)]
pub struct Group {
    deliveries: Vec<Delivery>,
    replays: Vec<Replay>,
    readings: Vec<(Timestamp, Record)>,
    /// Of those readings that have the time of their arrival, in their order.
    receipts: Vec<(usize, Receipt)>,
    refused: Vec<Refused>,
    /// Readings that have come for the first time.
    accepted: u64,
    /// What became of what mappings have taken or left alone.
    mapped: MappedTally,
    rejected: Tally,
    /// Payloads of which something was rejected.
    refused_bytes: usize,
    progress: Progress,
}

/// What was rejected of a delivery.
struct Refused {
    /// Index of the delivery.
    of: usize,
    /// When it came in: the times that its readings get when it is replayed are kept for them.
    received_at: Timestamp,
    parts: Vec<RejectedPart>,
    /// Whether that is because no mapping takes it.
    is_unmatched: bool,
}

#[derive(Default)]
enum Progress {
    #[default]
    Begun,
    LettersStored,
    Committed,
    DiskFull,
    Failed,
}

impl Group {
    /// Takes from what waits, which must not be empty, as much as makes a group.
    pub fn gather(
        waiting: &mut Peekable<impl Iterator<Item = Inbound>>,
        admission: &Admission,
        clock: TimeOfDay,
        arrivals: &mut Arrivals,
    ) -> Self {
        let mut group = Self::default();
        let mut bytes = 0;
        let mut fits = |taken: usize, inbound: &Inbound| {
            bytes += size(inbound);
            taken == 0 || (taken < GROUP_MESSAGES && bytes <= GROUP_BYTES)
        };
        while !group.is_laden()
            && let Some(inbound) = waiting.next_if(|inbound| fits(group.len(), inbound))
        {
            match inbound {
                Inbound::Message(delivery) => {
                    group.admit(delivery, admission, clock, arrivals);
                }
                Inbound::Replay(replay) => group.put_back(replay, clock),
            }
        }
        group
    }

    /// A group of what comes while the log is full: nothing of it is stored.
    pub fn refused(waiting: impl Iterator<Item = Inbound>, arrivals: &mut Arrivals) -> Self {
        let mut group = Self { progress: Progress::DiskFull, ..Self::default() };
        for inbound in waiting {
            match inbound {
                Inbound::Message(delivery) => {
                    arrivals.pass(&delivery);
                    group.deliveries.push(delivery);
                }
                Inbound::Replay(replay) => group.replays.push(replay),
            }
        }
        group
    }

    /// What is to be done now.
    pub fn step(&mut self) -> Step<'_> {
        if matches!(self.progress, Progress::Begun) && self.refused.is_empty() {
            self.progress = Progress::LettersStored;
        }
        if matches!(self.progress, Progress::LettersStored) && self.readings.is_empty() {
            self.progress = Progress::Committed;
        }
        match self.progress {
            Progress::Begun => {
                Step::StoreLetters { messages: self.messages(), rejected: &self.rejected }
            }
            Progress::LettersStored => Step::Commit {
                readings: self.readings.drain(..),
                receipts: std::mem::take(&mut self.receipts),
            },
            Progress::Committed => Step::Acknowledge {
                deliveries: &self.deliveries,
                replays: self.replays.drain(..),
                accepted: self.accepted,
                mapped: &self.mapped,
            },
            Progress::DiskFull => {
                Step::GiveUp { deliveries: &self.deliveries, replays: self.replays.drain(..) }
            }
            Progress::Failed => Step::Stop,
        }
    }

    /// Takes note of how the present step went. Only that of [`Step::StoreLetters`] and of
    /// [`Step::Commit`] is asked for; a group that is settled stays so.
    pub fn heard(&mut self, outcome: Outcome) {
        self.progress = match (&self.progress, outcome) {
            (Progress::Begun, Outcome::Durable) => Progress::LettersStored,
            (Progress::LettersStored, Outcome::Durable) => Progress::Committed,
            (Progress::Begun | Progress::LettersStored, Outcome::DiskFull) => Progress::DiskFull,
            (Progress::Begun | Progress::LettersStored, Outcome::Failed) => Progress::Failed,
            (Progress::Committed | Progress::DiskFull | Progress::Failed, _) => return,
        };
    }

    fn len(&self) -> usize {
        self.deliveries.len() + self.replays.len()
    }

    fn admit(
        &mut self,
        delivery: Delivery,
        admission: &Admission,
        clock: TimeOfDay,
        arrivals: &mut Arrivals,
    ) {
        let received_at = delivery.received_at;
        // Without such a mapping nothing needs one.
        let arrival = admission.uses_arrival().then(|| arrivals.arrive(&delivery));
        let arrived_at = arrival.as_ref().map_or(received_at, |arrival| arrival.time);
        let mut times = 0;
        let mut by_arrival_at = Vec::new();
        let payload: &[u8] = &delivery.payload;
        let mut parts = Vec::new();
        let mut rest: Option<(Stage, Tally)> = None;
        let mut bad = BadElements::default();
        let accepted_before = self.accepted;
        let fitting = |Admitted { record, by_arrival }| {
            fitting(record).map(|record| Admitted { record, by_arrival })
        };
        let mut take = |part: Part<'_>, outcome: Result<Admitted, Rejection>| match outcome
            .and_then(fitting)
        {
            Ok(Admitted { record, by_arrival }) => {
                if let (true, Part::Whole(index)) = (by_arrival, part) {
                    times = times.max(index.unwrap_or(0) + 1);
                    by_arrival_at.push(self.readings.len());
                }
                self.accepted += 1;
                self.readings.push((received_at, record));
            }
            Err(rejection) => {
                let (reason, stage) = (rejection.reason, rejection.reason.stage());
                self.rejected.add(reason);
                match part {
                    Part::Whole(index) => bad.add(index, rejection),
                    Part::Text(raw) if parts.len() < LETTERS_A_MESSAGE => {
                        let reason = explain(rejection, raw);
                        parts.push(RejectedPart { range: place(payload, raw), stage, reason });
                    }
                    Part::Text(_) => {
                        rest.get_or_insert((stage, Tally::default())).1.add(reason);
                    }
                }
            }
        };
        // Of what is cut off too little is there to be looked at.
        let cut = (delivery.omitted > 0).then(|| payload.len() + delivery.omitted);
        let too_long = cut.and_then(|bytes| admission.too_long(bytes));
        let whose = match (delivery.topic.fault(), too_long) {
            (None, Some(rejection)) => {
                take(Part::Text(payload), Err(rejection));
                Recipient::BuiltIn
            }
            (None, None) => {
                let Delivery { topic, is_retained, .. } = &delivery;
                let is_retained = *is_retained;
                let message = Message { topic, payload, is_retained, received_at: arrived_at };
                admission.receive(message, clock, take)
            }
            (Some(fault), _) => {
                let rejection = Rejection::new(Reason::InvalidTopic, fault.to_string());
                take(Part::Text(payload), Err(rejection));
                Recipient::BuiltIn
            }
        };
        match whose {
            Recipient::Mapping(at) => {
                let message = TakenMessage {
                    stored: self.accepted - accepted_before,
                    rejected: bad.tally.total(),
                    is_qos0: delivery.ack.position.is_none(),
                    last_reason: bad.last_reason(),
                };
                self.mapped.take(at, message);
            }
            Recipient::LeftAlone(at) => self.mapped.leave(at),
            Recipient::Unmatched => self.mapped.pass(&delivery.topic, true),
            Recipient::Dropped => self.mapped.pass(&delivery.topic, false),
            Recipient::BuiltIn => {}
        }
        let mapping = if let Recipient::Mapping(at) = whose { Some(at) } else { None };
        for (reason, count) in bad.tally.counts() {
            self.mapped.refuse((mapping, reason), count);
        }
        parts.extend(bad.into_part(payload));
        if let Some((stage, rest)) = rest {
            let reason = sum_up(&rest, payload);
            parts.push(RejectedPart { range: 0..payload.len(), stage, reason });
        }
        if let Some(arrival) = &arrival {
            // What is cut off is never replayed.
            let is_whole = payload.len() <= PAYLOAD_MAX_BYTES && delivery.omitted == 0;
            if !parts.is_empty() && is_whole {
                times = times.max(arrivals.to_spare(&delivery, most_elements(payload)));
            }
            if times > 0 {
                let receipt = arrivals.receipt(&delivery, arrival);
                self.receipts.extend(by_arrival_at.into_iter().map(|at| (at, receipt)));
                arrivals.give(arrival, times);
            }
        }
        if !parts.is_empty() {
            self.refused_bytes += payload.len().min(PAYLOAD_MAX_BYTES);
            let is_unmatched = whose == Recipient::Unmatched;
            let of = self.deliveries.len();
            self.refused.push(Refused { of, received_at: arrived_at, parts, is_unmatched });
        }
        self.deliveries.push(delivery);
    }

    fn put_back(&mut self, mut replay: Replay, clock: TimeOfDay) {
        if replay.is_new {
            self.accepted += replay.readings.len() as u64;
        }
        self.readings.extend(replay.readings.drain(..).map(|reading| (clock.now(), reading)));
        self.replays.push(replay);
    }

    fn messages(&self) -> Vec<RejectedMessage<'_>> {
        self.refused.iter().map(|refused| refused.message(&self.deliveries)).collect()
    }

    /// Whether enough is in it that is slow to decode, long to write, or large.
    fn is_laden(&self) -> bool {
        let rejected = self.rejected.total();
        rejected >= GROUP_REJECTED
            || self.refused_bytes >= GROUP_REFUSED_BYTES
            || self.readings.len() >= GROUP_READINGS
    }
}

impl Refused {
    fn message<'g>(&'g self, deliveries: &'g [Delivery]) -> RejectedMessage<'g> {
        let Delivery { topic, payload, .. } = &deliveries[self.of];
        let Self { received_at, parts, is_unmatched, .. } = self;
        let (received_at, is_unmatched) = (*received_at, *is_unmatched);
        RejectedMessage { received_at, topic, payload, parts, is_unmatched }
    }
}

/// How many readings a mapping of a later configuration makes of a message, at most: in a text, what it goes
/// through is held apart by commas or lines, and in a binary format each takes a byte. It is bounded, as each takes
/// a microsecond of everybody's time.
fn most_elements(payload: &[u8]) -> usize {
    const MOST: usize = 1_000;
    if is_packed(payload) {
        // Nothing tells without unpacking it.
        return MOST;
    }
    if std::str::from_utf8(payload).is_err() {
        return payload.len().min(MOST);
    }
    (1 + memchr::memchr3_iter(b',', b'\n', b'\r', payload).count()).min(MOST)
}

fn size(inbound: &Inbound) -> usize {
    match inbound {
        Inbound::Message(delivery) => delivery.topic.len() + delivery.payload.len(),
        Inbound::Replay(_) => 0,
    }
}
