use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::away::AFTER_FULL;
use super::state::{FIRST_PAUSE, LONGEST_PAUSE};
use super::*;
use crate::base::properties::seeded;
use crate::intake::queue::{AckToken, Packet, Settled};
use crate::mqtt::packet::{Answer, Granted, Publish, Qos, Received, Sent};
use crate::wal::Room;

/// A session with the time that it is told, and what it wanted done.
struct Bench {
    session: Session,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        Self::with(Terms {
            topics: vec!["a/#".into(), "b".into()],
            has_history: false,
            remembered: Filters::default(),
            is_settled: false,
        })
    }

    fn with(terms: Terms) -> Self {
        let now = Duration::ZERO;
        let session = Session::new(terms, Room::Open, fastrand::Rng::with_seed(1), now);
        Self { session, now }
    }

    /// Connected and subscribed.
    fn connected() -> Self {
        let mut bench = Self::new();
        bench.on(Event::Elapsed);
        bench.connect(false);
        bench.grant(1, &[Granted::Yes; 2]);
        bench
    }

    fn on(&mut self, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        self.session.on(event, self.now, &mut commands);
        commands
    }

    fn connect(&mut self, session_present: bool) -> Vec<Command> {
        self.on(Event::Connected { session_present })
    }

    fn grant(&mut self, packet_id: u16, granted: &[Granted]) -> Vec<Command> {
        let granted = granted.to_vec();
        self.on(Event::Received(Received::SubAck { packet_id, granted }))
    }

    fn lose(&mut self) -> Vec<Command> {
        self.on(Event::Lost(Loss::new("it broke")))
    }

    /// Lets the time pass until something is due.
    fn elapse(&mut self) -> Vec<Command> {
        self.now = self.session.deadline().expect("nothing is due");
        self.on(Event::Elapsed)
    }

    fn reconnect(&mut self) {
        self.elapse();
        self.connect(true);
    }

    /// Receives a message, which must be forwarded; its token.
    fn deliver(&mut self, qos: Qos) -> AckToken {
        let commands = self.publish(qos, false);
        let [Command::Forward { ack, .. }] = commands[..] else { panic!("{commands:?}") };
        ack
    }

    fn publish(&mut self, qos: Qos, dup: bool) -> Vec<Command> {
        let payload = Bytes::from_static(b"x");
        let publish = Publish { topic: "a/b".into(), payload, omitted: 0, qos, dup, retain: false };
        self.on(Event::Received(Received::Publish(publish)))
    }

    fn store(&mut self, acks: &[AckToken]) -> Vec<Command> {
        self.on(Event::Settled(acks.iter().copied().map(Settled::Stored).collect()))
    }
}

fn full() -> Event {
    Event::Room(Room::Full("it is full".into()))
}

/// The packets among the commands.
fn sent(commands: &[Command]) -> Vec<Sent> {
    let packet = |command: &Command| match command {
        Command::Send(packet) => Some(packet.clone()),
        _ => None,
    };
    commands.iter().filter_map(packet).collect()
}

fn answers(commands: &[Command]) -> Vec<Answer> {
    let answer = |packet| match packet {
        Sent::Answer(answer) => Some(answer),
        _ => None,
    };
    sent(commands).into_iter().filter_map(answer).collect()
}

fn has(commands: &[Command], is: impl Fn(&Command) -> bool) -> bool {
    commands.iter().any(is)
}

fn leaves(commands: &[Command]) -> bool {
    sent(commands).last() == Some(&Sent::Disconnect)
        && has(commands, |command| matches!(command, Command::Close))
}

fn connects(commands: &[Command]) -> bool {
    has(commands, |command| matches!(command, Command::Connect))
}

fn ends(commands: &[Command]) -> bool {
    matches!(commands.last(), Some(Command::End))
}

fn shows(commands: &[Command]) -> Option<&State> {
    commands.iter().rev().find_map(|command| match command {
        Command::Show(state) => Some(state),
        _ => None,
    })
}

#[test]
fn an_ack_of_an_earlier_connection_is_never_written_though_its_packet_id_is_used_again() {
    let mut bench = Bench::connected();
    let late = bench.deliver(Qos::AtLeastOnce(1));
    bench.lose();
    bench.reconnect();
    let reused = bench.deliver(Qos::AtLeastOnce(1));
    assert_eq!(answers(&bench.store(&[late])), []);
    assert_eq!(answers(&bench.store(&[reused])), [Answer::PubAck(1)]);
}

