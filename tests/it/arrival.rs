//! Readings that have the time of their arrival: each message is one row, whatever breaks on its way, and
//! however often it says the same.

use serde_json::json;

use crate::harness::clock::UNSET;
use crate::harness::postgres::Fsync;
use crate::harness::scripted::Link;
use crate::harness::wire::Packet;
use crate::harness::{
    Ingestor, Mosquitto, PATIENCE, Postgres, Publisher, ScriptedBroker, Service, eventually,
    eventually_eq,
};

const TOKEN: &str = "7f3a-admin-token";

/// One value a topic, and an array of readings of several devices.
pub(crate) const MAPPINGS: &str = r#"
[[default.mapping]]
name   = "value"
topic  = "value/{device}/{field}"
format = "text"
device = "{device}"
field  = "{field}"
time   = "received"
fields = ["temperature", "humidity"]

[[default.mapping]]
name   = "list"
topic  = "list/{gateway}"
each   = "[*]"
device = "{gateway}"
time   = { path = "t", format = "s", fallback = "received" }
table  = "list"
fields = { a = { max = 100 } }
"#;

const TOPIC: &str = "value/d/temperature";

const WRONG_CLOCK: &str = "the clock reads a time before this program was built, and mappings";

/// The service with these mappings, and nothing retained but what receipts need.
fn service(postgres: &Postgres, port: u16) -> Service {
    let service =
        Service::new(&postgres.url(), port).set("ADMIN_TOKEN", TOKEN).set("WAL_RETAIN_SECS", 0);
    std::fs::write(service.dir().join("Rocket.toml"), MAPPINGS).unwrap();
    service
}

/// A message that the broker may have sent before.
#[track_caller]
fn again(link: &mut Link, id: u16, topic: &str, payload: &str) {
    assert!(link.send(Some(id), true, topic, payload));
    assert_eq!(link.ack(PATIENCE), Some(id));
}

#[track_caller]
fn first(link: &mut Link, id: u16, topic: &str, payload: &str) {
    assert!(link.deliver(id, topic, payload));
    assert_eq!(link.ack(PATIENCE), Some(id));
}

/// Everything that was acknowledged is in the table.
#[track_caller]
fn await_flushed(ingestor: &mut Ingestor) {
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
}

fn rows(postgres: &Postgres, table: &str) -> i64 {
    postgres.value(&format!("select count(*) from {table}"))
}

#[test]
fn a_message_whose_ack_was_lost_is_one_row_however_the_process_or_the_connection_ended() {
    let (postgres, broker) = (Postgres::start(), ScriptedBroker::start());
    let service = service(&postgres, broker.port);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    // The same value in each: only packet ids tell them apart.
    for id in 1..=5 {
        first(&mut link, id, TOPIC, "21.5");
    }
    first(&mut link, 6, "list/g", r#"[{"a":1},{"a":2,"t":1759667696},{"a":3}]"#);
    await_flushed(&mut ingestor);
    assert_eq!((rows(&postgres, "telemetry"), rows(&postgres, "list")), (5, 3));

    // The connection breaks: the broker has heard of the first two alone.
    drop(link);
    let mut link = broker.accept(true);
    for id in 3..=5 {
        again(&mut link, id, TOPIC, "21.5");
    }
    again(&mut link, 6, "list/g", r#"[{"a":1},{"a":2,"t":1759667696},{"a":3}]"#);
    await_flushed(&mut ingestor);
    assert_eq!((rows(&postgres, "telemetry"), rows(&postgres, "list")), (5, 3));

    // The process is killed, and so is the one after it, with nothing left that waits.
    for _ in 0..2 {
        ingestor.kill();
        drop(link);
        ingestor = service.start();
        link = broker.accept(true);
    }
    for id in 3..=5 {
        again(&mut link, id, TOPIC, "21.5");
    }
    again(&mut link, 6, "list/g", r#"[{"a":1},{"a":2,"t":1759667696},{"a":3}]"#);
    await_flushed(&mut ingestor);
    assert_eq!((rows(&postgres, "telemetry"), rows(&postgres, "list")), (5, 3));

    // Another message by a packet id that was used before, and one that never came although the broker
    // says that it may have: each is a row.
    first(&mut link, 3, TOPIC, "21.5");
    again(&mut link, 4, TOPIC, "21.6");
    again(&mut link, 900, TOPIC, "21.5");
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "telemetry"), 8);
    assert_eq!(ingestor.metric("ingestor_db_inserts_total"), 3);
}

#[test]
fn a_packet_id_whose_turn_comes_again_is_another_message_although_it_says_the_same() {
    const WINDOW: usize = 5_000;
    let (postgres, broker) = (Postgres::start(), ScriptedBroker::start());
    let service = service(&postgres, broker.port);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    let all: Vec<u16> = (1..=u16::MAX).collect();
    for ids in all.chunks(WINDOW) {
        assert!(link.deliver_at_once(TOPIC, ids.iter().map(|id| (*id, "21.5".to_owned()))));
        assert_eq!(link.acks(ids.len()), ids);
    }
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "telemetry"), 65_535);

    // What the broker sends next is lost with the connection, and the last acknowledgement is, too.
    drop(link);
    let mut link = broker.accept(true);
    again(&mut link, u16::MAX, TOPIC, "21.5");
    again(&mut link, 1, TOPIC, "21.5");
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "telemetry"), 65_536);

    // And the same for a process that knows nothing but what is in the log.
    ingestor.kill();
    drop(link);
    let mut ingestor = service.start();
    let mut link = broker.accept(true);
    for id in [u16::MAX, 1, 2] {
        again(&mut link, id, TOPIC, "21.5");
    }
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "telemetry"), 65_537);
}

