//! Whatever devices send: a dead letter with a reason and a counter, never a crash, never a stall,
//! never a lost neighbour.

use std::collections::BTreeMap;

use crate::harness::{Mosquitto, Postgres, Publisher, Service, eventually_eq, reading, readings};

/// A good reading with `from` replaced by `to`.
fn spoilt(from: &str, to: &str) -> Vec<u8> {
    let good = r#"{"device_id":"bad","timestamp":"2025-10-05T12:34:56Z","temperature":23.5,"humidity":65.2,"battery":87.3}"#;
    assert!(good.contains(from), "{from}");
    good.replace(from, to).into_bytes()
}

/// Messages, each with the reason it is rejected for.
fn bad_messages() -> Vec<(&'static str, Vec<u8>)> {
    let long_id = "x".repeat(129);
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    vec![
        ("not_utf8", b"\xff\xfe{}".to_vec()),
        ("not_utf8", spoilt("bad", "b\u{fffd}d").iter().copied().filter(|b| *b != 0xbf).collect()),
        ("invalid_json", b"".to_vec()),
        ("invalid_json", b"temperature=23".to_vec()),
        ("invalid_json", b"{".to_vec()),
        ("invalid_json", spoilt("87.3}", "87.3}}")),
        ("invalid_json", spoilt("23.5", "NaN")),
        ("invalid_json", spoilt("23.5", "Infinity")),
        ("invalid_json", spoilt("23.5", "+23.5")),
        ("invalid_json", spoilt("23.5", "023.5")),
        ("invalid_json", b"[{},".to_vec()),
        ("invalid_json", b"\0\0\0\0".to_vec()),
        ("number_out_of_range", spoilt("23.5", "1e999")),
        ("not_an_object", b"null".to_vec()),
        ("not_an_object", b"\"text\"".to_vec()),
        ("not_an_object", b"23.5".to_vec()),
        ("not_an_object", b"[[]]".to_vec()),
        ("empty_array", b"[]".to_vec()),
        ("empty_array", b" [ ] ".to_vec()),
        ("missing_field", b"{}".to_vec()),
        ("missing_field", spoilt("battery", "bat")),
        ("missing_field", spoilt("device_id", "Device_Id")),
        ("duplicate_field", spoilt("{", r#"{"humidity":1,"#)),
        ("wrong_type", spoilt("23.5", "\"23.5\"")),
        ("wrong_type", spoilt("23.5", "null")),
        ("wrong_type", spoilt("23.5", "[23.5]")),
        ("wrong_type", spoilt("\"bad\"", "7")),
        ("wrong_type", spoilt("\"2025-10-05T12:34:56Z\"", "1759667696000.5")),
        ("wrong_type", spoilt("\"2025-10-05T12:34:56Z\"", "null")),
        ("invalid_timestamp", spoilt("2025-10-05T12:34:56Z", "2025-13-05T12:34:56Z")),
        ("invalid_timestamp", spoilt("2025-10-05T12:34:56Z", "2025-10-05T12:34:56")),
        ("invalid_timestamp", spoilt("2025-10-05T12:34:56Z", "yesterday")),
        ("invalid_timestamp", spoilt("\"2025-10-05T12:34:56Z\"", "9223372036854775807")),
        ("invalid_timestamp", spoilt("\"2025-10-05T12:34:56Z\"", "18446744073709551615")),
        ("device_id_empty", spoilt("\"bad\"", "\"\"")),
        ("device_id_too_long", spoilt("bad", &long_id)),
        ("device_id_control_character", spoilt("bad", r"a\u0000b")),
        ("device_id_control_character", spoilt("bad", r"a\nb")),
        ("device_id_control_character", spoilt("bad", r"a\u0085b")),
        ("temperature_out_of_range", spoilt("23.5", "100.00000000000001")),
        ("temperature_out_of_range", spoilt("23.5", "-50.1")),
        ("temperature_out_of_range", spoilt("23.5", "1e308")),
        ("humidity_out_of_range", spoilt("65.2", "-0.0001")),
        ("humidity_out_of_range", spoilt("65.2", "101")),
        ("battery_out_of_range", spoilt("87.3", "-1")),
        ("battery_out_of_range", spoilt("87.3", "100.1")),
        ("timestamp_in_future", spoilt("2025-10-05", "2999-10-05")),
        ("timestamp_in_future", spoilt("\"2025-10-05T12:34:56Z\"", "7258118400000000")),
        ("timestamp_too_old", spoilt("2025-10-05T12:34:56Z", "1999-12-31T23:59:59.999999Z")),
        ("timestamp_too_old", spoilt("\"2025-10-05T12:34:56Z\"", "0")),
        ("timestamp_too_old", spoilt("\"2025-10-05T12:34:56Z\"", "-1")),
        // No message is deep or long enough to bring the process down.
        ("not_an_object", format!("[{deep}]").into_bytes()),
        ("payload_too_large", padded(65_537)),
        ("payload_too_large", padded(1_048_576)),
        ("payload_too_large", vec![b'['; 300_000]),
    ]
}

/// A good reading, if it were not for its `length`.
fn padded(length: usize) -> Vec<u8> {
    let mut message = spoilt("{", r#"{"padding":"","#);
    let padding = "x".repeat(length - message.len());
    let at = br#"{"padding":""#.len();
    message.splice(at..at, padding.into_bytes());
    assert_eq!(message.len(), length);
    message
}

#[test]
fn every_rejection_is_a_counted_dead_letter_and_its_neighbours_are_stored() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let bad = bad_messages();
    let mut publisher = Publisher::connect(broker.port);
    for (number, (_, message)) in (0..).zip(&bad) {
        let good = reading(number);
        publisher.publish(&good.topic(), good.payload());
        publisher.publish(&format!("telemetry/bad/{number}"), message.clone());
    }
    publisher.publish_readings(1_000..1_100);
    let count = bad.len() as u64;
    postgres.await_exactly(&[readings(0..count), readings(1_000..1_100)].concat());

    ingestor.await_metric("ingestor_acks_total", 2 * count + 100);
    let metrics = ingestor.metrics();
    assert_eq!(metrics.get("ingestor_messages_total"), 2 * count + 100, "nothing came again");
    assert_eq!(metrics.get("ingestor_redeliveries_total"), 0);
    assert_eq!(metrics.get("ingestor_mqtt_reconnects_total"), 0);
    assert_eq!(metrics.get("ingestor_invalid_messages_total"), count);
    assert_eq!(metrics.get("ingestor_dead_letters"), count);
    assert_eq!(metrics.get("ingestor_dead_letters_evicted_total"), 0);
    let mut expected: BTreeMap<String, f64> = BTreeMap::new();
    for (reason, _) in &bad {
        let name = format!("ingestor_rejections_total{{reason=\"{reason}\"}}");
        *expected.entry(name).or_default() += 1.0;
    }
    // Every reason there is has been met, but a topic that is none, which this broker lets nobody publish
    // to: `protocol` has it from a scripted one.
    expected.insert("ingestor_rejections_total{reason=\"invalid_topic\"}".to_owned(), 0.0);
    let counted: BTreeMap<String, f64> = metrics
        .with_prefix("ingestor_rejections_total{")
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    assert_eq!(counted, expected);

    let letters = service.dead_letters();
    assert_eq!(letters.len(), bad.len());
    for (number, (letter, (reason, message))) in letters.iter().zip(&bad).enumerate() {
        assert_eq!(letter.topic, format!("telemetry/bad/{number}"), "{reason}");
        assert!(["decode", "validate"].contains(&letter.stage.as_str()), "{letter:?}");
        assert!(letter.reason.len() > 5 && !letter.reason.contains('\n'), "{:?}", letter.reason);
        let kept = message.len().min(65_536);
        // Of an array, the element that is bad.
        let whole = *reason != "not_an_object" || !message.starts_with(b"[");
        assert!(!whole || letter.payload == message[..kept], "{reason}");
    }
    let by_stage = |stage: &str| letters.iter().filter(|letter| letter.stage == stage).count();
    for stage in ["decode", "validate"] {
        let counted = metrics.get(&format!("ingestor_dead_letters_total{{stage=\"{stage}\"}}"));
        assert_eq!(counted, by_stage(stage) as u64);
    }
}

#[test]
fn a_payload_of_exactly_the_limit_is_a_reading_like_any_other() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    publisher.publish_one("telemetry/x", padded(65_536));
    postgres.await_count(1);
    // As many readings as there is room for.
    let many: Vec<String> = readings(0..400).iter().map(crate::harness::Reading::payload).collect();
    let array = format!("[{}]", many.join(","));
    assert!((60_000..=65_536).contains(&array.len()), "{}", array.len());
    publisher.publish_one("telemetry/x", array);
    postgres.await_count(401);
    assert_eq!(ingestor.metric("ingestor_invalid_messages_total"), 0);
}

#[test]
fn in_an_array_each_element_stands_alone() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let bad = spoilt("23.5", "2350");
    let bad = String::from_utf8(bad).unwrap();
    let array = format!(
        "[{},{bad},{},null,{}]",
        reading(0).payload(),
        reading(1).payload(),
        reading(2).payload()
    );
    Publisher::connect(broker.port).publish_one("telemetry/array", array);
    postgres.await_exactly(&readings(0..3));
    ingestor.await_metric("ingestor_acks_total", 1);
    let letters = service.dead_letters();
    let payloads: Vec<String> =
        letters.iter().map(crate::harness::service::DeadLetter::payload_text).collect();
    assert_eq!(payloads, [bad, "null".to_owned()]);
}

