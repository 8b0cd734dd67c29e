//! When a PUBACK leaves, seen on the wire by a broker that is the test itself.

use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::{
    PATIENCE, Postgres, ScriptedBroker, Service, eventually, random, reading, readings,
};

const TOPIC: &str = "telemetry/x";

fn payload(number: u64) -> String {
    reading(number).payload()
}

/// How many syncs of the service strace has seen return.
fn syncs(service: &Service) -> usize {
    let log = std::fs::read_to_string(service.strace_log()).unwrap_or_default();
    log.lines().filter(|line| line.contains("fdatasync") && line.contains(" = ")).count()
}

#[test]
fn no_puback_leaves_before_what_it_acknowledges_is_synced() {
    const SLOWNESS: Duration = Duration::from_millis(400);
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let inject = format!("fdatasync:delay_exit={}", SLOWNESS.as_micros());
    let _ingestor = service.start_tampered(&inject);
    let mut link = broker.accept(false);
    let rejected = "not a reading";
    let mixed = format!("[{},{{}},{}]", payload(1), payload(2));
    for (id, message) in [(1, payload(0)), (2, rejected.to_owned()), (3, mixed)] {
        let delivered = Instant::now();
        assert!(link.deliver(id, TOPIC, message.clone()));
        assert_eq!(link.ack(PATIENCE), Some(id));
        let waited = delivered.elapsed();
        assert!(waited >= SLOWNESS, "PUBACK after {waited:?}, before the sync ended: {message}");
    }
    postgres.await_exactly(&readings(0..3));
}

#[test]
fn a_commit_that_fails_sends_no_puback_and_ends_the_process() {
    const GOOD_SYNCS: usize = 4;
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    // Slowly: what is sent too early is on the wire before the process can end.
    let inject = format!("fdatasync:error=EIO:delay_enter=300000:when={}+", GOOD_SYNCS + 1);
    let mut ingestor = service.start_tampered(&inject);
    let mut link = broker.accept(false);
    let mut delivered: u16 = 0;
    while syncs(&service) < GOOD_SYNCS {
        assert!(usize::from(delivered) < 10 * GOOD_SYNCS, "acknowledged without a sync");
        assert!(link.deliver(delivered + 1, TOPIC, payload(delivered.into())));
        delivered += 1;
        assert_eq!(link.ack(PATIENCE), Some(delivered));
    }
    let acked = delivered;
    assert!(acked > 0);
    // From now on nothing can be made durable, however many come at once.
    for _ in 0..50 {
        link.deliver(delivered + 1, TOPIC, payload(delivered.into()));
        delivered += 1;
    }
    assert!(link.acks_until_closed().is_empty(), "a PUBACK for what was not committed");
    assert_eq!(ingestor.await_exit(PATIENCE), 1);
    let reports = ingestor.await_log_of("a part of the service failed");
    assert!(!reports.is_empty(), "the log does not say why it ended");

    // What was not acknowledged is delivered again, to a process whose disk works.
    let _ingestor = service.start();
    let mut link = broker.accept(true);
    for number in acked..delivered {
        assert!(link.send(Some(number + 1), true, TOPIC, payload(number.into())));
    }
    let ids: Vec<u16> = (acked + 1..=delivered).collect();
    assert_eq!(link.acks(ids.len()), ids);
    postgres.await_exactly(&readings(0..delivered.into()));
}

#[test]
fn after_a_commit_that_failed_readiness_says_so_until_the_process_has_ended() {
    let broker = ScriptedBroker::start();
    // It lets in and says nothing, so that the flusher takes its time to end.
    let database = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("postgres://iot:x@{}/iotdb", database.local_addr().unwrap());
    let service = Service::new(&url, broker.port)
        .set("DATABASE_CONNECT_TIMEOUT_SECS", 60)
        .set("SHUTDOWN_GRACE_SECS", 4);
    let mut ingestor = service.start_tampered("fdatasync:error=EIO:when=1+");
    let mut link = broker.accept(false);
    assert!(link.deliver(1, TOPIC, payload(0)));
    eventually("readiness says that the log has failed", || {
        let health = ingestor.try_get("/health/ready").ok()?;
        (health.status == 503 && health.json()["wal"] == "failed").then_some(())
    });
    while let Ok(health) = ingestor.try_get("/health/ready") {
        assert_eq!(health.status, 503);
        assert_eq!(
            (&health.json()["status"], &health.json()["wal"]),
            (&"not_ready".into(), &"failed".into())
        );
    }
    assert_eq!(ingestor.await_exit(PATIENCE), 1);
    assert!(link.acks_until_closed().is_empty());
}

