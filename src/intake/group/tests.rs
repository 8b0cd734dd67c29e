use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::base::properties::seeded;
use crate::base::settings::Sources;
use crate::intake::queue::{AckToken, Packet};
use crate::telemetry::admit::MappedTopics;
use crate::telemetry::mapping::{Mappings, OwnTopics};
use crate::telemetry::validate::Rules;

const GOOD: &str = r#"{"device_id":"a","timestamp":"2025-10-05T12:34:56Z","temperature":1,"humidity":2,"battery":3}"#;

fn admission() -> Admission {
    let rules = Rules::read(&mut Sources::new(BTreeMap::new(), ""));
    Admission { max_payload_bytes: 65_536, rules, mapped: None }
}

fn clock() -> TimeOfDay {
    TimeOfDay::at(Timestamp::from_rfc3339("2030-01-01T00:00:00Z").unwrap())
}

fn delivery(position: u16, payload: impl Into<Bytes>) -> Inbound {
    Inbound::Message(Delivery {
        topic: format!("telemetry/{position}").as_str().into(),
        payload: payload.into(),
        is_retained: false,
        omitted: 0,
        received_at: Timestamp::from_micros(i64::from(position)).unwrap(),
        packet: None,
        ack: AckToken { epoch: 1, position: Some(position.into()) },
        budget: None,
    })
}

fn replay() -> Inbound {
    let readings = admission().admit_all(GOOD.as_bytes(), clock()).unwrap();
    let readings = readings.into_iter().map(Record::from).collect();
    Inbound::Replay(Replay { readings, is_new: false, done: oneshot::channel().0 })
}

fn gather(inbound: Vec<Inbound>) -> Group {
    Group::gather(
        &mut inbound.into_iter().peekable(),
        &admission(),
        clock(),
        &mut Arrivals::default(),
    )
}

/// What a group asked for, in its order.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    steps: Vec<&'static str>,
    letters: Vec<(String, String)>,
    rejected: u64,
    readings: usize,
    told: Vec<u64>,
}

/// Answers the steps of `group` with `outcomes`, then with success.
fn carry_out(mut group: Group, outcomes: &[Outcome]) -> Asked {
    let mut asked = Asked::default();
    let mut outcomes = outcomes.iter().copied();
    let positions = |deliveries: &[Delivery]| {
        deliveries.iter().filter_map(|delivery| delivery.ack.position).collect()
    };
    loop {
        match group.step() {
            Step::StoreLetters { messages, rejected } => {
                asked.steps.push("letters");
                asked.rejected = rejected.total();
                for message in messages {
                    let letter =
                        |part: &RejectedPart| (message.topic.to_owned(), part.reason.clone());
                    asked.letters.extend(message.parts.iter().map(letter));
                }
            }
            Step::Commit { readings, .. } => {
                asked.steps.push("commit");
                asked.readings = readings.count();
            }
            Step::Acknowledge { deliveries, .. } => {
                asked.steps.push("acknowledge");
                asked.told = positions(deliveries);
                return asked;
            }
            Step::GiveUp { deliveries, .. } => {
                asked.steps.push("give up");
                asked.told = positions(deliveries);
                return asked;
            }
            Step::Stop => {
                asked.steps.push("stop");
                return asked;
            }
        }
        group.heard(outcomes.next().unwrap_or(Outcome::Durable));
    }
}

#[test]
fn letters_come_before_the_commit_and_acks_behind_both_in_the_order_of_receipt() {
    let group = gather(vec![delivery(7, GOOD), delivery(3, "{"), replay(), delivery(5, GOOD)]);
    let asked = carry_out(group, &[]);
    assert_eq!(asked.steps, ["letters", "commit", "acknowledge"]);
    assert_eq!((asked.told, asked.readings), (vec![7, 3, 5], 3));
    assert_eq!(asked.letters.len(), 1);
    assert_eq!(asked.letters[0].0, "telemetry/3");
}

#[test]
fn what_needs_no_disk_is_not_written_to_it() {
    assert_eq!(carry_out(gather(vec![delivery(1, GOOD)]), &[]).steps, ["commit", "acknowledge"]);
    assert_eq!(carry_out(gather(vec![delivery(1, "7")]), &[]).steps, ["letters", "acknowledge"]);
}

