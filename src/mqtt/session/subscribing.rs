//! Asks for filters, and gives up those that are not wanted any more. What is refused, granted with
//! QoS 0 only, or not answered is asked for again, with growing pauses.

use std::collections::BTreeSet;
use std::time::Duration;

use super::exchange::{Change, Command, earlier};
use super::filters::{Filters, Held};
use crate::base::retry::Backoff;
use crate::mqtt::packet::{Granted, Sent};

/// Longest wait for the answer to a SUBSCRIBE or an UNSUBSCRIBE.
const ANSWER: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// SUBSCRIBEs that may be answered late; beyond these an answer is not known any more.
const UNANSWERED: usize = 8;

/// Asks for filters on one connection, and hears what is granted.
#[derive(Debug)]
pub(super) struct Subscribing {
    asked: Vec<Request>,
    dropping: Option<Request>,
    next_packet_id: u16,
    /// When something is asked for again.
    due: Option<Duration>,
    pauses: Backoff,
    /// What was said to be refused; not said again.
    refused: BTreeSet<String>,
    unanswered_was_said: bool,
}

#[derive(Debug)]
struct Request {
    packet_id: u16,
    filters: Vec<String>,
}

/// What a connection has to know to ask.
pub(super) struct Ask<'s> {
    pub(super) wanted: &'s [String],
    pub(super) held: &'s mut Filters,
    pub(super) now: Duration,
    pub(super) commands: &'s mut Vec<Command>,
}

impl Ask<'_> {
    fn missing(&self) -> Vec<String> {
        self.held.missing(self.wanted)
    }

    fn report(&mut self, change: Change) {
        self.commands.push(Command::Report(change));
    }

    fn remember(&mut self) {
        self.commands.push(Command::Remember(self.held.clone()));
    }
}

impl Subscribing {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Self {
            asked: Vec::new(),
            dropping: None,
            next_packet_id: 1,
            due: None,
            pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, random),
            refused: BTreeSet::new(),
            unanswered_was_said: false,
        }
    }

    /// When [`Self::elapsed`] is to be called.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// The connection stands.
    pub(super) fn connected(&mut self, ask: &mut Ask<'_>) {
        ask.held.doubt_shared();
        for filter in ask.held.granted(ask.wanted) {
            ask.report(Change::StillSubscribed(filter));
        }
        self.ask(ask, Duration::ZERO);
    }

    /// A SUBACK came.
    pub(super) fn suback(&mut self, ask: &mut Ask<'_>, packet_id: u16, granted: &[Granted]) {
        let Some(at) = self.asked.iter().position(|request| request.packet_id == packet_id) else {
            return;
        };
        let request = self.asked.swap_remove(at);
        let mut is_news = false;
        for (filter, granted) in request.filters.into_iter().zip(granted) {
            match granted {
                Granted::Yes => {
                    is_news |= ask.held.set(&filter, Held::Granted);
                    self.refused.remove(&filter);
                    ask.report(Change::Subscribed(filter));
                }
                Granted::QosZero => self.refuse(ask, filter, Change::QosZero),
                Granted::Refused => self.refuse(ask, filter, Change::Refused),
            }
        }
        if is_news {
            ask.remember();
        }
        if ask.missing().is_empty() {
            self.asked.clear();
            self.due = self.dropping.as_ref().map(|_| ask.now + ANSWER);
        } else if self.asked.is_empty() {
            self.due = Some(ask.now + self.pauses.next_pause());
        }
    }

    /// An UNSUBACK came.
    pub(super) fn unsuback(&mut self, ask: &mut Ask<'_>, packet_id: u16) {
        let Some(request) = self.dropping.take_if(|request| request.packet_id == packet_id) else {
            return;
        };
        for filter in &request.filters {
            ask.held.forget(filter);
        }
        ask.remember();
        ask.report(Change::Unsubscribed(request.filters));
        if ask.missing().is_empty() {
            self.due = None;
        }
    }

    /// Time has passed.
    pub(super) fn elapsed(&mut self, ask: &mut Ask<'_>) {
        if self.due.is_none_or(|due| ask.now < due) {
            return;
        }
        let missing = ask.missing();
        let is_unanswered = !self.asked.is_empty() && !missing.is_empty();
        if is_unanswered && !std::mem::replace(&mut self.unanswered_was_said, true) {
            ask.report(Change::Unanswered(missing));
        }
        let waits = is_unanswered || self.dropping.is_some();
        let pause = if waits { self.pauses.next_pause() } else { Duration::ZERO };
        self.ask(ask, pause);
    }

    /// Asks for what is missing and gives up what is not wanted; an answer is waited for that much
    /// longer than usual.
    fn ask(&mut self, ask: &mut Ask<'_>, longer: Duration) {
        let (missing, unwanted) = (ask.missing(), ask.held.unwanted(ask.wanted));
        let answer_due = (ask.now + ANSWER).checked_add(longer);
        self.due = None;
        if !unwanted.is_empty() {
            let packet_id = self.take_packet_id();
            self.dropping = Some(Request { packet_id, filters: unwanted.clone() });
            ask.commands.push(Command::Send(Sent::Unsubscribe { packet_id, filters: unwanted }));
            self.due = answer_due;
        }
        if !missing.is_empty() {
            let mut is_news = false;
            for filter in &missing {
                is_news |= ask.held.set(filter, Held::Asked);
            }
            if is_news {
                // Before the broker can grant them.
                ask.remember();
            }
            let packet_id = self.take_packet_id();
            if self.asked.len() >= UNANSWERED {
                self.asked.remove(0);
            }
            self.asked.push(Request { packet_id, filters: missing.clone() });
            ask.commands.push(Command::Send(Sent::Subscribe { packet_id, filters: missing }));
            self.due = earlier(self.due, answer_due);
        }
    }

    fn refuse(&mut self, ask: &mut Ask<'_>, filter: String, change: fn(String) -> Change) {
        if self.refused.insert(filter.clone()) {
            ask.report(change(filter));
        }
    }

    fn take_packet_id(&mut self) -> u16 {
        let packet_id = self.next_packet_id;
        self.next_packet_id = packet_id.checked_add(1).unwrap_or(1);
        packet_id
    }
}
