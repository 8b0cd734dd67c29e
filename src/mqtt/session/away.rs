//! Leaving the broker, losing it, and returning to it.

use std::time::Duration;

use super::exchange::{Change, Command, Loss};
use super::state::{Phase, Session};
use crate::mqtt::packet::Sent;
use crate::wal::Room;

/// Before a return to the broker when there seems to be room: what was refused a moment ago must not
/// be fetched again at once.
pub(super) const AFTER_FULL: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn connect(&mut self, commands: &mut Vec<Command>) {
        self.phase = Phase::Connecting;
        self.show(commands);
        self.held_before = Some(self.held.clone());
        self.hold(self.held.unsure(), commands);
        commands.push(Command::Connect);
    }

    pub(super) fn room_changed(&mut self, room: Room, now: Duration, commands: &mut Vec<Command>) {
        self.room = room;
        self.reconsider(Change::Returning, now, commands);
    }

    pub(super) fn clock_changed(
        &mut self,
        is_wrong: bool,
        now: Duration,
        commands: &mut Vec<Command>,
    ) {
        self.clock_is_wrong = is_wrong;
        self.reconsider(Change::ClockIsRight, now, commands);
    }

    /// Leaves the broker if there is a reason to, or returns if there is none any more.
    fn reconsider(&mut self, returning: Change, now: Duration, commands: &mut Vec<Command>) {
        match (&self.phase, self.may_connect()) {
            (Phase::Connected(_), false) if !self.is_stopping => self.leave(now, commands),
            (Phase::Away, true) => {
                commands.push(Command::Report(returning));
                self.connect(commands);
            }
            (Phase::Away, false) => self.show(commands),
            _ => {}
        }
    }

    /// What is not acknowledged yet comes again on the next connection.
    pub(super) fn renewed(&mut self, now: Duration, commands: &mut Vec<Command>) {
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
            Phase::Away | Phase::Connecting | Phase::Ended => {}
        }
    }

    pub(super) fn leave(&mut self, now: Duration, commands: &mut Vec<Command>) {
        let pause = if self.may_connect() { AFTER_FULL } else { Duration::ZERO };
        self.leave_for(pause, now, commands);
    }

    /// Says goodbye, after the answers that are due, and returns after the pause.
    pub(super) fn leave_for(
        &mut self,
        pause: Duration,
        now: Duration,
        commands: &mut Vec<Command>,
    ) {
        let Phase::Connected(link) = &self.phase else { return };
        if link.has_worked(now) {
            self.backoff.reset();
        }
        let has_answered_all = link.order.is_empty() && !self.may_come_again;
        self.takeover.ended_otherwise();
        if self.is_stopping && has_answered_all {
            commands.push(Command::Settle);
        }
        commands.extend([Command::Send(Sent::Disconnect), Command::Close]);
        if self.is_stopping {
            return self.end(commands);
        }
        self.phase = Phase::Pausing(now + pause);
        self.show(commands);
        self.elapsed(now, commands);
    }

    pub(super) fn lost(&mut self, loss: Loss, now: Duration, commands: &mut Vec<Command>) {
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

    pub(super) fn end(&mut self, commands: &mut Vec<Command>) {
        self.phase = Phase::Ended;
        self.show(commands);
        commands.push(Command::End);
    }
}
