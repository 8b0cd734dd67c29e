//! Decides what the connection to the broker does: when there is one, what is asked of the broker,
//! what is handed to the intake, and what is acknowledged and when. No I/O, no clock, no randomness
//! but what it is given: [`Session::on`] takes what has happened and says what is to be done.
//!
//! **Acks.** A packet id belongs to one connection: after a reconnect the broker uses it again, for
//! another message. A PUBACK that was meant for the old connection would acknowledge a message
//! that nobody stored. So what is forwarded carries the *epoch* of its connection, and a
//! settlement of another epoch than the present one is passed over: the broker delivers that
//! message again. Answers leave in the order of receipt. If a delivery was given up, nothing behind
//! it is acknowledged and the connection is left, because the broker delivers again only on another.
//!
//! **Being away.** While the log is full we stay away from the broker: its persistent session is the
//! overflow. A connection that broke is tried again after pauses that grow; one that worked starts
//! them over.
//!
//! **Stopping.** Nothing more is forwarded, but what was is still acknowledged: the connection is
//! left when the intake has settled all it was given.

use std::time::Duration;

use super::diagnosis::Takeover;
use super::packet::{Answer, Publish, Qos, Received, Sent};
use crate::base::retry::Backoff;
use crate::intake::queue::{AckToken, Settled};
use crate::wal::Room;

mod exactly_once;
mod exchange;
mod filters;
mod link;
mod order;
mod subscribing;
#[cfg(test)]
mod tests;

pub use exchange::{Change, Command, Event, Loss, State};
pub use filters::{Filters, SHARED};
pub use link::KEEP_ALIVE;

use exactly_once::ExactlyOnce;
use link::{Due, Link};
use subscribing::Ask;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Before a return to the broker when there seems to be room: what was refused a moment ago must not
/// be fetched again at once.
const AFTER_FULL: Duration = Duration::from_secs(1);

/// What a session is to do.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Filters to be subscribed to; at least one.
    pub topics: Vec<String>,
    /// Whether the broker should know the session from an earlier process.
    pub has_history: bool,
    /// What that process has left by [`Command::Remember`].
    pub remembered: Filters,
}

/// The session with the broker, across connections.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    /// Of the present connection, or of the last.
    epoch: u64,
    phase: Phase,
    room: Room,
    is_stopping: bool,
    has_been_connected: bool,
    /// What the session at the broker has.
    held: Filters,
    /// What it has if the broker knows it, while a CONNECT is not answered.
    held_before: Option<Filters>,
    received: ExactlyOnce,
    backoff: Backoff,
    random: fastrand::Rng,
    takeover: Takeover,
    last_error: Option<String>,
    shown: Option<State>,
}

#[derive(Debug)]
enum Phase {
    /// Until then there is no connection.
    Pausing(Duration),
    /// There is none until the log has room.
    Full,
    Connecting,
    Connected(Box<Link>),
    Ended,
}