#[test]
fn acks_leave_in_the_order_of_receipt() {
    let mut bench = Bench::connected();
    let [first, second, third] = [7, 3, 5].map(|id| bench.deliver(Qos::AtLeastOnce(id)));
    assert_eq!(answers(&bench.store(&[second])), []);
    assert_eq!(answers(&bench.store(&[first])), [Answer::PubAck(7), Answer::PubAck(3)]);
    assert_eq!(answers(&bench.store(&[third])), [Answer::PubAck(5)]);
}

#[test]
fn behind_a_delivery_that_was_given_up_nothing_is_acknowledged_and_the_connection_is_left() {
    let mut bench = Bench::connected();
    let [stored, given_up, behind] = [1, 2, 3].map(|id| bench.deliver(Qos::AtLeastOnce(id)));
    let commands = bench.on(Event::Settled(vec![
        Settled::Stored(stored),
        Settled::GivenUp(given_up),
        Settled::Stored(behind),
    ]));
    assert_eq!(answers(&commands), [Answer::PubAck(1)]);
    assert!(leaves(&commands));
    let away = bench.now;
    assert!(connects(&bench.elapse()));
    assert_eq!(bench.now, away + AFTER_FULL);
}

#[test]
fn giving_up_what_an_earlier_connection_brought_leaves_the_present_one_alone() {
    let mut bench = Bench::connected();
    let early = bench.deliver(Qos::AtLeastOnce(1));
    bench.lose();
    bench.reconnect();
    assert!(bench.on(Event::Settled(vec![Settled::GivenUp(early)])).is_empty());
}

#[test]
fn a_full_log_is_a_reason_to_leave_and_room_one_to_return() {
    let mut bench = Bench::connected();
    let commands = bench.on(full());
    assert!(leaves(&commands));
    assert_eq!(shows(&commands), Some(&State::Disconnected));
    assert_eq!(bench.session.deadline(), None);
    assert!(connects(&bench.on(Event::Room(Room::Open))));
}

#[test]
fn a_log_that_is_full_when_the_connection_stands_is_a_reason_to_leave_it_unused() {
    let mut bench = Bench::new();
    assert!(connects(&bench.on(Event::Elapsed)));
    bench.on(full());
    let commands = bench.connect(false);
    assert_eq!(sent(&commands), [Sent::Disconnect]);
    assert_eq!(bench.session.deadline(), None);
}

#[test]
fn a_stop_waits_for_the_intake_and_for_nobody_without_a_connection() {
    let mut bench = Bench::connected();
    let ack = bench.deliver(Qos::AtLeastOnce(1));
    assert!(matches!(bench.on(Event::StopAsked)[..], [Command::CloseQueue]));
    assert!(bench.publish(Qos::AtLeastOnce(2), false).is_empty(), "left with the broker");
    assert_eq!(answers(&bench.store(&[ack])), [Answer::PubAck(1)]);
    let commands = bench.on(Event::IntakeDone);
    assert!(leaves(&commands) && ends(&commands));

    let mut bench = Bench::new();
    bench.on(Event::Elapsed);
    assert!(ends(&bench.on(Event::StopAsked)));

    let mut bench = Bench::connected();
    bench.on(Event::StopAsked);
    assert!(ends(&bench.lose()), "what is not acknowledged now never will be here");
}

#[test]
fn pauses_grow_until_a_connection_has_worked() {
    let mut bench = Bench::new();
    let mut pause = |is_accepted: bool, lasts: Duration| {
        bench.elapse();
        if is_accepted {
            bench.connect(true);
            bench.now += lasts;
        }
        bench.lose();
        bench.session.deadline().unwrap().saturating_sub(bench.now)
    };
    let mut longest = Duration::ZERO;
    for _ in 0..12 {
        longest = pause(false, Duration::ZERO);
    }
    assert!((LONGEST_PAUSE / 3..=LONGEST_PAUSE).contains(&longest), "{longest:?}");
    assert!(pause(true, Duration::from_millis(900)) > LONGEST_PAUSE / 4);
    assert!(pause(true, Duration::from_millis(1_100)) <= FIRST_PAUSE);
}