#[test]
fn a_process_that_is_killed_before_its_group_is_acknowledged_gives_it_the_same_times() {
    let (mut postgres, broker) = (Postgres::prepare(Fsync::Off), ScriptedBroker::start());
    let service = service(&postgres, broker.port);
    let ingestor = service.start();
    let mut link = broker.accept(false);
    let numbers = || 1..=200_u16;
    let payload = |id: u16| json!([{"a": id % 3}, {"a": 1}]).to_string();
    assert!(link.deliver_at_once("list/g", numbers().map(|id| (id, payload(id)))));
    // Some are committed by now, and some may be acknowledged: which is nobody's business.
    link.ack(PATIENCE).unwrap();
    ingestor.kill();
    drop(link);

    let mut ingestor = service.start();
    let mut link = broker.accept(true);
    for id in numbers() {
        assert!(link.send(Some(id), true, "list/g", payload(id)));
    }
    assert_eq!(link.acks(200), numbers().collect::<Vec<_>>());
    postgres.launch();
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "list"), 400);
}

#[test]
fn a_new_session_has_no_repeats_of_the_old_one() {
    let (postgres, broker) = (Postgres::start(), ScriptedBroker::start());
    let service = service(&postgres, broker.port);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    first(&mut link, 1, TOPIC, "21.5");
    drop(link);
    // It was sent before, on a connection that did not bring it.
    let mut link = broker.accept(false);
    again(&mut link, 1, TOPIC, "21.5");
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "telemetry"), 2);
}

#[test]
fn after_an_orderly_stop_nothing_is_held_up_for_what_was_acknowledged() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = service(&postgres, broker.port);
    let generations = |ingestor: &Ingestor| {
        let wal = ingestor.admin("GET", "/admin/wal", TOKEN).json();
        wal["generations"].as_array().unwrap().len()
    };
    let publish = || Publisher::connect(broker.port).publish_one(TOPIC, "1");
    let mut ingestor = service.start();
    ingestor.await_ready();
    publish();
    ingestor.await_metric("ingestor_db_inserts_total", 1);
    ingestor.kill();
    // After a kill its log is kept.
    let mut ingestor = service.start();
    ingestor.await_ready();
    assert_eq!(generations(&ingestor), 2);
    publish();
    ingestor.await_metric("ingestor_db_inserts_total", 1);
    await_flushed(&mut ingestor);
    ingestor.stop();
    let mut ingestor = service.start();
    ingestor.await_ready();
    assert_eq!(generations(&ingestor), 1);
    assert_eq!(rows(&postgres, "telemetry"), 2);
}

#[test]
fn a_value_that_stays_the_same_is_as_many_rows_as_messages_through_kills_and_restarts_of_the_broker()
 {
    const ROUNDS: u64 = 4;
    const MESSAGES: u64 = 3_000;
    let (postgres, mut broker) = (Postgres::start(), Mosquitto::start());
    let service = service(&postgres, broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    for round in 0..ROUNDS {
        let mut publisher = Publisher::connect(broker.port);
        for number in 0..MESSAGES {
            publisher.publish(TOPIC, "21.5");
            if number == MESSAGES / 2 && round % 2 == 0 {
                publisher.flush();
                ingestor.kill();
                ingestor = service.start();
            }
        }
        publisher.finish();
        if round % 2 == 1 {
            // It writes down what it has sent and what is not acknowledged.
            broker.stop();
            broker.launch();
        }
    }
    ingestor.await_ready();
    let expected = i64::try_from(ROUNDS * MESSAGES).unwrap();
    eventually_eq("all have come", &expected, || rows(&postgres, "telemetry"));
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "telemetry"), expected);
}

/// A message that the broker had kept.
fn retained(id: u16, topic: &str, payload: &str) -> Packet {
    let (topic, payload) = (topic.to_owned(), payload.into());
    Packet::Publish { id: Some(id), dup: false, retain: true, topic, payload }
}

