//! What becomes of each event.

use std::time::Duration;

use super::exchange::{Change, Command, Event, Loss};
use super::filters::Filters;
use super::link::{Due, Link};
use super::state::{Phase, Session, Terms};
use super::subscribing::Ask;
use crate::mqtt::packet::{Answer, Received, Sent};
use crate::wal::Room;

impl Session {
    /// Takes an event; appends what is to be done to `commands`. A message costs no allocation.
    pub fn on(&mut self, event: Event, now: Duration, commands: &mut Vec<Command>) {
        match event {
            Event::Connected { session_present } => self.connected(session_present, now, commands),
            Event::Received(packet) => self.packet(packet, now, commands),
            Event::Lost(loss) => self.lost(loss, now, commands),
            Event::Room(room) => self.room_changed(room, now, commands),
            Event::Clock { is_wrong } => self.clock_changed(is_wrong, now, commands),
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
        self.may_come_again = session_present && (again || !self.terms.is_settled);
        let held_before = self.held_before.take();
        if !session_present {
            self.sessions += 1;
            self.received.forget();
            self.held = Filters::default();
        } else if let Some(held) = held_before {
            self.hold(held, commands);
        }
        let mut link = Link::new(now, self.random.fork());
        if self.may_connect() {
            let Self { terms: Terms { topics, .. }, held, .. } = self;
            link.subscribing.connected(&mut Ask { wanted: topics, held, now, commands });
        }
        self.phase = Phase::Connected(Box::new(link));
        if self.may_connect() {
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
                link.order.push(Answer::PubComp(packet_id), true);
            }
            Received::PubRec(packet_id) => {
                link.order.push(Answer::PubRel(packet_id), true);
            }
            Received::SubAck { packet_id, granted } => {
                link.subscribing.suback(&mut ask, packet_id, &granted);
                self.show(commands);
            }
            Received::UnsubAck(packet_id) => link.subscribing.unsuback(&mut ask, packet_id),
            Received::Pong | Received::Other => {}
        }
        self.answer(commands);
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

    pub(super) fn elapsed(&mut self, now: Duration, commands: &mut Vec<Command>) {
        match &mut self.phase {
            Phase::Pausing(until) if now >= *until => {
                if self.may_connect() {
                    return self.connect(commands);
                }
                commands.push(Command::Report(match &self.room {
                    Room::Full(reason) => Change::StayingAway(reason.clone()),
                    Room::Open => Change::WrongClock,
                }));
                self.phase = Phase::Away;
                self.show(commands);
            }
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
            Phase::Pausing(_) | Phase::Away | Phase::Connecting | Phase::Ended => {}
        }
    }
}