#[test]
fn after_a_failure_nothing_is_acknowledged_and_nothing_tried_again() {
    let group = || gather(vec![delivery(1, GOOD), delivery(2, "{")]);
    let asked = carry_out(group(), &[Outcome::Failed]);
    assert_eq!((asked.steps, asked.told), (vec!["letters", "stop"], vec![]));
    let asked = carry_out(group(), &[Outcome::Durable, Outcome::Failed]);
    assert_eq!((asked.steps, asked.told), (vec!["letters", "commit", "stop"], vec![]));
}

#[test]
fn a_full_disk_gives_the_whole_group_up_and_writes_no_more_of_it() {
    let group = || gather(vec![delivery(1, GOOD), delivery(2, "{")]);
    let asked = carry_out(group(), &[Outcome::DiskFull]);
    assert_eq!((asked.steps, asked.told), (vec!["letters", "give up"], vec![1, 2]));
    let asked = carry_out(group(), &[Outcome::Durable, Outcome::DiskFull]);
    assert_eq!((asked.steps, asked.told), (vec!["letters", "commit", "give up"], vec![1, 2]));
}

#[test]
fn while_the_log_is_full_nothing_is_stored() {
    let inbound = vec![delivery(1, GOOD), replay(), delivery(2, "{")];
    let asked = carry_out(Group::refused(inbound.into_iter(), &mut Arrivals::default()), &[]);
    assert_eq!((asked.steps, asked.told), (vec!["give up"], vec![1, 2]));
}

#[test]
fn a_settled_group_stays_settled_whatever_is_heard() {
    let mut group = gather(vec![delivery(1, GOOD)]);
    assert!(matches!(group.step(), Step::Commit { .. }));
    group.heard(Outcome::Failed);
    group.heard(Outcome::Durable);
    assert!(matches!(group.step(), Step::Stop));
}

#[test]
fn a_group_ends_before_its_bytes_do_and_a_larger_message_comes_alone() {
    let padded = |bytes: usize| GOOD.to_owned() + &" ".repeat(bytes - GOOD.len());
    let third = padded(GROUP_BYTES / 3);
    let large = padded(GROUP_BYTES + 1);
    let admission = Admission { max_payload_bytes: usize::MAX, ..admission() };
    let inbound = [&third, &third, &third, &large, &third].map(Clone::clone);
    let mut waiting = (0..).zip(inbound).map(|(id, p)| delivery(id, p)).peekable();
    let mut groups = Vec::new();
    while waiting.peek().is_some() {
        groups.push(
            Group::gather(&mut waiting, &admission, clock(), &mut Arrivals::default())
                .deliveries
                .len(),
        );
    }
    // The topics count as well.
    assert_eq!(groups, [2, 1, 1, 1]);
}

#[test]
fn a_message_whose_topic_is_none_is_one_letter_and_acknowledged() {
    let Inbound::Message(mut delivery) = delivery(1, GOOD) else { unreachable!() };
    delivery.topic = Bytes::from_static(b"telemetry/\xff").into();
    let asked = carry_out(gather(vec![Inbound::Message(delivery)]), &[]);
    assert_eq!(asked.steps, ["letters", "acknowledge"]);
    let letter = ("telemetry/\u{fffd}".to_owned(), "the topic is not UTF-8".to_owned());
    assert_eq!((asked.letters, asked.told), (vec![letter], vec![1]));
}

#[test]
fn of_a_message_full_of_rejected_readings_a_hundred_are_letters_and_one_more_counts_the_rest() {
    let payload = format!("[{}{}{GOOD}]", "0,".repeat(150), "{},".repeat(17));
    let whole = payload.clone();
    let mut group = gather(vec![delivery(1, payload), delivery(2, "[1,2]")]);
    let Step::StoreLetters { messages, rejected } = group.step() else { panic!("no letters") };
    let [first, second] = messages[..] else { panic!("{} messages", messages.len()) };
    assert_eq!((first.parts.len(), second.parts.len()), (LETTERS_A_MESSAGE + 1, 2));
    assert_eq!(rejected.total(), 150 + 17 + 2);
    let part = |at: usize| &first.payload[first.parts[at].range.clone()];
    assert_eq!((part(99), part(LETTERS_A_MESSAGE)), (&b"0"[..], whole.as_bytes()));
    assert_eq!(
        first.parts[LETTERS_A_MESSAGE].reason,
        "67 more readings of this message were rejected (50 not_an_object, 17 missing_field); the whole message is kept here"
    );
}