#[test]
fn retained_messages_that_come_with_each_subscription_are_no_rows_unless_they_have_a_time() {
    let (postgres, broker) = (Postgres::start(), ScriptedBroker::start());
    let service = service(&postgres, broker.port);
    let mut ingestor = service.start();
    let timed = r#"[{"a":1},{"a":2,"t":1759667696}]"#;
    for storm in 1..=3 {
        let mut link = broker.accept(false);
        for id in 1..=300 {
            assert!(link.say(&retained(id, TOPIC, "21.5")));
        }
        assert!(link.say(&retained(301, "list/g", timed)));
        assert!(link.say(&retained(302, "list/g", r#"[{"a":1}]"#)));
        assert_eq!(link.acks(302), (1..=302).collect::<Vec<_>>());
        // One that comes as it is published.
        first(&mut link, 303, TOPIC, "21.5");
        await_flushed(&mut ingestor);
        assert_eq!((rows(&postgres, "telemetry"), rows(&postgres, "list")), (storm, 1));
        let ignored = |mapping: &str| {
            let labels = format!(r#"mapping="{mapping}",outcome="ignored""#);
            ingestor.metric(&format!("ingestor_mapping_total{{{labels}}}"))
        };
        let storms = u64::try_from(storm).unwrap();
        assert_eq!((ignored("value"), ignored("list")), (300 * storms, storms));
    }
}

#[test]
fn while_the_clock_is_wrong_the_service_stays_away_from_the_broker_and_says_why() {
    let (postgres, broker) = (Postgres::start(), ScriptedBroker::start());
    let service = service(&postgres, broker.port).with_clock();
    service.set_clock(UNSET);
    let mut ingestor = service.start();
    let reason = |ingestor: &Ingestor| {
        let broker = ingestor.get("/api/v1/status").json()["broker"].clone();
        // That it has left is told a moment after it has said goodbye.
        let is_away = broker["state"] == "disconnected";
        broker["reason"].as_str().filter(|_| is_away).map(str::to_owned)
    };
    eventually("the status says why", || {
        reason(&ingestor).filter(|reason| reason.contains("clock")).map(drop)
    });
    assert_eq!(ingestor.health()["mqtt"], "disconnected");
    assert!(!broker.has_caller());
    service.set_clock("+0");
    let mut link = broker.accept(false);
    first(&mut link, 1, TOPIC, "1");
    await_flushed(&mut ingestor);
    let off_by = "select abs(extract(epoch from now() - ts))::bigint from telemetry";
    assert!(postgres.value(off_by) < 300);
    eventually("it is ready", || (ingestor.health()["mqtt"] == "connected").then_some(()));

    // And when it becomes wrong.
    service.set_clock(UNSET);
    link.acks_until_closed();
    assert!(link.has_said_goodbye);
    eventually("the status says why", || reason(&ingestor).map(drop));
    service.set_clock("+0");
    let mut link = broker.accept(true);
    first(&mut link, 2, TOPIC, "1");
    // The lines are written by a thread of their own.
    eventually_eq("it is said", &2, || ingestor.log_of("the clock is set").len());
    assert_eq!(ingestor.log_of(WRONG_CLOCK).len(), 2);
    ingestor.must_run();
}

#[test]
fn dead_letters_that_came_at_once_are_as_many_rows_when_they_are_replayed() {
    let (postgres, broker) = (Postgres::start(), ScriptedBroker::start());
    let service = service(&postgres, broker.port);
    let ingestor = service.start();
    let mut link = broker.accept(false);
    let hot = r#"[{"a":1000},{"a":1001}]"#;
    assert!(link.deliver_at_once("list/g", (1..=50).map(|id| (id, hot.to_owned()))));
    assert_eq!(link.acks(50).len(), 50);
    ingestor.kill();
    drop(link);
    let before = postgres.value("select extract(epoch from now())::bigint");
    let mended = MAPPINGS.replace("max = 100", "max = 2000");
    std::fs::write(service.dir().join("Rocket.toml"), mended).unwrap();
    let mut ingestor = service.start();
    let _link = broker.accept(true);
    let told = ingestor.admin("POST", "/admin/dead-letters/replay", TOKEN).json();
    assert_eq!((&told["replayed"], &told["still_bad"]), (&50.into(), &0.into()));
    await_flushed(&mut ingestor);
    // By when they came in, not by when they were put back.
    let early = format!("select count(*) from list where extract(epoch from ts) <= {before} + 1");
    assert_eq!((rows(&postgres, "list"), postgres.value(&early)), (100, 100));
}

#[test]
fn a_broker_that_does_not_say_that_it_heard_the_goodbye_may_deliver_again() {
    let (postgres, broker) = (Postgres::start(), ScriptedBroker::start());
    let service = service(&postgres, broker.port);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    first(&mut link, 1, TOPIC, "1");
    ingestor.signal(rustix::process::Signal::TERM);
    // It hears the goodbye, and does not close the connection.
    assert_eq!(ingestor.await_exit(PATIENCE), 0);
    drop(link);
    // So the next process takes the acknowledgement for lost.
    let mut ingestor = service.start();
    let mut link = broker.accept(true);
    again(&mut link, 1, TOPIC, "1");
    await_flushed(&mut ingestor);
    assert_eq!(rows(&postgres, "telemetry"), 1);
}
