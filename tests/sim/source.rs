//! The shell of the MQTT side in the simulation: one packet, or one settlement, at a time.

use std::collections::VecDeque;
use std::time::Duration;

use iot_ingestor::intake::queue::{Delivery, Inbound, Settled};
use iot_ingestor::mqtt::packet::{Answer, Sent};
use iot_ingestor::mqtt::session::{Command, Event, Filters, Loss, Session, Terms};
use iot_ingestor::wal::{Log, Room};

use crate::broker::Broker;
use crate::kept::MessageId;
use crate::ledger::{Ledger, Violation};
use crate::mutants::Mutant;
use crate::publisher::clock;
use crate::schedule::Dice;
use crate::trace::{Happened, Trace};
use crate::wire::Read;

pub(crate) struct Source {
    session: Session,
    /// Settlements on their way back from the intake.
    settled: VecDeque<Vec<Settled>>,
    room: Room,
    /// The socket is open, or being opened.
    is_open: bool,
    /// Deliveries of this connection that the intake has not settled yet.
    unsettled: usize,
    epoch: u64,
    pub(crate) queue_is_closed: bool,
    is_stop_asked: bool,
    intake_done_was_told: bool,
    is_over: bool,
    /// A delivery of this connection was given up, so that no other of it is acknowledged.
    has_given_up: bool,
}

/// What it works with.
pub(crate) struct Around<'w> {
    pub(crate) broker: &'w mut Broker,
    pub(crate) ledger: &'w Ledger,
    pub(crate) queue: &'w mut VecDeque<Inbound>,
    pub(crate) queue_has_room: bool,
    pub(crate) intake_is_idle: bool,
    pub(crate) remembered: &'w mut Filters,
    /// Whether the broker was left in order, as the next process will know it.
    pub(crate) is_settled: &'w mut bool,
    pub(crate) log: &'w Log,
    pub(crate) trace: &'w mut Trace,
    pub(crate) now: Duration,
    pub(crate) mutant: Option<Mutant>,
}

