//! What a session keeps from one event to the next.

use std::time::Duration;

use super::exactly_once::ExactlyOnce;
use super::exchange::{Command, State};
use super::filters::Filters;
use super::link::Link;
use crate::base::retry::Backoff;
use crate::mqtt::diagnosis::Takeover;
use crate::wal::Room;

pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a session is to do.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Filters to be subscribed to; at least one.
    pub topics: Vec<String>,
    /// Whether the broker should know the session from an earlier process.
    pub has_history: bool,
    /// What that process has left by [`Command::Remember`].
    pub remembered: Filters,
    /// Whether it has left the broker with nothing that could be delivered again, see
    /// [`Command::Settle`].
    pub is_settled: bool,
}

/// The session with the broker, across connections.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that changes by itself"
)]
pub struct Session {
    pub(super) terms: Terms,
    /// Of the present connection, or of the last.
    pub(super) epoch: u64,
    /// The broker may deliver something again that was taken before the present connection.
    pub(super) may_come_again: bool,
    /// How often the broker has begun the session anew.
    pub(super) sessions: u64,
    pub(super) phase: Phase,
    pub(super) room: Room,
    /// The times of arrival that messages would get are none.
    pub(super) clock_is_wrong: bool,
    pub(super) is_stopping: bool,
    pub(super) has_been_connected: bool,
    /// What the session at the broker has.
    pub(super) held: Filters,
    /// What it has if the broker knows it, while a CONNECT is not answered.
    pub(super) held_before: Option<Filters>,
    pub(super) received: ExactlyOnce,
    pub(super) backoff: Backoff,
    pub(super) random: fastrand::Rng,
    pub(super) takeover: Takeover,
    pub(super) last_error: Option<String>,
    pub(super) shown: Option<State>,
}

/// Where the session stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// Until then there is no connection.
    Pausing(Duration),
    /// There is none until the log has room, and the clock is right.
    Away,
    Connecting,
    Connected(Box<Link>),
    Ended,
}

impl Session {
    /// A session that begins with [`Elapsed`](super::Event::Elapsed).
    #[must_use]
    pub fn new(mut terms: Terms, room: Room, mut random: fastrand::Rng, now: Duration) -> Self {
        Self {
            held: std::mem::take(&mut terms.remembered),
            held_before: None,
            terms,
            epoch: 0,
            may_come_again: true,
            sessions: 0,
            phase: Phase::Pausing(now),
            room,
            clock_is_wrong: false,
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

    /// When [`Elapsed`](super::Event::Elapsed) is due; as all times here on a monotonic clock of the caller's.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Pausing(until) => Some(*until),
            Phase::Connected(link) => link.deadline(),
            Phase::Away | Phase::Connecting | Phase::Ended => None,
        }
    }

    /// Whether there is no reason to stay away from the broker.
    pub(super) fn may_connect(&self) -> bool {
        self.room == Room::Open && !self.clock_is_wrong
    }

    pub(super) fn hold(&mut self, held: Filters, commands: &mut Vec<Command>) {
        if self.held != held {
            self.held = held;
            commands.push(Command::Remember(self.held.clone()));
        }
    }

    pub(super) fn show(&mut self, commands: &mut Vec<Command>) {
        let state = if matches!(self.phase, Phase::Connected(_)) {
            match self.held.missing(&self.terms.topics) {
                missing if missing.is_empty() => State::Connected,
                missing => State::Unsubscribed(missing),
            }
        } else if self.clock_is_wrong {
            State::WrongClock
        } else {
            State::Disconnected
        };
        if self.shown.as_ref() != Some(&state) {
            self.shown = Some(state.clone());
            commands.push(Command::Show(state));
        }
    }
}