#[test]
fn a_broker_that_is_silent_is_asked_for_a_sign_of_life_and_then_given_up() {
    let mut bench = Bench::connected();
    let since = bench.now;
    assert_eq!(sent(&bench.elapse()), [Sent::Ping]);
    assert_eq!(bench.now, since + KEEP_ALIVE);
    bench.on(Event::Received(Received::Other));
    assert_eq!(sent(&bench.elapse()), [Sent::Ping]);
    // Nobody has looked.
    bench.on(Event::Resumed);
    assert_eq!(sent(&bench.elapse()), [Sent::Ping]);
    let commands = bench.elapse();
    assert!(has(&commands, |command| matches!(command, Command::Close)), "{commands:?}");
    assert!(connects(&bench.elapse()));
}

#[test]
fn a_message_of_qos_2_is_received_once_whatever_the_broker_repeats() {
    let mut bench = Bench::connected();
    let ack = bench.deliver(Qos::ExactlyOnce(4));
    assert_eq!(answers(&bench.store(&[ack])), [Answer::PubRec(4)]);
    bench.lose();
    bench.reconnect();
    assert_eq!(answers(&bench.publish(Qos::ExactlyOnce(4), true)), [Answer::PubRec(4)]);
    let released = bench.on(Event::Received(Received::PubRel(4)));
    assert_eq!(answers(&released), [Answer::PubComp(4)]);
    // From now on the packet id means another message.
    let ack = bench.deliver(Qos::ExactlyOnce(4));
    assert_eq!(answers(&bench.store(&[ack])), [Answer::PubRec(4)]);
}

#[test]
fn a_message_of_qos_2_that_says_something_else_is_another_one() {
    let mut bench = Bench::connected();
    let ack = bench.deliver(Qos::ExactlyOnce(4));
    bench.store(&[ack]);
    bench.lose();
    bench.reconnect();
    let payload = Bytes::from_static(b"another");
    let other = Publish {
        topic: "a/b".into(),
        payload,
        omitted: 0,
        qos: Qos::ExactlyOnce(4),
        dup: true,
        retain: false,
    };
    let commands = bench.on(Event::Received(Received::Publish(other)));
    assert!(matches!(commands[..], [Command::Forward { .. }]), "{commands:?}");
}

#[test]
fn a_pubrel_that_an_earlier_client_has_left_is_answered_in_its_turn() {
    let mut bench = Bench::connected();
    assert_eq!(answers(&bench.on(Event::Received(Received::PubRel(9)))), [Answer::PubComp(9)]);
    let ack = bench.deliver(Qos::AtLeastOnce(1));
    assert_eq!(answers(&bench.on(Event::Received(Received::PubRel(10)))), []);
    assert_eq!(answers(&bench.store(&[ack])), [Answer::PubAck(1), Answer::PubComp(10)]);
    assert_eq!(answers(&bench.on(Event::Received(Received::PubRec(11)))), [Answer::PubRel(11)]);
}

fn subscribe(packet_id: u16, filters: &[&str]) -> Sent {
    Sent::Subscribe { packet_id, filters: filters.iter().map(ToString::to_string).collect() }
}

#[test]
fn what_is_refused_is_asked_for_again_with_growing_pauses_and_shown() {
    let mut bench = Bench::new();
    bench.on(Event::Elapsed);
    let commands = bench.connect(false);
    assert_eq!(sent(&commands), [subscribe(1, &["a/#", "b"])]);
    let both = State::Unsubscribed(vec!["a/#".into(), "b".into()]);
    assert_eq!(shows(&commands), Some(&both));
    let commands = bench.grant(1, &[Granted::Yes, Granted::Refused]);
    assert_eq!(shows(&commands), Some(&State::Unsubscribed(vec!["b".into()])));
    let mut pauses = Vec::new();
    for packet_id in 2..8 {
        let before = bench.now;
        let mut commands = bench.elapse();
        while sent(&commands) == [Sent::Ping] {
            bench.on(Event::Received(Received::Other));
            commands = bench.elapse();
        }
        assert_eq!(sent(&commands), [subscribe(packet_id, &["b"])]);
        pauses.push(bench.now.saturating_sub(before));
        let commands = bench.grant(packet_id, &[Granted::QosZero]);
        let said = has(&commands, |command| matches!(command, Command::Report(_)));
        assert!(!said, "it is said once: {commands:?}");
    }
    assert!(pauses[5] > pauses[0] * 4, "{pauses:?}");
    while sent(&bench.elapse()) == [Sent::Ping] {
        bench.on(Event::Received(Received::Other));
    }
    assert_eq!(shows(&bench.grant(8, &[Granted::Yes])), Some(&State::Connected));
}

