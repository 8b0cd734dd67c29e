//! One connection, from its CONNACK to its end. Nothing of it outlives it.

use std::collections::HashMap;
use std::time::Duration;

use super::exactly_once::Content;
use super::exchange::earlier;
use super::order::Order;
use super::subscribing::Subscribing;
use crate::mqtt::diagnosis::Window;

/// The broker takes us for dead if it hears nothing for half as long again.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A connection that lasted this long has worked, even if no message came.
const SETTLED: Duration = Duration::from_secs(1);

/// The state of a connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) since: Duration,
    /// The answers it owes.
    pub(super) order: Order,
    /// Messages of QoS 2 that are not acknowledged yet.
    pub(super) unreceived: HashMap<u16, Content>,
    pub(super) has_acked: bool,
    pub(super) window: Window,
    pub(super) subscribing: Subscribing,
    pub(super) pings: Pings,
}

impl Link {
    pub(super) fn new(now: Duration, random: fastrand::Rng) -> Self {
        Self {
            since: now,
            order: Order::default(),
            unreceived: HashMap::new(),
            has_acked: false,
            window: Window::default(),
            subscribing: Subscribing::new(random),
            pings: Pings::new(now),
        }
    }

    /// Whether it was good for something.
    pub(super) fn has_worked(&self, now: Duration) -> bool {
        self.has_acked || now.saturating_sub(self.since) >= SETTLED
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        earlier(Some(self.pings.next), self.subscribing.deadline())
    }
}

/// Signs of life, in both directions.
#[derive(Debug)]
pub(super) struct Pings {
    next: Duration,
    /// A ping was sent, and nothing has come in since.
    is_unanswered: bool,
}

/// What the time that has passed asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    /// The broker is dead.
    GiveUp,
}

impl Pings {
    fn new(now: Duration) -> Self {
        Self { next: now + KEEP_ALIVE, is_unanswered: false }
    }

    /// Something came in, or could not have been seen.
    pub(super) fn received(&mut self) {
        self.is_unanswered = false;
    }

    pub(super) fn elapsed(&mut self, now: Duration) -> Due {
        if now < self.next {
            return Due::Nothing;
        }
        if self.is_unanswered {
            return Due::GiveUp;
        }
        self.next = now + KEEP_ALIVE;
        self.is_unanswered = true;
        Due::Ping
    }
}