#[test]
fn a_dead_letter_that_cannot_be_written_sends_no_puback_either() {
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start_tampered("fdatasync:error=EIO:delay_enter=300000:when=1+");
    let mut link = broker.accept(false);
    assert!(link.deliver(1, TOPIC, "not a reading"));
    assert!(link.acks_until_closed().is_empty());
    assert_eq!(ingestor.await_exit(PATIENCE), 1);

    let ingestor = service.start();
    let mut link = broker.accept(true);
    assert!(link.send(Some(1), true, TOPIC, "not a reading"));
    assert_eq!(link.acks(1), [1]);
    assert!(ingestor.metric("ingestor_dead_letters") >= 1);
}

#[test]
fn pubacks_leave_in_the_order_of_receipt_those_of_rejected_messages_among_them() {
    const MESSAGES: u16 = 3_000;
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    // The order of packet ids means nothing: they come in one that no counting gives.
    let id = |n: u32| u16::try_from(n * 7_919 % 65_521 + 1).unwrap();
    let ids: Vec<u16> = (0..MESSAGES.into()).map(id).collect();
    let mut stored = Vec::new();
    for (number, id) in (0..).zip(&ids) {
        let message = match number % 5 {
            1 => "{}".to_owned(),
            3 => format!("[{},0]", payload(number)),
            _ => payload(number),
        };
        if number % 5 != 1 {
            stored.push(reading(number));
        }
        assert!(link.deliver(*id, TOPIC, message));
    }
    assert_eq!(link.acks(ids.len()), ids);
    postgres.await_exactly(&stored);
    ingestor.await_metric("ingestor_acks_total", MESSAGES.into());
    assert_eq!(ingestor.metric("ingestor_acks_total"), u64::from(MESSAGES));
}

#[test]
fn an_ack_that_comes_late_does_not_reach_the_next_connection() {
    const SLOWNESS: Duration = Duration::from_millis(1_500);
    const FIRST: u16 = 40;
    const SECOND: u16 = 20;
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let inject = format!("fdatasync:delay_exit={}", SLOWNESS.as_micros());
    let mut ingestor = service.start_tampered(&inject);
    let mut link = broker.accept(false);
    for id in 1..=FIRST {
        assert!(link.deliver(id, TOPIC, payload(id.into())));
    }
    ingestor.await_metric("ingestor_messages_total", FIRST.into());
    assert_eq!(link.ack(Duration::ZERO), None, "the commit takes longer than this");
    // Mid-batch: their PUBACKs will be due when there is another connection.
    drop(link);

    let mut link = broker.accept(true);
    let delivered = Instant::now();
    for id in 1..=SECOND {
        assert!(link.deliver(id, TOPIC, payload((1_000 + id).into())));
    }
    // Any sync that covers these began after they were delivered.
    let first_ack = link.ack(PATIENCE);
    let waited = delivered.elapsed();
    assert!(
        waited >= SLOWNESS,
        "PUBACK {first_ack:?} after {waited:?}, meant for the connection before"
    );
    let mut ids = vec![first_ack.expect("no PUBACK")];
    ids.extend(link.acks(usize::from(SECOND) - 1));
    assert_eq!(ids, (1..=SECOND).collect::<Vec<_>>());
    // Those of the first connection were never acknowledged, and come again under other ids.
    for id in 1..=FIRST {
        assert!(link.send(Some(100 + id), true, TOPIC, payload(id.into())));
    }
    assert_eq!(link.acks(FIRST.into()), (101..=100 + FIRST).collect::<Vec<_>>());
    let expected = [readings(1..41), readings(1_001..1_021)].concat();
    postgres.await_exactly(&expected);
    assert_eq!(ingestor.metric("ingestor_redeliveries_total"), u64::from(FIRST));
}

/// The broker numbers messages from 1 on every connection, and forgets a message when its id on
/// that connection is acknowledged, as brokers do. A PUBACK too many is a message lost.
#[test]
fn connections_that_break_mid_batch_and_use_packet_ids_again_lose_nothing() {
    const MESSAGES: u64 = 20_000;
    const CONNECTIONS: usize = 12;
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    // A commit outlives the pause before the next connection, so that acks are often late.
    let _ingestor = service.start_tampered("fdatasync:delay_exit=300000");
    let mut random = random();
    let mut waiting: VecDeque<u64> = (0..MESSAGES).collect();
    let mut rounds = 0;
    while !waiting.is_empty() {
        let mut link = broker.accept(rounds > 0);
        let share = if rounds < CONNECTIONS { 1 + random.usize(..1_500) } else { 10_000 };
        let mut delivered: HashMap<u16, u64> = HashMap::new();
        let mut order = VecDeque::new();
        for (id, number) in (1..).zip(waiting.iter().take(share)) {
            if !link.deliver(id, TOPIC, payload(*number)) {
                break;
            }
            delivered.insert(id, *number);
            order.push_back(id);
        }
        // Breaks after some of the PUBACKs, none at all now and then.
        let wanted = if rounds < CONNECTIONS { random.usize(..=order.len()) } else { order.len() };
        for _ in 0..wanted {
            let Some(id) = link.ack(PATIENCE) else { panic!("no PUBACK in round {rounds}") };
            assert_eq!(Some(id), order.pop_front(), "out of order in round {rounds}");
            let number = delivered.remove(&id).expect("a PUBACK for what was not delivered");
            assert_eq!(waiting.pop_front(), Some(number));
        }
        rounds += 1;
    }
    postgres.await_exactly(&readings(0..MESSAGES));
}

