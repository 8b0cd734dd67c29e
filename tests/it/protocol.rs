//! What MQTT 3.1.1 lets a broker send, beyond messages of QoS 1.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::wire::{Packet, Stream};
use crate::harness::{
    Mosquitto, PATIENCE, Postgres, ScriptedBroker, Service, eventually_eq, reading, readings,
};

const TOPIC: &[u8] = b"telemetry/x";

fn payload(number: u64) -> String {
    reading(number).payload()
}

#[test]
fn a_message_of_qos_2_is_stored_once_with_pubrec_after_the_sync_and_pubcomp_after_pubrel() {
    const SLOWNESS: Duration = Duration::from_millis(400);
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let inject = format!("fdatasync:delay_exit={}", SLOWNESS.as_micros());
    let ingestor = service.start_tampered(&inject);
    let mut link = broker.accept(false);
    let delivered = Instant::now();
    assert!(link.say(&Packet::message(2, 7, false, TOPIC, &payload(0))));
    assert_eq!(link.answers(1), [Packet::PubRec { id: 7 }]);
    let waited = delivered.elapsed();
    assert!(waited >= SLOWNESS, "PUBREC after {waited:?}, before the sync ended");
    link.say(&Packet::message(2, 8, false, TOPIC, "not a reading"));
    assert_eq!(link.answers(1), [Packet::PubRec { id: 8 }]);
    // The PUBRECs did not arrive, as the broker sees it.
    drop(link);
    let mut link = broker.accept(true);
    link.say(&Packet::message(2, 7, true, TOPIC, &payload(0)));
    link.say(&Packet::message(2, 8, true, TOPIC, "not a reading"));
    link.say(&Packet::PubRel { id: 7 });
    link.say(&Packet::PubRel { id: 8 });
    let [seventh, eighth] = [7, 8];
    let expected = [
        Packet::PubRec { id: seventh },
        Packet::PubRec { id: eighth },
        Packet::PubComp { id: seventh },
        Packet::PubComp { id: eighth },
    ];
    assert_eq!(link.answers(4), expected);
    postgres.await_exactly(&readings(0..1));
    assert_eq!(ingestor.metric("ingestor_dead_letters"), 1);
    assert_eq!(ingestor.metric("ingestor_duplicates_total"), 0, "it was stored again");
}

#[test]
fn a_pubrel_that_an_earlier_client_has_left_is_answered_and_costs_no_connection() {
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let _ingestor = Service::new(&postgres.url(), broker.port).start();
    let mut link = broker.accept(true);
    link.say(&Packet::PubRel { id: 77 });
    link.say(&Packet::message(1, 1, false, TOPIC, &payload(0)));
    assert_eq!(link.answers(2), [Packet::PubComp { id: 77 }, Packet::PubAck { id: 1 }]);
    postgres.await_exactly(&readings(0..1));
}

#[test]
fn answers_that_nothing_of_ours_has_asked_for_cost_no_connection() {
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let _ingestor = Service::new(&postgres.url(), broker.port).start();
    let mut link = broker.accept(true);
    for packet in [
        Packet::PubAck { id: 3 },
        Packet::PubComp { id: 4 },
        Packet::SubAck { id: 900, granted: vec![0x80] },
        Packet::UnsubAck { id: 901 },
        Packet::PingResp,
        Packet::PubRec { id: 5 },
    ] {
        assert!(link.say(&packet));
    }
    link.say(&Packet::message(1, 1, false, TOPIC, &payload(0)));
    assert_eq!(link.answers(2), [Packet::PubRel { id: 5 }, Packet::PubAck { id: 1 }]);
    postgres.await_exactly(&readings(0..1));
}

#[test]
fn what_cannot_be_a_topic_is_a_dead_letter_and_acknowledged_in_its_turn() {
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let ingestor = service.start();
    let mut link = broker.accept(false);
    let topics: [(&[u8], &str, &str); 4] = [
        (b"telemetry/\xff\xfe", "telemetry/\u{fffd}\u{fffd}", "UTF-8"),
        (b"", "", "empty"),
        (b"telemetry/a\0b", "telemetry/a\0b", "null"),
        (b"telemetry/+", "telemetry/+", "wildcard"),
    ];
    let mut expected = Vec::new();
    for (id, (topic, ..)) in (1..).step_by(2).zip(topics) {
        link.say(&Packet::message(1, id, false, TOPIC, &payload(id.into())));
        link.say(&Packet::message(1, id + 1, false, topic, &payload(1_000)));
        expected.extend([Packet::PubAck { id }, Packet::PubAck { id: id + 1 }]);
    }
    assert_eq!(link.answers(expected.len()), expected);
    let letters = service.dead_letters();
    assert_eq!(letters.len(), topics.len());
    for (letter, (_, shown, why)) in letters.iter().zip(topics) {
        assert_eq!(letter.topic, shown);
        assert_eq!(letter.stage, "decode");
        assert!(letter.reason.contains(why), "{letter:?}");
        assert_eq!(letter.payload_text(), payload(1_000));
    }
    let name = "ingestor_rejections_total{reason=\"invalid_topic\"}";
    assert_eq!(ingestor.metric(name), 4);
    let good: Vec<_> = [1, 3, 5, 7].map(reading).into();
    postgres.await_exactly(&good);
}

