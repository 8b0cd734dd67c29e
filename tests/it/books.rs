//! The books of the metrics balance.

use crate::harness::service::Metrics;
use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, array, eventually, eventually_eq, reading,
    readings,
};

/// What the log held when the process started.
fn recovered(ingestor: &Ingestor) -> u64 {
    ingestor.await_log_of("log opened")[0]["pending_records"].as_u64().unwrap()
}

/// `recovered` are the records that were there at the start, and those that were replayed since.
#[track_caller]
pub(crate) fn must_balance(metrics: &Metrics, recovered: u64) {
    let get = |name: &str| metrics.get(&format!("ingestor_{name}"));
    let dead = |stage: &str| get(&format!("dead_letters_total{{stage=\"{stage}\"}}"));
    assert_eq!(
        get("valid_messages_total") + recovered,
        get("db_inserts_total")
            + get("duplicates_total")
            + dead("database")
            + get("wal_pending_records"),
        "{metrics:?}"
    );
    assert_eq!(get("invalid_messages_total"), dead("decode") + dead("validate"), "{metrics:?}");
    let rejections: f64 = metrics.sum("ingestor_rejections_total{");
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let invalid = get("invalid_messages_total") as f64;
    assert!((rejections - invalid).abs() < f64::EPSILON, "{metrics:?}");
    assert_eq!(get("acks_total"), get("messages_total"), "{metrics:?}");
}

/// 700 good readings from `from` on, 30 of which come twice, 50 rejected messages, and 5 readings
/// that PostgreSQL refuses: 785 messages.
fn publish_mix(publisher: &mut Publisher, from: u64) {
    for number in from..from + 700 {
        let mut message = reading(number);
        publisher.publish(&message.topic(), message.payload());
        if number % 140 == 0 {
            message.device_id = format!("poison-{number}");
            publisher.publish(&message.topic(), message.payload());
        }
        if number % 14 == 1 {
            let (topic, bad) = (message.topic(), ["{}", "[", "[]", "7"]);
            publisher.publish(&topic, bad[usize::try_from(number).unwrap() / 14 % 4]);
        }
    }
    for number in from..from + 30 {
        publisher.publish("telemetry/again", reading(number).payload());
    }
    publisher.finish();
}

#[test]
fn the_books_balance_with_duplicates_and_rejections_through_an_outage_and_a_restart() {
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually("the table is there", || (ingestor.health()["database"] == "up").then_some(()));
    postgres.execute("alter table telemetry add check (device_id not like 'poison%')");
    let mut publisher = Publisher::connect(broker.port);

    publish_mix(&mut publisher, 0);
    ingestor.await_metric("ingestor_acks_total", 785);
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    let metrics = ingestor.metrics();
    must_balance(&metrics, recovered(&ingestor));
    assert_eq!(metrics.get("ingestor_messages_total"), 785);
    assert_eq!(metrics.get("ingestor_valid_messages_total"), 735);
    assert_eq!(metrics.get("ingestor_invalid_messages_total"), 50);
    assert_eq!(metrics.get("ingestor_db_inserts_total"), 700);
    assert_eq!(metrics.get("ingestor_duplicates_total"), 30);
    assert_eq!(metrics.get(r#"ingestor_dead_letters_total{stage="database"}"#), 5);
    assert_eq!(metrics.get("ingestor_dead_letters"), 55);

    // While the database is down everything waits.
    postgres.kill();
    publish_mix(&mut publisher, 700);
    ingestor.await_metric("ingestor_acks_total", 2 * 785);
    let metrics = ingestor.metrics();
    must_balance(&metrics, 0);
    assert_eq!(metrics.get("ingestor_wal_pending_records"), 735);
    // Not killed: PUBACKs that do not get out in time would bring their messages again.
    ingestor.stop();

    // The next process counts from zero, but for what it found in the log.
    let mut ingestor = service.start();
    assert_eq!(recovered(&ingestor), 735);
    must_balance(&ingestor.metrics(), 735);
    ingestor.await_ready();
    publish_mix(&mut publisher, 1_400);
    ingestor.await_metric("ingestor_acks_total", 785);
    must_balance(&ingestor.metrics(), 735);
    postgres.launch();
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    let metrics = ingestor.metrics();
    must_balance(&metrics, 735);
    assert_eq!(metrics.get("ingestor_db_inserts_total"), 1_400);
    assert_eq!(metrics.get("ingestor_duplicates_total"), 60);
    assert_eq!(metrics.get(r#"ingestor_dead_letters_total{stage="database"}"#), 10);
    assert_eq!(metrics.get("ingestor_dead_letters"), 3 * 55);
    postgres.await_count(2_100);
}

#[test]
fn a_reading_of_an_array_is_counted_as_a_reading_and_its_message_as_one() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    let bad = array(&readings(0..3)).replace(']', ",{},0]");
    publisher.publish_one("telemetry/x", bad);
    publisher.publish_one("telemetry/x", array(&readings(3..10)));
    postgres.await_count(10);
    ingestor.await_metric("ingestor_db_inserts_total", 10);
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    let metrics = ingestor.metrics();
    assert_eq!(metrics.get("ingestor_messages_total"), 2);
    assert_eq!(metrics.get("ingestor_valid_messages_total"), 10);
    assert_eq!(metrics.get("ingestor_invalid_messages_total"), 2);
    must_balance(&metrics, 0);
}

#[test]
fn every_metric_of_the_contract_is_there_from_the_start() {
    let ingestor = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1).start();
    let metrics = ingestor.metrics();
    for name in [
        "messages_total",
        "valid_messages_total",
        "invalid_messages_total",
        r#"rejections_total{reason="missing_field"}"#,
        "acks_total",
        "redeliveries_total",
        "db_inserts_total",
        "duplicates_total",
        "db_failures_total",
        r#"dead_letters_total{stage="decode"}"#,
        r#"dead_letters_total{stage="validate"}"#,
        r#"dead_letters_total{stage="database"}"#,
        "dead_letters_evicted_total",
        "mqtt_reconnects_total",
        "wal_salvaged_records_total",
        "wal_lost_records_total",
        "batch_size",
        "wal_pending_records",
        "wal_disk_bytes",
        "wal_max_bytes",
        "wal_left_bytes",
        "wal_oldest_pending_seconds",
        "wal_full",
        "dead_letters",
        "db_up",
        "mqtt_connected",
        "ingest_latency_seconds_count",
        r#"ingest_latency_seconds_bucket{le="0.001"}"#,
        "wal_commit_seconds_count",
        r#"wal_commit_seconds_bucket{le="0.0001"}"#,
        "wal_commit_records_count",
        "end_to_end_latency_seconds_count",
    ] {
        assert!(metrics.find(&format!("ingestor_{name}")).is_some(), "{name} in {metrics:?}");
    }
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(metrics.find(name).is_some(), "{name}");
    }
}
