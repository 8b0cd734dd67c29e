//! One connection, from its CONNACK to its end. Nothing of it outlives it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::exactly_once::Content;
use super::exchange::earlier;
use super::order::Order;
use super::subscribing::Subscribing;
use crate::mqtt::diagnosis::Window;

/// The broker takes us for dead if it hears nothing for half as long again.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);

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
    /// How many answers had left before each ping that was not answered itself.
    sent: VecDeque<u64>,
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
        Self { next: now + KEEP_ALIVE, is_unanswered: false, sent: VecDeque::new() }
    }

    /// Something came in, or could not have been seen.
    pub(super) fn received(&mut self) {
        self.is_unanswered = false;
    }

    /// The oldest ping is answered; so many answers had left before it, which the broker has read by now, as it
    /// reads in order.
    pub(super) fn answered(&mut self) -> Option<u64> {
        self.sent.pop_front()
    }

    /// So many answers have `left`.
    pub(super) fn elapsed(&mut self, now: Duration, left: u64) -> Due {
        if now < self.next {
            return Due::Nothing;
        }
        if self.is_unanswered {
            return Due::GiveUp;
        }
        self.next = now + KEEP_ALIVE;
        self.is_unanswered = true;
        self.sent.push_back(left);
        Due::Ping
    }
}
