//! The way from a published message to a row.

use std::time::Duration;

use crate::harness::{
    Ingestor, Load, Mosquitto, Postgres, Publisher, Reading, Service, reading, readings, within,
};

/// 2025-10-05T12:34:56Z.
const NOON_ISH: i64 = 1_759_667_696_000_000;

fn row(device_id: &str, micros: i64, values: [f64; 3]) -> Reading {
    let [temperature, humidity, battery] = values;
    Reading { device_id: device_id.to_owned(), micros, temperature, humidity, battery }
}

#[test]
fn every_published_reading_is_stored_once_and_to_the_last_digit() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..5_000);
    postgres.await_exactly(&readings(0..5_000));
    ingestor.await_metric("ingestor_acks_total", 5_000);
    // It is the last to count them, after the rows are visible.
    ingestor.await_metric("ingestor_end_to_end_latency_seconds_count", 5_000);
    let metrics = ingestor.metrics();
    assert_eq!(metrics.get("ingestor_messages_total"), 5_000);
    assert_eq!(metrics.get("ingestor_valid_messages_total"), 5_000);
    assert_eq!(metrics.get("ingestor_invalid_messages_total"), 0);
    assert_eq!(metrics.get("ingestor_redeliveries_total"), 0);
    assert_eq!(metrics.get("ingestor_db_inserts_total"), 5_000);
    assert_eq!(metrics.get("ingestor_db_up"), 1);
    assert_eq!(metrics.get("ingestor_mqtt_connected"), 1);
    assert_eq!(metrics.get("ingestor_end_to_end_latency_seconds_count"), 5_000);
    let health = ingestor.health();
    assert_eq!(
        health.to_string(),
        r#"{"database":"up","mqtt":"connected","status":"ready","wal":"ok"}"#
    );
}

#[test]
fn a_message_is_an_object_or_an_array_its_time_rfc_3339_or_epoch_milliseconds() {
    let longest_id = "é".repeat(128);
    let messages = [
        r#"{"device_id":"utc","timestamp":"2025-10-05T12:34:56Z","temperature":23.5,"humidity":65.2,"battery":87.3}"#.to_owned(),
        r#"{"device_id":"micros","timestamp":"2025-10-05T12:34:56.000001Z","temperature":0,"humidity":0,"battery":0}"#.to_owned(),
        r#"{"device_id":"offset","timestamp":"2025-10-05T18:04:56+05:30","temperature":1,"humidity":2,"battery":3}"#.to_owned(),
        r#"{"device_id":"millis","timestamp":1759667696001,"temperature":-50,"humidity":100,"battery":100}"#.to_owned(),
        r#"{"device_id":"digits","timestamp":1759667696000,"temperature":0.30000000000000004,"humidity":5e-324,"battery":9.007199254740993e1}"#.to_owned(),
        r#"{"device_id":"digits-2","timestamp":1759667696000,"temperature":47.187652634187643,"humidity":0.1,"battery":3.3333333333333335}"#.to_owned(),
        "  \n[ {\"unknown\":{\"nested\":[1,{}]},\"battery\":3,\"humidity\":2,\"temperature\":1,\
         \"timestamp\":\"2025-10-05T12:34:56Z\",\"device_id\":\"array-1\"} ,\t{\"device_id\":\
         \"array-2\",\"timestamp\":1759667696000,\"temperature\":4e0,\"humidity\":5.0,\"battery\":6}] "
            .to_owned(),
        format!(
            r#"{{"device_id":"{longest_id}","timestamp":1759667696000,"temperature":1,"humidity":2,"battery":3}}"#
        ),
        r#"{"device_id":"sm\u00f8rrebr\u00f8d \ud83d\ude00","timestamp":1759667696000,"temperature":1,"humidity":2,"battery":3}"#.to_owned(),
    ];
    let rows = [
        row("utc", NOON_ISH, [23.5, 65.2, 87.3]),
        row("micros", NOON_ISH + 1, [0.0, 0.0, 0.0]),
        row("offset", NOON_ISH, [1.0, 2.0, 3.0]),
        row("millis", NOON_ISH + 1_000, [-50.0, 100.0, 100.0]),
        row("digits", NOON_ISH, [0.1 + 0.2, 5e-324, 90.071_992_547_409_93]),
        row("digits-2", NOON_ISH, [47.187_652_634_187_64, 0.1, 10.0 / 3.0]),
        row("array-1", NOON_ISH, [1.0, 2.0, 3.0]),
        row("array-2", NOON_ISH, [4.0, 5.0, 6.0]),
        row(&longest_id, NOON_ISH, [1.0, 2.0, 3.0]),
        row("smørrebrød 😀", NOON_ISH, [1.0, 2.0, 3.0]),
    ];
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    for message in messages {
        publisher.publish_one("telemetry/any/level", message);
    }
    postgres.await_exactly(&rows);
}