#[test]
fn a_subscribe_without_an_answer_is_sent_again_and_a_late_answer_counts() {
    let mut bench = Bench::new();
    bench.on(Event::Elapsed);
    bench.connect(false);
    let commands = bench.elapse();
    assert_eq!(sent(&commands), [subscribe(2, &["a/#", "b"])]);
    let unanswered = |command: &Command| matches!(command, Command::Report(Change::Unanswered(_)));
    assert!(has(&commands, unanswered));
    assert_eq!(shows(&bench.grant(1, &[Granted::Yes; 2])), Some(&State::Connected));
}

#[test]
fn a_session_that_the_broker_knows_is_asked_only_for_what_it_may_not_have() {
    let mut bench = Bench::connected();
    bench.lose();
    bench.elapse();
    let commands = bench.connect(true);
    assert_eq!(sent(&commands), []);
    assert_eq!(shows(&commands), Some(&State::Connected));
    bench.lose();
    bench.elapse();
    assert_eq!(sent(&bench.connect(false)), [subscribe(1, &["a/#", "b"])]);
}

#[test]
fn a_session_that_the_broker_may_have_made_unnoticed_is_asked_for_every_filter() {
    // A CONNECT that a broker without our session has taken, and whose answer is lost on the way.
    let mut bench = Bench::connected();
    bench.lose();
    let commands = bench.elapse();
    assert!(connects(&commands));
    bench.lose();
    bench.elapse();
    assert_eq!(sent(&bench.connect(true)), [subscribe(1, &["a/#", "b"])]);

    // The same, and the process ends before the answer.
    let mut bench = Bench::connected();
    bench.lose();
    let remembered = bench.elapse().into_iter().find_map(|command| match command {
        Command::Remember(filters) => Some(filters),
        _ => None,
    });
    let remembered = remembered.expect("nothing is sure any more, before the CONNECT");
    let topics = vec!["a/#".into(), "b".into()];
    let mut bench = Bench::with(Terms { topics, has_history: true, remembered, is_settled: false });
    bench.on(Event::Elapsed);
    assert_eq!(sent(&bench.connect(true)), [subscribe(1, &["a/#", "b"])]);
}

#[test]
fn a_broker_that_was_not_reached_is_asked_for_nothing_again() {
    let mut bench = Bench::connected();
    bench.lose();
    bench.elapse();
    bench.on(Event::Lost(Loss::before_connect("nobody listens")));
    bench.elapse();
    assert_eq!(sent(&bench.connect(true)), []);
}

#[test]
fn a_shared_subscription_is_asked_for_at_each_connection() {
    let topics = vec!["$share/g/a/#".into(), "b".into()];
    let remembered = Filters::default();
    let mut bench =
        Bench::with(Terms { topics, has_history: false, remembered, is_settled: false });
    bench.on(Event::Elapsed);
    bench.connect(false);
    bench.grant(1, &[Granted::Yes; 2]);
    bench.lose();
    bench.elapse();
    assert_eq!(sent(&bench.connect(true)), [subscribe(1, &["$share/g/a/#"])]);
    assert_eq!(shows(&bench.grant(1, &[Granted::Yes])), Some(&State::Connected));
}

#[test]
fn what_an_earlier_process_was_granted_and_is_not_wanted_any_more_is_unsubscribed() {
    let mut bench = Bench::new();
    bench.on(Event::Elapsed);
    let asked = bench.connect(false);
    let remembers = |command: &Command| matches!(command, Command::Remember(_));
    let remember = asked.iter().position(remembers).expect("it is remembered");
    let send = asked.iter().position(|command| matches!(command, Command::Send(_)));
    assert!(Some(remember) < send, "before the broker can grant it");
    let commands = bench.grant(1, &[Granted::Yes; 2]);
    let remembered = commands.into_iter().find_map(|command| match command {
        Command::Remember(filters) => Some(filters),
        _ => None,
    });
    let topics = vec!["a/#".into(), "c".into()];
    let remembered = remembered.expect("what was granted is remembered");
    let mut bench = Bench::with(Terms { topics, has_history: true, remembered, is_settled: false });
    bench.on(Event::Elapsed);
    let commands = bench.connect(true);
    let unsubscribe = Sent::Unsubscribe { packet_id: 1, filters: vec!["b".into()] };
    assert_eq!(sent(&commands), [unsubscribe, subscribe(2, &["c"])]);
    bench.grant(2, &[Granted::Yes]);
    let commands = bench.on(Event::Received(Received::UnsubAck(1)));
    assert!(has(&commands, remembers), "{commands:?}");
    bench.lose();
    bench.elapse();
    assert_eq!(sent(&bench.connect(true)), []);
}