impl Source {
    pub(crate) fn new(terms: Terms, room: Room, random: fastrand::Rng, now: Duration) -> Self {
        Self {
            session: Session::new(terms, room.clone(), random, now),
            settled: VecDeque::new(),
            room,
            is_open: false,
            unsettled: 0,
            epoch: 0,
            queue_is_closed: false,
            is_stop_asked: false,
            intake_done_was_told: false,
            is_over: false,
            has_given_up: false,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn wake_at(&self) -> Option<Duration> {
        self.session.deadline()
    }

    /// The intake has settled deliveries.
    pub(crate) fn settle(&mut self, settled: Vec<Settled>) {
        let is_present = |one: &&Settled| match one {
            Settled::Stored(ack) | Settled::GivenUp(ack) => ack.epoch == self.epoch,
        };
        self.unsettled -= settled.iter().filter(is_present).count();
        self.settled.push_back(settled);
    }
}

/// One thing that it can do.
#[derive(Clone, Copy)]
enum Task {
    Elapse,
    Room,
    Settle,
    IntakeDone,
    Read,
}

impl Source {
    pub(crate) fn can_work(&self, around: &Around<'_>) -> bool {
        self.tasks(around).next().is_some()
    }

    fn tasks(&self, around: &Around<'_>) -> impl Iterator<Item = Task> + use<> {
        let is_due = self.wake_at().is_some_and(|at| at <= around.now);
        let room_changed = *around.log.room().borrow() != self.room;
        let waits = self.queue_is_closed && !self.intake_done_was_told;
        let does_not_wait = around.mutant == Some(Mutant::StopThatDoesNotWait);
        let is_done = waits && (around.intake_is_idle || does_not_wait);
        let can_read = self.is_open && around.queue_has_room && around.broker.is_readable();
        let tasks = [
            (is_due, Task::Elapse),
            (room_changed, Task::Room),
            (!self.settled.is_empty(), Task::Settle),
            (is_done && (self.settled.is_empty() || does_not_wait), Task::IntakeDone),
            (can_read, Task::Read),
        ];
        let is_over = self.is_over;
        tasks.into_iter().filter(move |(can, _)| *can && !is_over).map(|(_, task)| task)
    }

    /// Does one thing; returns what the broker heard acknowledged by that.
    pub(crate) fn work(
        &mut self,
        dice: &mut Dice,
        around: &mut Around<'_>,
    ) -> Result<Vec<MessageId>, Violation> {
        let tasks: Vec<_> = self.tasks(around).collect();
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let event = match dice.pick(&tasks) {
            Task::Elapse => Event::Elapsed,
            Task::IntakeDone => {
                self.intake_done_was_told = true;
                Event::IntakeDone
            }
            Task::Room => {
                self.room = around.log.room().borrow().clone();
                if self.room != Room::Open && around.mutant == Some(Mutant::FullLogThatDoesNotLeave)
                {
                    return Ok(Vec::new());
                }
                Event::Room(self.room.clone())
            }
            Task::Settle => {
                let mut settled = self.settled.pop_front().unwrap_or_default();
                match around.mutant {
                    Some(Mutant::NoEpochCheck) => settled.iter_mut().for_each(|one| {
                        let (Settled::Stored(ack) | Settled::GivenUp(ack)) = one;
                        ack.epoch = self.epoch;
                    }),
                    Some(Mutant::FullLogThatDoesNotLeave) => {
                        settled.retain(|one| matches!(one, Settled::Stored(_)));
                    }
                    _ => {}
                }
                self.has_given_up |= settled
                    .iter()
                    .any(|one| matches!(one, Settled::GivenUp(ack) if ack.epoch == self.epoch));
                Event::Settled(settled)
            }
            Task::Read => match around.broker.read(around.ledger) {
                Read::Connected { session_present } => Event::Connected { session_present },
                Read::Packet(packet) => Event::Received(packet),
                Read::Nothing => return Ok(Vec::new()),
                Read::Closed => {
                    self.is_open = false;
                    Event::Lost(Loss::new("closed"))
                }
            },
        };
        self.hear(event, around)
    }

    /// Somebody asks for the end.
    pub(crate) fn stop(&mut self, around: &mut Around<'_>) -> Result<Vec<MessageId>, Violation> {
        self.is_stop_asked = true;
        self.hear(Event::StopAsked, around)
    }

    /// Certificates or secrets have changed.
    pub(crate) fn renew(&mut self, around: &mut Around<'_>) -> Result<Vec<MessageId>, Violation> {
        if self.is_over {
            return Ok(Vec::new());
        }
        self.hear(Event::Renewed, around)
    }

    fn hear(&mut self, event: Event, around: &mut Around<'_>) -> Result<Vec<MessageId>, Violation> {
        let mut commands = Vec::new();
        self.session.on(event, around.now, &mut commands);
        if around.mutant == Some(Mutant::AcksOutOfOrder) {
            swap_answers(&mut commands);
        }
        let mut acknowledged = Vec::new();
        let mut failed_to_connect = false;
        for command in commands {
            match command {
                Command::Connect => {
                    around.trace.note(Happened::Connected, self.epoch, 0);
                    *around.is_settled = false;
                    self.is_open = around.broker.connect();
                    failed_to_connect = !self.is_open;
                }
                Command::Send(packet) => {
                    self.check_goodbye(&packet)?;
                    around.trace.note(Happened::Wrote, code(&packet), 0);
                    around.broker.write(packet);
                }
                Command::Forward { publish, mut packet, ack } => {
                    if ack.epoch != self.epoch {
                        (self.epoch, self.unsettled, self.has_given_up) = (ack.epoch, 0, false);
                    }
                    self.unsettled += 1;
                    if around.mutant == Some(Mutant::RepeatTakenForNew)
                        && let Some(packet) = &mut packet
                    {
                        packet.is_again = false;
                    }
                    around.trace.note(Happened::Forwarded, ack.epoch, ack.position.unwrap_or(0));
                    around.queue.push_back(Inbound::Message(Delivery {
                        topic: publish.topic,
                        payload: publish.payload,
                        is_retained: publish.retain,
                        omitted: publish.omitted,
                        received_at: clock(around.now),
                        packet,
                        ack,
                        budget: None,
                    }));
                }
                Command::Close => {
                    self.is_open = false;
                    acknowledged.extend(around.broker.client_has_closed()?);
                }
                Command::Settle => *around.is_settled = around.broker.is_open(),
                Command::CloseQueue => self.queue_is_closed = true,
                Command::Remember(filters) => *around.remembered = filters,
                Command::Show(_) | Command::Report(_) => {}
                Command::End => self.is_over = true,
            }
        }
        if failed_to_connect {
            let loss = Loss::before_connect("refused");
            acknowledged.extend(self.hear(Event::Lost(loss), around)?);
        }
        Ok(acknowledged)
    }

    /// An orderly stop acknowledges all that was taken before it leaves.
    fn check_goodbye(&self, packet: &Sent) -> Result<(), Violation> {
        let has_unsettled = self.unsettled > 0 || !self.settled.is_empty();
        if *packet == Sent::Disconnect && self.is_stop_asked && has_unsettled && !self.has_given_up
        {
            return Err(Violation(format!(
                "an orderly stop leaves the broker, and {} messages that it took are not settled",
                self.unsettled
            )));
        }
        Ok(())
    }
}

/// The first two answers, in the wrong order.
fn swap_answers(commands: &mut [Command]) {
    let is_answer = |command: &Command| {
        matches!(command, Command::Send(Sent::Answer(Answer::PubAck(_) | Answer::PubRec(_))))
    };
    let mut answers = (0..commands.len()).filter(|at| is_answer(&commands[*at]));
    if let (Some(first), Some(second)) = (answers.next(), answers.next()) {
        drop(answers);
        commands.swap(first, second);
    }
}

/// Of a packet, for the trace.
fn code(packet: &Sent) -> u64 {
    match packet {
        Sent::Answer(Answer::PubAck(id)) => 100 + u64::from(*id),
        Sent::Answer(Answer::PubRec(id)) => 200 + u64::from(*id),
        Sent::Answer(Answer::PubRel(id)) => 300 + u64::from(*id),
        Sent::Answer(Answer::PubComp(id)) => 400 + u64::from(*id),
        Sent::Subscribe { .. } => 1,
        Sent::Unsubscribe { .. } => 2,
        Sent::Ping => 3,
        Sent::Disconnect => 4,
    }
}
