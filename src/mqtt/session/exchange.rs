//! What a session is told, and what it wants done.

use std::time::Duration;

use super::filters::Filters;
use crate::intake::queue::{AckToken, Packet, Settled};
use crate::mqtt::packet::{Publish, Received, Sent};
use crate::wal::Room;

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// The connection that was asked for stands: the broker has accepted the CONNECT.
    Connected {
        /// Whether the broker knew our session.
        session_present: bool,
    },
    /// The broker has sent something.
    Received(Received),
    /// The connection broke, or did not come about. All that came in by it was told before.
    Lost(Loss),
    /// Whether the log takes records has changed, or why not.
    Room(Room),
    /// The time of day is plainly wrong now, or is not any more, and messages get it.
    Clock {
        /// It is plainly wrong.
        is_wrong: bool,
    },
    /// Deliveries were dealt with.
    Settled(Vec<Settled>),
    /// The intake has dealt with all it was given; it is told after [`Command::CloseQueue`].
    IntakeDone,
    /// The process is to stop.
    StopAsked,
    /// [`super::Session::deadline`] has come.
    Elapsed,
    /// What the broker sent was left unread for a while, so it says nothing that nothing was read.
    Resumed,
    /// Certificates or secrets have changed: only another connection goes by them.
    Renewed,
}

/// What is to be done, in the order of the commands.
#[derive(Debug)]
pub enum Command {
    /// Connect; ends with [`Event::Connected`] or [`Event::Lost`].
    Connect,
    /// Write this.
    Send(Sent),
    /// Hand this to the intake, which settles it by the token.
    Forward {
        /// The message.
        publish: Publish,
        /// What it was delivered by; `None` with QoS 0.
        packet: Option<Packet>,
        /// What it is acknowledged by.
        ack: AckToken,
    },
    /// Close the connection, or give up the attempt at one; no event comes of it.
    Close,
    /// We leave for good, and all that was taken is acknowledged, also before this connection: find out whether
    /// the broker has heard that, so that it delivers nothing of it again.
    Settle,
    /// Nothing more will be forwarded: let the intake end.
    CloseQueue,
    /// Make these durable, to be handed to the next process.
    Remember(Filters),
    /// Show this as the state of the MQTT side.
    Show(State),
    /// Tell the operator.
    Report(Change),
    /// The session is over; no event changes that.
    End,
}

/// The state of the MQTT side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No connection.
    Disconnected,
    /// The same, because the clock is plainly wrong.
    WrongClock,
    /// Connected, and these filters are not granted.
    Unsubscribed(Vec<String>),
    /// Connected, and every filter is granted.
    Connected,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// For the operator.
    pub error: String,
    /// The broker closed it, rather than the network or we.
    pub(crate) closed_by_broker: bool,
    /// The broker may have taken our CONNECT, and have made a new session of it.
    pub(crate) may_have_connected: bool,
}

impl Loss {
    /// A loss that is not the broker's doing.
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), closed_by_broker: false, may_have_connected: true }
    }

    /// A connection that did not come so far that the broker has accepted a CONNECT.
    pub fn before_connect(error: impl Into<String>) -> Self {
        Self { may_have_connected: false, ..Self::new(error) }
    }
}

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a connection.
    Connected {
        /// It is not the first.
        again: bool,
        /// The broker knew the session.
        session_present: bool,
        /// The broker should have known it.
        session_lost: bool,
    },
    /// The connection broke.
    Lost {
        /// Why.
        error: String,
        /// Until the next attempt.
        retry_in: Duration,
    },
    /// There is no connection.
    Unreachable {
        /// Why.
        error: String,
        /// Until the next attempt.
        retry_in: Duration,
        /// The reason has changed.
        is_news: bool,
    },
    /// Another client seems to have the same id.
    Takeover,
    /// The broker sends only so many messages before it waits for acks, and more wait.
    NarrowWindow(u64),
    /// The log is full, for this reason: we stay away from the broker.
    StayingAway(String),
    /// The clock is plainly wrong, and messages would get its time: we stay away from the broker.
    WrongClock,
    /// The clock is right: we connect.
    ClockIsRight,
    /// The log has room again: we return.
    Returning,
    /// Certificates or secrets have changed: we leave and return.
    Renewing,
    /// This filter is granted.
    Subscribed(String),
    /// This filter was granted on an earlier connection, and the broker has kept it.
    StillSubscribed(String),
    /// This one is granted with QoS 0 only.
    QosZero(String),
    /// This one is refused.
    Refused(String),
    /// The broker has not answered a SUBSCRIBE for these.
    Unanswered(Vec<String>),
    /// These were taken out of the configuration, and the broker sends no more of them.
    Unsubscribed(Vec<String>),
}

/// The earlier of two deadlines.
pub(in crate::mqtt) fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