#[test]
fn while_a_commit_hangs_and_the_queue_is_full_the_broker_is_told_that_the_client_lives() {
    const HANG: Duration = Duration::from_secs(20);
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port).set("CHANNEL_SIZE", 1);
    let inject = format!("fdatasync:delay_enter={}:when=1", HANG.as_micros());
    let _ingestor = service.start_tampered(&inject);
    let mut link = broker.accept(false);
    for id in 1..=10 {
        assert!(link.deliver(id, TOPIC, payload(id.into())));
    }
    // Half of the keep-alive that the client has asked for.
    let patience = Duration::from_secs(link.keep_alive.into()) / 2 + Duration::from_secs(3);
    assert!(patience < HANG);
    assert!(link.ping(patience), "no PINGREQ within {patience:?}");
    assert_eq!(link.acks(10), (1..=10).collect::<Vec<_>>());
    postgres.await_exactly(&readings(1..11));
}

#[test]
fn a_message_that_comes_again_is_acknowledged_again_and_stored_once() {
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    for dup in [false, true, true] {
        assert!(link.send(Some(7), dup, TOPIC, payload(0)));
        assert_eq!(link.acks(1), [7]);
    }
    ingestor.await_metric("ingestor_duplicates_total", 2);
    postgres.assert_exactly(&readings(0..1));
    assert_eq!(ingestor.metric("ingestor_redeliveries_total"), 2);
}

#[test]
fn a_message_of_qos_0_is_stored_without_a_puback() {
    let broker = ScriptedBroker::start();
    let postgres = Postgres::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    assert!(link.send(None, false, TOPIC, payload(0)));
    assert!(link.deliver(5, TOPIC, payload(1)));
    assert_eq!(link.acks(1), [5]);
    postgres.await_exactly(&readings(0..2));
    ingestor.await_metric("ingestor_acks_total", 1);
    assert_eq!(ingestor.metric("ingestor_acks_total"), 1, "acks are PUBACKs and nothing else");
}

#[test]
fn a_connection_that_breaks_in_a_dense_stream_is_followed_by_a_whole_one() {
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    let _ingestor = service.start();
    for connection in 0..5 {
        // Which expects a CONNECT of whoever comes.
        let mut link = broker.accept(connection > 0);
        for id in 1..=100 {
            assert!(link.deliver(id, TOPIC, payload(id.into())));
        }
        if connection == 4 {
            assert_eq!(link.acks(100), (1..=100).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_lost_connection_is_retried_at_once_and_then_with_growing_pauses() {
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port)
        .set("RUST_LOG", "info,iot_ingestor=debug");
    let ingestor = service.start();
    // Attempts that fail, so that the next pause would be a long one, and then a session that lasts:
    // time itself is what makes it one that worked.
    for _ in 0..4 {
        broker.accept_and_close();
    }
    let link = broker.accept(false);
    std::thread::sleep(Duration::from_millis(1_200));
    drop(link);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let lost = Instant::now();
        broker.accept_and_close();
        waits.push(lost.elapsed());
    }
    let pauses: Vec<u64> = (ingestor.log().iter())
        .filter(|line| line["target"] == "iot_ingestor::mqtt::report")
        .filter_map(|line| line["retry_in_ms"].as_str()?.parse().ok())
        .collect();
    // That the last has been closed may have been noticed by now, or not yet.
    assert!((8..=9).contains(&pauses.len()), "{pauses:?}");
    // Twice as long each time, half of it up or down, and at most 250 ms at first.
    let allowed = [83..=250, 166..=500, 333..=1_000, 666..=2_000];
    for (pause, allowed) in pauses[..8].iter().zip(allowed.iter().cycle()) {
        assert!(allowed.contains(pause), "{pauses:?}");
    }
    // It keeps to them. To notice and to connect takes no 100 ms, but for what the machine does.
    let more = waits.iter().zip(&pauses[4..]).map(|(wait, pause)| {
        let pause = Duration::from_millis(*pause);
        assert!((pause / 2..pause + Duration::from_secs(1)).contains(wait), "{waits:?} {pauses:?}");
        wait.saturating_sub(pause)
    });
    assert!(more.min() <= Some(Duration::from_millis(100)), "{waits:?} {pauses:?}");
}

#[test]
fn filters_are_subscribed_to_again_when_the_broker_has_lost_the_session() {
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port)
        .set("MQTT_TOPIC", "a/#,b/+");
    let _ingestor = service.start();
    for _ in 0..2 {
        let link = broker.accept(false);
        assert_eq!(link.filters, ["a/#", "b/+"]);
        assert_eq!(link.client_id, "test-ingestor");
    }
}