const MAPPINGS: &str = "
[[default.mapping]]
name = \"m\"
topic = \"telemetry/{d}\"
each = \"[*]\"
device = \"{d}\"
time = { path = \"t\", format = \"s\" }
fields = { a = { max = 5 } }
";

#[test]
fn a_mapped_message_is_one_letter_and_its_good_elements_are_records() {
    let mut from = Sources::new(BTreeMap::new(), MAPPINGS);
    let mappings = Mappings::read(&mut from);
    let mapped = Some(Arc::new(MappedTopics { mappings, own: OwnTopics::new(&[]) }));
    let admission = Admission { mapped, ..admission() };
    let good = r#"{"a":1,"t":1759667696}"#;
    let hot = good.replace("\"a\":1", "\"a\":9");
    let inbound = vec![
        delivery(7, format!("[{good},{hot},{good},{hot}]")),
        delivery(8, "{}"),
        delivery(9, ""),
    ];
    let mut group = Group::gather(
        &mut inbound.into_iter().peekable(),
        &admission,
        clock(),
        &mut Arrivals::default(),
    );
    let Step::StoreLetters { messages, .. } = group.step() else { panic!("no letters") };
    let told: Vec<_> = messages
        .iter()
        .map(|message| (message.parts.len(), message.parts[0].range.len(), message.is_unmatched))
        .collect();
    assert_eq!(told, [(1, messages[0].payload.len(), false), (1, 2, true)]);
    let reason = &messages[0].parts[0].reason;
    assert!(reason.starts_with("mapping \"m\", field \"a\""), "{reason}");
    assert!(reason.ends_with(" in elements 1, 3"), "{reason}");
    group.heard(Outcome::Durable);
    let Step::Commit { readings, .. } = group.step() else { panic!("no records") };
    assert_eq!(
        readings.map(|(_, record)| record.device_id().to_owned()).collect::<Vec<_>>(),
        ["7", "7"]
    );
    group.heard(Outcome::Durable);
    let Step::Acknowledge { deliveries, mapped, .. } = group.step() else { panic!("no ack") };
    assert_eq!(deliveries.len(), 3);
    let counts: Vec<_> = mapped.counts().collect();
    assert_eq!(counts, [(0, "stored", 2), (0, "rejected", 2), (0, "ignored", 1)]);
    let topics: Vec<_> = mapped.unmapped.iter().collect();
    assert_eq!(topics, [("telemetry/8", 1, ())]);
    let (_, taken) = mapped.taken().next().unwrap();
    assert_eq!((taken.messages, taken.qos0_messages), (1, 0));
    let reason = taken.last_reason.as_ref().unwrap();
    assert!(reason.starts_with("mapping \"m\", field \"a\""), "{reason}");
    let refusals: Vec<_> = mapped.refusals().collect();
    assert_eq!(refusals, [((Some(0), Reason::ValueOutOfRange), 2), ((None, Reason::NoMapping), 1)]);
}

#[test]
fn a_flood_of_rejected_readings_is_cut_into_small_groups() {
    let flood = format!("[{}0]", "0,".repeat(30_000));
    let long = vec![b'x'; 60_000];
    let mut waiting = (0..20)
        .map(|id| delivery(id, flood.clone()))
        .chain((0..20).map(|id| delivery(id, long.clone())))
        .peekable();
    let mut groups = Vec::new();
    while waiting.peek().is_some() {
        groups.push(
            Group::gather(&mut waiting, &admission(), clock(), &mut Arrivals::default())
                .deliveries
                .len(),
        );
    }
    assert_eq!(groups, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 9, 9, 2]);
}