#[derive(Clone, Debug)]
enum Step {
    /// Deliver a message under this packet id, or that of QoS 2.
    Deliver(u16, bool),
    /// Settle so many of those that were forwarded longest ago.
    Store(usize),
    GiveUp,
    Lose,
    Full,
    Room,
    Elapse,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u16, any::<bool>()).prop_map(|(id, twice)| Step::Deliver(id, twice)),
        4 => (1..5_usize).prop_map(Step::Store),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Lose),
        1 => Just(Step::Full),
        1 => Just(Step::Room),
        3 => Just(Step::Elapse),
    ]
}

/// What an outsider sees: each message has a number of its own, whatever its packet id.
#[derive(Default)]
struct Outside {
    is_connected: bool,
    next: u64,
    /// What was delivered on this connection and is not acknowledged.
    unacknowledged: VecDeque<(u16, u64)>,
    /// What the intake has.
    forwarded: VecDeque<(AckToken, u64)>,
    stored: HashSet<u64>,
}

impl Outside {
    fn see(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Send(Sent::Answer(Answer::PubAck(id) | Answer::PubRec(id))) => {
                    let (expected, number) = self.unacknowledged.pop_front().expect("too many");
                    assert_eq!(id, expected, "out of order");
                    assert!(self.stored.contains(&number), "acknowledged and not stored");
                }
                Command::Forward { ack, .. } => self.forwarded.push_back((ack, self.next)),
                Command::Close => self.is_connected = false,
                _ => {}
            }
        }
        if !self.is_connected {
            self.unacknowledged.clear();
        }
    }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn nothing_is_acknowledged_that_was_not_stored_whatever_happens_in_which_order(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut bench = Bench::new();
        let mut outside = Outside::default();
        for step in steps {
            let event = match step {
                Step::Deliver(id, twice) => {
                    // A packet id is in use until it is acknowledged.
                    let in_use = outside.unacknowledged.iter().any(|(used, _)| *used == id);
                    if !outside.is_connected || in_use {
                        continue;
                    }
                    outside.next += 1;
                    outside.unacknowledged.push_back((id, outside.next));
                    let payload = Bytes::from(outside.next.to_string());
                    let qos = if twice { Qos::ExactlyOnce(id) } else { Qos::AtLeastOnce(id) };
                    let publish = Publish { topic: "a/b".into(), payload, omitted: 0, qos, dup: twice, retain: false };
                    Event::Received(Received::Publish(publish))
                }
                Step::Store(count) => {
                    let count = count.min(outside.forwarded.len());
                    let settled: Vec<_> = outside.forwarded.drain(..count).collect();
                    outside.stored.extend(settled.iter().map(|(_, number)| *number));
                    Event::Settled(settled.into_iter().map(|(ack, _)| Settled::Stored(ack)).collect())
                }
                Step::GiveUp => {
                    let Some((ack, _)) = outside.forwarded.pop_front() else { continue };
                    Event::Settled(vec![Settled::GivenUp(ack)])
                }
                Step::Lose => {
                    outside.is_connected = false;
                    Event::Lost(Loss::new("it broke"))
                }
                Step::Full => full(),
                Step::Room => Event::Room(Room::Open),
                Step::Elapse => {
                    let Some(deadline) = bench.session.deadline() else { continue };
                    bench.now = bench.now.max(deadline);
                    Event::Elapsed
                }
            };
            let commands = bench.on(event);
            let connects = connects(&commands);
            outside.see(commands);
            if connects {
                outside.is_connected = true;
                let commands = bench.connect(true);
                outside.see(commands);
            }
        }
    }
}