#[test]
fn bounds_and_the_size_limit_are_those_of_the_configuration() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port)
        .set("VALIDATE_TEMPERATURE_MAX", "1000")
        .set("VALIDATE_BATTERY_MIN", "50.5")
        .set("VALIDATE_OLDEST_TIMESTAMP", "2025-01-01T00:00:00Z")
        .set("MQTT_MAX_PAYLOAD_BYTES", 200)
        .start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    for (message, is_good) in [
        (spoilt("23.5", "1000"), true),
        (spoilt("23.5", "1000.1"), false),
        (spoilt("87.3", "50.4"), false),
        (spoilt("2025-10-05", "2024-12-31"), false),
        (padded(201), false),
    ] {
        publisher.publish_one("telemetry/x", message);
        let metric = if is_good { "valid" } else { "invalid" };
        let name = format!("ingestor_{metric}_messages_total");
        assert!(is_good || ingestor.metric("ingestor_valid_messages_total") == 1);
        ingestor.await_metric(&name, 1);
    }
    eventually_eq("each of them is rejected", &4, || {
        ingestor.metric("ingestor_invalid_messages_total")
    });
    postgres.await_count(1);
}

#[test]
fn a_flood_of_bad_messages_keeps_to_the_bound_of_the_store_and_holds_nothing_up() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("DEAD_LETTER_MAX_BYTES", 1 << 20);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    for number in 0..300_u64 {
        let good = reading(number);
        publisher.publish(&good.topic(), good.payload());
        publisher.publish("telemetry/bad", vec![b'x'; 20_000]);
    }
    publisher.finish();
    postgres.await_exactly(&readings(0..300));
    ingestor.await_metric("ingestor_acks_total", 600);
    let metrics = ingestor.metrics();
    let (kept, evicted) =
        (metrics.get("ingestor_dead_letters"), metrics.get("ingestor_dead_letters_evicted_total"));
    assert_eq!(kept + evicted, 300);
    assert!(kept > 10 && evicted > 200, "{kept} kept, {evicted} evicted");
    let bytes: u64 = std::fs::read_dir(service.wal_dir().join("dead-letters"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 1 << 20, "{bytes} bytes");
}