fn payload() -> impl Strategy<Value = (String, usize, usize)> {
    // As text, with how many readings of it are good and bad.
    prop_oneof![
        Just((GOOD.to_owned(), 1, 0)),
        Just(("{".to_owned(), 0, 1)),
        (0_usize..4, 0_usize..130).prop_map(|(good, bad)| {
            let elements = std::iter::repeat_n(GOOD, good);
            let elements: Vec<_> = elements.chain(std::iter::repeat_n("0", bad)).collect();
            let is_empty = good + bad == 0;
            (format!("[{}]", elements.join(",")), good, bad + usize::from(is_empty))
        }),
    ]
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn a_group_is_acknowledged_if_and_only_if_every_reading_of_it_is_durable(
        payloads in prop::collection::vec(payload(), 1..20),
        outcomes in prop::collection::vec(
            prop_oneof![
                3 => Just(Outcome::Durable),
                1 => Just(Outcome::DiskFull),
                1 => Just(Outcome::Failed),
            ],
            2,
        ),
    ) {
        let good: usize = payloads.iter().map(|(_, good, _)| good).sum();
        let bad: usize = payloads.iter().map(|(_, _, bad)| bad).sum();
        let of_one = |bad: usize| bad.min(LETTERS_A_MESSAGE) + usize::from(bad > LETTERS_A_MESSAGE);
        let letters: usize = payloads.iter().map(|(_, _, bad)| of_one(*bad)).sum();
        let ids: Vec<u16> = (0..).take(payloads.len()).collect();
        let inbound = ids.iter().zip(payloads).map(|(id, (text, ..))| delivery(*id, text));
        let asked = carry_out(gather(inbound.collect()), &outcomes);

        let needed = usize::from(bad > 0) + usize::from(good > 0);
        let heard = &outcomes[..needed];
        let last = *asked.steps.last().unwrap();
        let failure = heard.iter().find(|outcome| **outcome != Outcome::Durable);
        match failure {
            None => {
                prop_assert_eq!(last, "acknowledge");
                prop_assert_eq!(asked.readings, good);
                prop_assert_eq!(asked.letters.len(), letters);
                prop_assert_eq!(asked.rejected, bad as u64);
            }
            Some(Outcome::DiskFull) => prop_assert_eq!(last, "give up"),
            Some(_) => prop_assert_eq!(last, "stop"),
        }
        let told = if last == "stop" { Vec::new() } else { ids };
        let told: Vec<u64> = told.into_iter().map(u64::from).collect();
        prop_assert_eq!(asked.told, told);
    }
}

#[test]
fn a_group_ends_once_it_has_many_readings_however_few_bytes_brought_them() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let row = r#"{"a":1},"#.repeat(30_000);
    std::io::Write::write_all(&mut packed, format!("[{}]", row.trim_end_matches(',')).as_bytes())
        .unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 2_000, "{} bytes", packed.len());
    let messages = (1..=9).map(|id| {
        let Inbound::Message(delivery) = delivery(id, packed.clone()) else { unreachable!() };
        Inbound::Message(Delivery { topic: "a/d".into(), ..delivery })
    });
    let admission = mapped();
    let mut messages = messages.collect::<Vec<_>>().into_iter().peekable();
    let mut arrivals = Arrivals::default();
    let group = Group::gather(&mut messages, &admission, clock(), &mut arrivals);
    assert_eq!((group.len(), group.readings.len()), (3, 90_000));
    assert_eq!(messages.count(), 6);
}