/// A client of the test's own on a real broker.
fn connect(port: u16, client_id: &str, clean_session: bool) -> Stream {
    let mut stream = Stream::new(TcpStream::connect(("127.0.0.1", port)).unwrap()).unwrap();
    let (client_id, keep_alive) = (client_id.to_owned(), 60);
    stream.send(&Packet::Connect { client_id, clean_session, keep_alive }).unwrap();
    let answer = stream.next(PATIENCE).unwrap();
    assert!(matches!(answer, Some(Packet::ConnAck { .. })), "{answer:?}");
    stream
}

#[test]
fn what_mosquitto_has_queued_with_qos_2_for_an_older_client_is_received() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut older = connect(broker.port, "test-ingestor", false);
    // With QoS 2, which the ingestor never asks for.
    let filter = b"telemetry/#";
    let mut subscribe = vec![0x82, u8::try_from(filter.len() + 5).unwrap(), 0, 1];
    subscribe.extend([0, u8::try_from(filter.len()).unwrap()]);
    subscribe.extend(filter);
    subscribe.push(2);
    older.send(&Packet::Raw(subscribe)).unwrap();
    let granted = older.next(PATIENCE).unwrap();
    assert_eq!(granted, Some(Packet::SubAck { id: 1, granted: vec![2] }));
    older.send(&Packet::Disconnect).unwrap();
    drop(older);

    let mut device = connect(broker.port, "device", true);
    for id in 1..=30 {
        device.send(&Packet::message(2, id, false, TOPIC, &payload(id.into()))).unwrap();
        assert_eq!(device.next(PATIENCE).unwrap(), Some(Packet::PubRec { id }));
        device.send(&Packet::PubRel { id }).unwrap();
        assert_eq!(device.next(PATIENCE).unwrap(), Some(Packet::PubComp { id }));
    }
    let ingestor = Service::new(&postgres.url(), broker.port).start();
    postgres.await_exactly(&readings(1..31));
    eventually_eq("all are acknowledged", &30, || ingestor.metric("ingestor_acks_total"));
    assert_eq!(ingestor.metric("ingestor_mqtt_reconnects_total"), 0);
    ingestor.stop();
    // Nothing of it is left at the broker.
    let ingestor = Service::new(&postgres.url(), broker.port).start();
    eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
    assert_eq!(ingestor.metric("ingestor_messages_total"), 0);
}

#[test]
fn a_message_far_too_long_is_a_letter_that_tells_its_length_and_takes_no_memory() {
    const LENGTH: usize = 50_000_000;
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    let ingestor = service.start();
    let mut link = broker.accept(true);
    link.say(&Packet::message(1, 1, false, TOPIC, &payload(0)));
    // The end of one comes with the beginning of the next.
    for id in 2..5 {
        link.say(&Packet::message(1, id, false, TOPIC, &"x".repeat(LENGTH)));
    }
    link.say(&Packet::message(1, 5, false, TOPIC, &payload(1)));
    let acks: Vec<_> = (1..6).map(|id| Packet::PubAck { id }).collect();
    assert_eq!(link.answers(5), acks);
    let letters = service.dead_letters();
    assert_eq!(letters.len(), 3);
    for letter in letters {
        assert!(letter.reason.contains("50000000 bytes"), "{}", letter.reason);
        assert_eq!((letter.topic.as_bytes(), letter.payload.len()), (TOPIC, 65_536));
    }
    let peak = ingestor.peak_memory();
    assert!(peak <= 64 << 20, "{peak} bytes");
}

#[test]
fn a_suback_without_codes_or_with_one_that_mqtt_3_does_not_know_costs_no_connection() {
    for codes in [vec![], vec![0x87], vec![0x80, 1, 1]] {
        let broker = ScriptedBroker::start();
        let ingestor = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port).start();
        let mut link = broker.accept_granting(false, &[0x80]);
        let mut suback = vec![0x90, u8::try_from(codes.len()).unwrap() + 2, 0, 2];
        suback.extend(codes);
        link.grant(&[1]);
        link.say(&Packet::Raw(suback));
        eventually_eq("it is not ready", &503, || ingestor.get("/health/ready").status);
        link.serve_until("it asks again", |link| link.filters.len() >= 2);
        eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
        assert_eq!(ingestor.metric("ingestor_mqtt_reconnects_total"), 0);
    }
}