#[test]
fn every_topic_filter_is_subscribed_to_and_nothing_else() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        .set("MQTT_TOPIC", "site/+/telemetry, lab/#,$share/ingestors/shared/#");
    let mut ingestor = service.start();
    ingestor.await_ready();
    let topics = ["site/1/telemetry", "lab", "lab/a/b", "shared/x", "site/1/2/telemetry", "else"];
    let mut publisher = Publisher::connect(broker.port);
    for (number, topic) in (0..).zip(topics) {
        publisher.publish_one(topic, reading(number).payload());
    }
    // One that is subscribed to, so that those before it would have arrived too.
    publisher.publish_one("lab/end", reading(9).payload());
    postgres.await_exactly(&[readings(0..4), readings(9..10)].concat());
}

#[test]
fn ingestors_of_one_shared_subscription_divide_the_messages_between_them() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = |id: &str| {
        Service::new(&postgres.url(), broker.port)
            .set("MQTT_TOPIC", "$share/ingestors/telemetry/#")
            .set("MQTT_CLIENT_ID", id)
    };
    let services = [service("one"), service("two")];
    let mut ingestors = services.each_ref().map(Service::start);
    ingestors.iter_mut().for_each(Ingestor::await_ready);
    Publisher::connect(broker.port).publish_readings(0..4_000);
    postgres.await_exactly(&readings(0..4_000));
    let received = ingestors.each_ref().map(|one| one.metric("ingestor_messages_total"));
    assert!(received.iter().all(|messages| *messages > 0), "{received:?}");
    assert_eq!(received.iter().sum::<u64>(), 4_000, "{received:?}");
}

#[test]
fn of_two_readings_of_one_device_and_time_the_first_stays() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    let first = row("twin", NOON_ISH, [1.0, 2.0, 3.0]);
    let second = row("twin", NOON_ISH, [4.0, 5.0, 6.0]);
    // In one batch, and in another after it.
    publisher.publish(&first.topic(), format!("[{},{}]", first.payload(), second.payload()));
    publisher.finish();
    postgres.await_exactly(std::slice::from_ref(&first));
    publisher.publish_one(&first.topic(), second.payload());
    ingestor.await_metric("ingestor_duplicates_total", 2);
    postgres.assert_exactly(&[first]);
    assert_eq!(ingestor.metric("ingestor_db_inserts_total"), 1);
}

#[test]
fn a_new_ingestor_takes_over_the_session_of_the_one_before() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    ingestor.stop();
    // Nobody listens: the broker keeps them for the session.
    Publisher::connect(broker.port).publish_readings(0..3_000);
    let _ingestor = service.start();
    postgres.await_exactly(&readings(0..3_000));
}

#[test]
fn at_a_modest_rate_nothing_waits_longer_than_a_batch() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 500);
    load.await_more(1_000);
    let published = load.stop();
    postgres.await_exactly(&readings(published));
    within(Duration::from_secs(1), "nothing waits", || {
        (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
    });
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
}