const BY_ARRIVAL: &str = "
[[default.mapping]]
name = \"arrival\"
topic = \"a/{d}\"
each = \"[*]\"
device = \"{d}\"
time = { path = \"t\", format = \"s\", fallback = \"received\" }
fields = { a = { max = 9 } }
";

fn by_arrival(id: u16, is_again: bool, payload: &str) -> Inbound {
    let Inbound::Message(mut delivery) = delivery(id, payload.to_owned()) else { unreachable!() };
    delivery.topic = "a/d".into();
    delivery.packet = Some(Packet { id, is_again, session: 0 });
    Inbound::Message(delivery)
}

fn mapped() -> Admission {
    let mut from = Sources::new(BTreeMap::new(), BY_ARRIVAL);
    let mappings = Mappings::read(&mut from);
    from.finish().unwrap();
    let mapped = MappedTopics { mappings, own: OwnTopics::new(&["telemetry/#".to_owned()]) };
    Admission { mapped: Some(Arc::new(mapped)), ..admission() }
}

/// The times of the readings that a group brings into the log, and the receipts beside them.
fn appended(inbound: Vec<Inbound>, arrivals: &mut Arrivals) -> (Vec<i64>, Vec<(usize, u16, i64)>) {
    let admission = mapped();
    let mut inbound = inbound.into_iter().peekable();
    let mut group = Group::gather(&mut inbound, &admission, clock(), arrivals);
    loop {
        match group.step() {
            Step::StoreLetters { .. } => {}
            Step::Commit { readings, receipts } => {
                let times = readings.map(|(_, record)| record.timestamp().as_micros()).collect();
                let receipt = |(at, receipt): (usize, Receipt)| {
                    (at, receipt.packet_id, receipt.time.as_micros())
                };
                return (times, receipts.into_iter().map(receipt).collect());
            }
            _ => return Default::default(),
        }
        group.heard(Outcome::Durable);
    }
}

#[test]
fn readings_by_arrival_go_into_the_log_with_the_receipt_of_their_message() {
    let mut arrivals = Arrivals::default();
    let first = || {
        vec![
            by_arrival(7, false, r#"[{"a":1},{"a":2,"t":1759667696},{"a":3}]"#),
            delivery(8, GOOD),
            by_arrival(9, false, r#"[{"a":1}]"#),
        ]
    };
    let (times, receipts) = appended(first(), &mut arrivals);
    let own = 1_759_667_696_000_000;
    assert_eq!((times[0], times[1], times[2]), (7, own, 9));
    // The first that is free behind it.
    assert_eq!(times[4], 10);
    assert_eq!(receipts, [(0, 7, 7), (2, 7, 7), (4, 9, 10)]);
    let again = vec![
        by_arrival(7, true, r#"[{"a":1},{"a":2,"t":1759667696},{"a":3}]"#),
        by_arrival(9, true, r#"[{"a":1}]"#),
    ];
    let (times, receipts) = appended(again, &mut arrivals);
    assert_eq!(times, [7, own, 9, 10]);
    assert_eq!(receipts, [(0, 7, 7), (2, 7, 7), (3, 9, 10)]);
}

#[test]
fn a_message_that_is_kept_as_a_letter_keeps_the_times_that_its_readings_may_get() {
    let mut arrivals = Arrivals::default();
    // Only the second is good, and the last two are known when the letter is replayed.
    appended(vec![by_arrival(1, false, r#"[{"a":10},{"a":2},{"a":10},{"a":10}]"#)], &mut arrivals);
    let (times, _) = appended(vec![by_arrival(2, false, r#"[{"a":1}]"#)], &mut arrivals);
    assert_eq!(times, [5]);
    // One that comes again, and is kept again, keeps the same.
    let bad = |is_again| vec![by_arrival(3, is_again, r#"[{"a":10}]"#)];
    appended(bad(false), &mut arrivals);
    appended(bad(true), &mut arrivals);
    let (times, _) = appended(vec![by_arrival(2, false, r#"[{"a":1}]"#)], &mut arrivals);
    assert_eq!(times, [7]);
    // Of a binary format as many as its bytes, of what is packed many; of what cannot be replayed, none.
    appended(vec![unreadable(&[0xff; 5])], &mut arrivals);
    appended(vec![unreadable(&[0x1f, 0x8b, 8])], &mut arrivals);
    appended(vec![unreadable(&[0xff; PAYLOAD_MAX_BYTES + 1])], &mut arrivals);
    let (times, _) = appended(vec![by_arrival(2, false, r#"[{"a":1}]"#)], &mut arrivals);
    assert_eq!(times, [1_013]);
    // One that is left to the broker ends what its packet id stood for.
    Group::refused(vec![by_arrival(2, false, r#"[{"a":1}]"#)].into_iter(), &mut arrivals);
    let (times, _) = appended(vec![by_arrival(2, true, r#"[{"a":1}]"#)], &mut arrivals);
    assert_eq!(times, [1_014]);
}

/// What no mapping of any format can be meant by.
fn unreadable(payload: &[u8]) -> Inbound {
    let Inbound::Message(delivery) = by_arrival(4, false, "") else { unreachable!() };
    Inbound::Message(Delivery { payload: payload.to_vec().into(), ..delivery })
}

#[test]
fn a_flood_of_what_is_rejected_moves_the_times_of_others_by_little_more_than_ten_seconds() {
    let commas = ",".repeat(2_000);
    let admission = mapped();
    for payload in [&[0xff; 2_000][..], &[0x1f, 0x8b, 8], commas.as_bytes()] {
        let mut arrivals = Arrivals::default();
        let mut flood = (0..15_000).map(|_| unreadable(payload)).peekable();
        while flood.peek().is_some() {
            Group::gather(&mut flood, &admission, clock(), &mut arrivals);
        }
        // Each still has a time of its own.
        let (times, _) = appended(vec![by_arrival(2, false, r#"[{"a":1}]"#)], &mut arrivals);
        let lead = times[0] - 2;
        assert!((10_000_000..10_010_000).contains(&lead), "{lead} µs ahead");
        // The clock catches up, and there are times for letters again.
        let later = |payload: &[u8], seconds: i64| {
            let Inbound::Message(delivery) = unreadable(payload) else { unreachable!() };
            let received_at = Timestamp::from_micros(seconds * 1_000_000).unwrap();
            Inbound::Message(Delivery { received_at, ..delivery })
        };
        appended(vec![later(payload, 20)], &mut arrivals);
        let (times, _) = appended(vec![later(br#"[{"a":1}]"#, 20)], &mut arrivals);
        assert_eq!(times, [20_001_000]);
    }
}