#[test]
fn renewed_secrets_are_heeded_at_once_and_what_was_not_acknowledged_comes_again() {
    let mut bench = Bench::connected();
    let ack = bench.deliver(Qos::AtLeastOnce(7));
    let commands = bench.on(Event::Renewed);
    let is_in_order = matches!(
        &commands[..],
        [
            Command::Report(Change::Renewing),
            Command::Send(Sent::Disconnect),
            Command::Close,
            Command::Show(State::Disconnected),
            ..,
            Command::Connect
        ]
    );
    assert!(is_in_order, "{commands:?}");
    bench.connect(true);
    // The broker may use the packet id for another message by now.
    assert!(bench.on(Event::Settled(vec![Settled::Stored(ack)])).is_empty());

    // One that was turned away does not wait until its pause is over, and one that is stopping stays.
    bench.lose();
    let commands = bench.on(Event::Renewed);
    assert!(matches!(commands.last(), Some(Command::Connect)), "{commands:?}");
    bench.connect(true);
    bench.on(Event::StopAsked);
    assert!(bench.on(Event::Renewed).is_empty());
}

#[test]
fn while_the_clock_is_wrong_there_is_no_connection_and_it_comes_by_itself() {
    let mut bench = Bench::new();
    let clock = |is_wrong| Event::Clock { is_wrong };
    assert!(bench.on(clock(true)).is_empty());
    let commands = bench.on(Event::Elapsed);
    assert!(!connects(&commands));
    assert!(has(&commands, |one| matches!(one, Command::Report(Change::WrongClock))));
    assert_eq!(shows(&commands), Some(&State::WrongClock));
    // Room in the log is no reason to come.
    assert!(!connects(&bench.on(full())));
    assert!(!connects(&bench.on(Event::Room(Room::Open))));
    let commands = bench.on(clock(false));
    assert!(has(&commands, |one| matches!(one, Command::Report(Change::ClockIsRight))));
    assert!(connects(&commands));
    bench.connect(false);
    let commands = bench.on(clock(true));
    assert!(leaves_at_once(&commands), "{commands:?}");
    assert_eq!(shows(&commands), Some(&State::WrongClock));
    assert!(connects(&bench.on(clock(false))));
    // It may have become wrong meanwhile.
    bench.on(clock(true));
    assert!(leaves_at_once(&bench.connect(true)));
}

fn leaves_at_once(commands: &[Command]) -> bool {
    sent(commands).contains(&Sent::Disconnect)
        && has(commands, |one| matches!(one, Command::Report(Change::WrongClock)))
}

#[test]
fn a_delivery_says_its_packet_whether_it_is_a_repeat_and_of_which_session() {
    let mut bench = Bench::connected();
    let packet = |commands: Vec<Command>| match &commands[..] {
        [Command::Forward { packet, .. }] => *packet,
        _ => panic!("{commands:?}"),
    };
    let of = |id, is_again, session| Some(Packet { id, is_again, session });
    assert_eq!(packet(bench.publish(Qos::AtMostOnce, false)), None);
    assert_eq!(packet(bench.publish(Qos::AtLeastOnce(7), false)), of(7, false, 1));
    bench.lose();
    bench.reconnect();
    assert_eq!(packet(bench.publish(Qos::AtLeastOnce(7), true)), of(7, true, 1));
    assert_eq!(packet(bench.publish(Qos::ExactlyOnce(8), true)), of(8, true, 1));
    bench.lose();
    bench.elapse();
    bench.connect(false);
    assert_eq!(packet(bench.publish(Qos::AtLeastOnce(7), true)), of(7, true, 2));
}

#[test]
fn a_stop_after_which_nothing_comes_again_is_told_from_one_that_leaves_something() {
    for stores in [true, false] {
        let mut bench = Bench::connected();
        let ack = bench.deliver(Qos::AtLeastOnce(7));
        bench.on(Event::StopAsked);
        if stores {
            bench.store(&[ack]);
        }
        let commands = bench.on(Event::IntakeDone);
        assert!(leaves(&commands) && ends(&commands), "{commands:?}");
        assert_eq!(has(&commands, |one| matches!(one, Command::Settle)), stores);
    }
    // What an earlier connection has brought may come again until something new has come.
    for is_new in [false, true] {
        let mut bench = Bench::connected();
        let ack = bench.deliver(Qos::AtLeastOnce(7));
        bench.store(&[ack]);
        bench.lose();
        bench.reconnect();
        if is_new {
            let ack = bench.deliver(Qos::AtLeastOnce(8));
            bench.store(&[ack]);
        }
        bench.on(Event::StopAsked);
        let commands = bench.on(Event::IntakeDone);
        assert_eq!(has(&commands, |one| matches!(one, Command::Settle)), is_new);
    }
    // To leave for a while is no end.
    let mut bench = Bench::connected();
    assert!(!has(&bench.on(full()), |one| matches!(one, Command::Settle)));
}