impl Session {
    /// A session that begins with [`Event::Elapsed`].
    #[must_use]
    pub fn new(mut terms: Terms, room: Room, mut random: fastrand::Rng, now: Duration) -> Self {
        Self {
            held: std::mem::take(&mut terms.remembered),
            held_before: None,
            terms,
            epoch: 0,
            phase: Phase::Pausing(now),
            room,
            is_stopping: false,
            has_been_connected: false,
            received: ExactlyOnce::default(),
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, random.fork()),
            random,
            takeover: Takeover::default(),
            last_error: None,
            shown: None,
        }
    }

    /// When [`Event::Elapsed`] is due; as all times here on a monotonic clock of the caller's.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Pausing(until) => Some(*until),
            Phase::Connected(link) => link.deadline(),
            Phase::Full | Phase::Connecting | Phase::Ended => None,
        }
    }

    /// Takes an event; appends what is to be done to `commands`. A message costs no allocation.
    pub fn on(&mut self, event: Event, now: Duration, commands: &mut Vec<Command>) {
        match event {
            Event::Connected { session_present } => self.connected(session_present, now, commands),
            Event::Received(packet) => self.packet(packet, now, commands),
            Event::Lost(loss) => self.lost(loss, now, commands),
            Event::Room(room) => self.room_changed(room, now, commands),
            Event::Settled(settled) => self.settled(&settled, now, commands),
            Event::IntakeDone => {
                if self.is_stopping {
                    self.leave(now, commands);
                }
            }
            Event::StopAsked => self.stop(commands),
            Event::Elapsed => self.elapsed(now, commands),
            Event::Renewed => self.renewed(now, commands),
            Event::Resumed => {
                if let Phase::Connected(link) = &mut self.phase {
                    link.pings.received();
                }
            }
        }
    }

    fn connected(&mut self, session_present: bool, now: Duration, commands: &mut Vec<Command>) {
        let Phase::Connecting = self.phase else { return };
        self.epoch += 1;
        let again = std::mem::replace(&mut self.has_been_connected, true);
        self.last_error = None;
        let session_lost = !session_present && (again || self.terms.has_history);
        commands.push(Command::Report(Change::Connected { again, session_present, session_lost }));
        let held_before = self.held_before.take();
        if !session_present {
            self.received.forget();
            self.held = Filters::default();
        } else if let Some(held) = held_before {
            self.hold(held, commands);
        }
        let mut link = Link::new(now, self.random.fork());
        if self.room == Room::Open {
            let Self { terms: Terms { topics, .. }, held, .. } = self;
            link.subscribing.connected(&mut Ask { wanted: topics, held, now, commands });
        }
        self.phase = Phase::Connected(Box::new(link));
        if self.room == Room::Open {
            self.show(commands);
        } else {
            self.leave(now, commands);
        }
    }

    fn packet(&mut self, packet: Received, now: Duration, commands: &mut Vec<Command>) {
        let Phase::Connected(link) = &mut self.phase else { return };
        link.pings.received();
        let Terms { topics: wanted, .. } = &self.terms;
        let mut ask = Ask { wanted, held: &mut self.held, now, commands };
        match packet {
            Received::Publish(publish) => return self.message(publish, commands),
            Received::PubRel(packet_id) => {
                self.received.released(packet_id);
                link.order.owe(Answer::PubComp(packet_id), true);
            }
            Received::PubRec(packet_id) => {
                link.order.owe(Answer::PubRel(packet_id), true);
            }
            Received::SubAck { packet_id, granted } => {
                link.subscribing.suback(&mut ask, packet_id, &granted);
                self.show(commands);
            }
            Received::UnsubAck(packet_id) => link.subscribing.unsuback(&mut ask, packet_id),
            Received::Other => {}
        }
        self.answer(commands);
    }

    fn message(&mut self, publish: Publish, commands: &mut Vec<Command>) {
        let Phase::Connected(link) = &mut self.phase else { return };
        // What comes while stopping is left with the broker.
        if self.is_stopping {
            return;
        }
        let position = match publish.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce(packet_id) => {
                link.window.received();
                Some(link.order.owe(Answer::PubAck(packet_id), false))
            }
            Qos::ExactlyOnce(packet_id) => {
                let content = exactly_once::content(&publish);
                if publish.dup && self.received.has(packet_id, &content) {
                    link.order.owe(Answer::PubRec(packet_id), true);
                    self.answer(commands);
                    return;
                }
                link.window.received();
                link.unreceived.insert(packet_id, content);
                Some(link.order.owe(Answer::PubRec(packet_id), false))
            }
        };
        commands.push(Command::Forward { publish, ack: AckToken { epoch: self.epoch, position } });
    }

    fn settled(&mut self, settled: &[Settled], now: Duration, commands: &mut Vec<Command>) {
        let Phase::Connected(link) = &mut self.phase else { return };
        let mut is_broken = false;
        for settled in settled {
            let (Settled::Stored(ack) | Settled::GivenUp(ack)) = settled;
            if ack.epoch != self.epoch {
                continue;
            }
            match settled {
                Settled::Stored(_) if !is_broken => {
                    ack.position.into_iter().for_each(|position| link.order.settle(position));
                }
                Settled::Stored(_) => {}
                Settled::GivenUp(_) => is_broken = true,
            }
        }
        let answered = self.answer(commands);
        if is_broken {
            self.leave(now, commands);
        } else if let Phase::Connected(link) = &mut self.phase
            && let Some(width) = link.window.acked(answered)
        {
            commands.push(Command::Report(Change::NarrowWindow(width)));
        }
    }

    /// Sends the answers that may leave; returns how many.
    fn answer(&mut self, commands: &mut Vec<Command>) -> u64 {
        let Phase::Connected(link) = &mut self.phase else { return 0 };
        let mut answered = 0;
        while let Some(answer) = link.order.pop_due() {
            if let Answer::PubRec(packet_id) = answer
                && let Some(content) = link.unreceived.remove(&packet_id)
            {
                self.received.received(packet_id, content);
            }
            link.has_acked |= matches!(answer, Answer::PubAck(_) | Answer::PubRec(_));
            answered += 1;
            commands.push(Command::Send(Sent::Answer(answer)));
        }
        answered
    }

    fn room_changed(&mut self, room: Room, now: Duration, commands: &mut Vec<Command>) {
        self.room = room;
        match (&self.phase, &self.room) {
            (Phase::Connected(_), Room::Full(_)) if !self.is_stopping => self.leave(now, commands),
            (Phase::Full, Room::Open) => {
                commands.push(Command::Report(Change::Returning));
                self.connect(commands);
            }
            _ => {}
        }
    }

    fn stop(&mut self, commands: &mut Vec<Command>) {
        if std::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        commands.push(Command::CloseQueue);
        if !matches!(self.phase, Phase::Connected(_)) {
            commands.push(Command::Close);
            self.end(commands);
        }
    }

    fn elapsed(&mut self, now: Duration, commands: &mut Vec<Command>) {
        match &mut self.phase {
            Phase::Pausing(until) if now >= *until => match &self.room {
                Room::Open => self.connect(commands),
                Room::Full(reason) => {
                    commands.push(Command::Report(Change::StayingAway(reason.clone())));
                    self.phase = Phase::Full;
                }
            },
            Phase::Connected(link) => {
                match link.pings.elapsed(now) {
                    Due::Nothing => {}
                    Due::Ping => commands.push(Command::Send(Sent::Ping)),
                    Due::GiveUp => {
                        commands.push(Command::Close);
                        let loss = Loss::new("the broker does not answer pings");
                        return self.lost(loss, now, commands);
                    }
                }
                let Terms { topics: wanted, .. } = &self.terms;
                let held = &mut self.held;
                link.subscribing.elapsed(&mut Ask { wanted, held, now, commands });
            }
            Phase::Pausing(_) | Phase::Full | Phase::Connecting | Phase::Ended => {}
        }
    }

    /// What is not acknowledged yet comes again on the next connection.
    fn renewed(&mut self, now: Duration, commands: &mut Vec<Command>) {
        if self.is_stopping {
            return;
        }
        match &mut self.phase {
            Phase::Connected(_) => {
                commands.push(Command::Report(Change::Renewing));
                self.leave_for(Duration::ZERO, now, commands);
            }
            // Perhaps what it waited for.
            Phase::Pausing(until) => {
                *until = now;
                self.elapsed(now, commands);
            }
            Phase::Full | Phase::Connecting | Phase::Ended => {}
        }
    }

    fn leave(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let pause = if self.room == Room::Open { AFTER_FULL } else { Duration::ZERO };
        self.leave_for(pause, now, commands);
    }

    /// Says goodbye, after the answers that are due, and returns after the pause.
    fn leave_for(&mut self, pause: Duration, now: Duration, commands: &mut Vec<Command>) {
        let Phase::Connected(link) = &self.phase else { return };
        if link.has_worked(now) {
            self.backoff.reset();
        }
        self.takeover.ended_otherwise();
        commands.extend([Command::Send(Sent::Disconnect), Command::Close]);
        if self.is_stopping {
            return self.end(commands);
        }
        self.phase = Phase::Pausing(now + pause);
        self.show(commands);
        self.elapsed(now, commands);
    }

    fn lost(&mut self, loss: Loss, now: Duration, commands: &mut Vec<Command>) {
        let Loss { error, closed_by_broker, may_have_connected } = loss;
        let connected = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Connected(link) => Some(link),
            Phase::Connecting => None,
            other => {
                self.phase = other;
                return;
            }
        };
        if let Some(held) = self.held_before.take().filter(|_| !may_have_connected) {
            self.hold(held, commands);
        }
        if connected.as_ref().is_some_and(|link| link.has_worked(now)) {
            self.backoff.reset();
        }
        let retry_in = self.backoff.next_pause();
        let is_news = self.last_error.as_ref() != Some(&error);
        self.last_error = Some(error.clone());
        commands.push(Command::Report(match connected {
            Some(_) => Change::Lost { error, retry_in },
            None => Change::Unreachable { error, retry_in, is_news },
        }));
        match connected {
            Some(link) if closed_by_broker => {
                if self.takeover.closed_by_broker(now.saturating_sub(link.since)) {
                    commands.push(Command::Report(Change::Takeover));
                }
            }
            _ => self.takeover.ended_otherwise(),
        }
        if self.is_stopping {
            // What is not acknowledged now is delivered to the next process.
            return self.end(commands);
        }
        self.phase = Phase::Pausing(now + retry_in);
        self.show(commands);
    }

    fn connect(&mut self, commands: &mut Vec<Command>) {
        self.phase = Phase::Connecting;
        self.show(commands);
        self.held_before = Some(self.held.clone());
        self.hold(self.held.unsure(), commands);
        commands.push(Command::Connect);
    }

    fn hold(&mut self, held: Filters, commands: &mut Vec<Command>) {
        if self.held != held {
            self.held = held;
            commands.push(Command::Remember(self.held.clone()));
        }
    }

    fn end(&mut self, commands: &mut Vec<Command>) {
        self.phase = Phase::Ended;
        self.show(commands);
        commands.push(Command::End);
    }

    fn show(&mut self, commands: &mut Vec<Command>) {
        let state = if matches!(self.phase, Phase::Connected(_)) {
            match self.held.missing(&self.terms.topics) {
                missing if missing.is_empty() => State::Connected,
                missing => State::Unsubscribed(missing),
            }
        } else {
            State::Disconnected
        };
        if self.shown.as_ref() != Some(&state) {
            self.shown = Some(state.clone());
            commands.push(Command::Show(state));
        }
    }
}
