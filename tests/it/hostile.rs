//! Thousands of payloads that nobody meant, between good ones.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{
    Ingestor, Load, Mosquitto, Postgres, Publisher, Reading, Service, array, eventually_eq, random,
    reading, readings, within,
};

const HOSTILE: u64 = 5_000;

/// A good payload of its own, or several in an array.
fn template(random: &mut fastrand::Rng, number: u64) -> Vec<u8> {
    let mut template = |number| {
        let mut reading = reading(number);
        reading.device_id = format!("mutant-{}", random.u64(..));
        reading
    };
    if number.is_multiple_of(3) {
        let readings: Vec<_> = (0..5).map(|n| template(number + n)).collect();
        array(&readings).into_bytes()
    } else {
        template(number).payload().into_bytes()
    }
}

/// What breaks parsers.
const NASTY: [&str; 22] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "-",
    "e",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0",
    "NaN",
    "null",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "9223372036854775808",
    "{\"a\":",
    "\\u",
];

fn mutate(random: &mut fastrand::Rng, payload: &mut Vec<u8>) {
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=payload.len());
        let end = (at + random.usize(..40)).min(payload.len());
        match random.u8(..7) {
            0 if at < payload.len() => payload[at] ^= 1 << random.u8(..8),
            1 if at < payload.len() => payload[at] = random.u8(..),
            2 => drop(payload.drain(at..end)),
            3 => payload.truncate(at),
            4 => {
                let again = payload[at..end].to_vec();
                payload.splice(at..at, again);
            }
            5 => {
                let count = random.usize(1..2_000);
                let nasty = NASTY[random.usize(..NASTY.len())];
                payload.splice(at..at, nasty.repeat(count).into_bytes());
            }
            _ => {
                let nasty = NASTY[random.usize(..NASTY.len())];
                payload.splice(at..at, nasty.bytes());
            }
        }
    }
}

fn hostile(random: &mut fastrand::Rng, number: u64) -> Vec<u8> {
    match random.u8(..20) {
        0 => (0..random.usize(..4_000)).map(|_| random.u8(..)).collect(),
        1 => {
            let nasty = NASTY[random.usize(..NASTY.len())];
            nasty.repeat(random.usize(1..60_000 / nasty.len())).into_bytes()
        }
        // Too long to be looked at.
        2 => vec![b"[{\"0x\xff "[random.usize(..7)]; random.usize(65_537..400_000)],
        _ => {
            let mut payload = template(random, number);
            mutate(random, &mut payload);
            payload
        }
    }
}

#[test]
fn hostile_payloads_cost_no_good_one_and_neither_memory_nor_time() {
    let mut random = random();
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        // Each of them is kept.
        .set("DEAD_LETTER_MAX_BYTES", 1_u64 << 30);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    for number in 0..HOSTILE {
        let good = reading(number);
        devices.publish(&good.topic(), good.payload());
        devices.publish("telemetry/hostile", hostile(&mut random, number));
    }
    devices.publish_readings(HOSTILE..HOSTILE + 100);
    let messages = 2 * HOSTILE + 100;
    within(Duration::from_secs(60), "every one is acknowledged", || {
        ingestor.must_run();
        (ingestor.metric("ingestor_acks_total") >= messages).then_some(())
    });
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    let metrics = ingestor.metrics();
    assert_eq!(metrics.get("ingestor_messages_total"), messages, "none came again");
    assert_eq!(metrics.get("ingestor_mqtt_reconnects_total"), 0);
    let (valid, invalid) = (
        metrics.get("ingestor_valid_messages_total"),
        metrics.get("ingestor_invalid_messages_total"),
    );
    assert!(valid >= HOSTILE + 100 && invalid > HOSTILE / 2, "{valid} valid, {invalid} invalid");
    assert_eq!(metrics.get("ingestor_dead_letters_evicted_total"), 0);
    // What PostgreSQL refuses is one too.
    let refused = metrics.get(r#"ingestor_dead_letters_total{stage="database"}"#);
    assert_eq!(metrics.get("ingestor_dead_letters"), invalid + refused);
    assert_eq!(service.dead_letters().len() as u64, invalid + refused);
    crate::books::must_balance(&metrics, 0);

    let stored = postgres.readings();
    assert_eq!(stored.len() as u64, valid - refused - metrics.get("ingestor_duplicates_total"),);
    // What a mutation has left good is stored as well, under another name.
    postgres.execute("delete from telemetry where device_id !~ '^device-[0-9]{3}$'");
    postgres.assert_exactly(&readings(0..HOSTILE + 100));
    let peak = ingestor.peak_memory();

    assert!(peak < 128 << 20, "{peak} bytes");
    ingestor.stop();
}

/// Messages that are made to be written many times over, of 64 KiB and less.
fn amplifiers() -> Vec<Vec<u8>> {
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let id = "\\u0001".repeat(40);
    let shapes = [
        format!("[{}0]", "0,".repeat(32_766)),
        format!("[{}0]", "0,".repeat(99)),
        format!("[{}{{}}]", "{},".repeat(20_000)),
        format!("[{}{nested}]", format!("{nested},").repeat(300)),
        format!("{{{}\"a\":1}}", "\"a\":1,".repeat(9_000)),
        format!("[{}7]", format!("{{\"device_id\":\"{id}\"}},").repeat(200)),
    ];
    let mut shapes: Vec<_> = shapes.map(String::into_bytes).into();
    shapes.push(vec![0xff; 65_000]);
    shapes
}

/// Bytes that it has handed to the kernel to be written, to files and sockets.
fn written_bytes(ingestor: &Ingestor) -> u64 {
    let path = format!("/proc/{}/io", ingestor.pid().as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

#[test]
fn a_flood_is_written_at_most_twenty_times_over_and_good_readings_beside_it_are_stored_within_a_second()
 {
    const ROUNDS: usize = 15;
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 50);
    load.await_more(20);
    let before = written_bytes(&ingestor);
    let topic = format!("telemetry/{}", "t".repeat(64_900));
    let mut stranger = Publisher::connect(broker.port);
    let mut came = 0;
    for _ in 0..ROUNDS {
        for payload in amplifiers() {
            for topic in ["telemetry/hostile", &topic] {
                came += (topic.len() + payload.len()) as u64;
                stranger.publish(topic, payload.clone());
            }
        }
    }
    stranger.finish();
    load.await_more(20);
    let numbers = load.stop();
    postgres.await_exactly(&readings(numbers.clone()));
    eventually_eq("the flood is acknowledged", &0, || {
        let metrics = ingestor.metrics();
        metrics.get("ingestor_messages_total") - metrics.get("ingestor_acks_total")
    });
    let written = written_bytes(&ingestor) - before;
    assert!(written <= 20 * came, "{written} bytes written of {came} that came in");
    let metrics = ingestor.metrics();
    let stored = metrics.get("ingestor_end_to_end_latency_seconds_count");
    let in_time = metrics.get(r#"ingestor_end_to_end_latency_seconds_bucket{le="1"}"#);
    assert_eq!((stored, in_time), (numbers.count() as u64, stored));
    // Every rejected reading is counted, of an array of 32,767 as well.
    let arrays = metrics.get(r#"ingestor_rejections_total{reason="not_an_object"}"#);
    let of_a_round = 32_767 + 100 + 301 + 1;
    assert_eq!(arrays, 2 * ROUNDS as u64 * of_a_round);
    let letters = metrics.get("ingestor_dead_letters");
    let of_a_round = 101 + 100 + 101 + 101 + 1 + 101 + 1;
    assert_eq!(
        letters + metrics.get("ingestor_dead_letters_evicted_total"),
        2 * ROUNDS as u64 * of_a_round
    );
    assert!(service.dead_letters().iter().all(|letter| letter.topic.len() <= 256));
    let peak = ingestor.peak_memory();
    assert!(peak < 128 << 20, "{peak} bytes");
    ingestor.stop();
}

/// Labels of metrics, and all values that each may have.
const LABELS: [(&str, &[&str]); 4] = [
    ("mapping", &["odd"]),
    ("outcome", &["stored", "rejected", "ignored"]),
    ("stage", &["decode", "validate", "database"]),
    (
        "reason",
        &[
            "payload_too_large",
            "invalid_topic",
            "not_utf8",
            "invalid_json",
            "number_out_of_range",
            "not_an_object",
            "empty_array",
            "missing_field",
            "duplicate_field",
            "wrong_type",
            "invalid_timestamp",
            "device_id_empty",
            "device_id_too_long",
            "device_id_control_character",
            "timestamp_in_future",
            "timestamp_too_old",
            "temperature_out_of_range",
            "humidity_out_of_range",
            "battery_out_of_range",
            "invalid_format",
            "no_mapping",
            "value_out_of_range",
            "text_too_long",
            "reading_too_large",
            "unknown_name",
        ],
    ),
];

/// Makes the device of a part of the topic, which anybody may choose.
const ODD: &str = r#"
[[default.mapping]]
name   = "odd"
topic  = "odd/{device}"
device = "{device}"
time   = "received"
table  = "odd"
fields = ["watts"]
"#;

#[test]
fn whatever_comes_no_metric_has_a_label_of_its_own_for_it() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = Service::new(&postgres.url(), broker.port);
    std::fs::write(service.dir().join("Rocket.toml"), ODD).unwrap();
    let mut ingestor = service.start();
    ingestor.await_ready();
    let names = |ingestor: &Ingestor| -> Vec<String> {
        ingestor.metrics().with_prefix("").map(|(name, _)| name.to_owned()).collect()
    };
    let before = names(&ingestor);
    let mut devices = Publisher::connect(broker.port);
    for (number, name) in (0..).zip(["odd-name", "1", "stage", "\u{e4}}"]) {
        let mut odd = reading(number);
        odd.device_id = name.to_owned();
        let topic = format!("telemetry/{name}/{number}");
        devices.publish(&topic, odd.payload());
        odd.temperature = 1_000.0;
        devices.publish(&topic, odd.payload());
        devices.publish(&topic, name);
        devices.publish(&format!("odd/{name}"), r#"{"watts": 1}"#);
        devices.publish(&format!("odd/{name}"), "{");
    }
    devices.finish();
    postgres.await_count(4);
    ingestor.await_metric("ingestor_dead_letters", 12);
    for outcome in ["stored", "rejected"] {
        let of_mapping = format!(r#"ingestor_mapping_total{{mapping="odd",outcome="{outcome}"}}"#);
        ingestor.await_metric(&of_mapping, 4);
    }
    assert_eq!(names(&ingestor), before);
    for name in before {
        let Some((_, labels)) = name.split_once('{') else { continue };
        for label in labels.trim_end_matches('}').split(',') {
            let (label, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"');
            let is_known = match LABELS.iter().find(|(known, _)| *known == label) {
                Some((_, values)) => values.contains(&value),
                None => label == "le" && (value == "+Inf" || value.parse::<f64>().is_ok()),
            };
            assert!(is_known, "{name}");
        }
    }
}
/// A topic that a broker lets somebody publish to, and that nobody expects.
fn strange_topic(random: &mut fastrand::Rng) -> String {
    let rest = match random.u8(..12) {
        0 => "/".repeat(random.usize(1..190)),
        1 => "a/".repeat(random.usize(1..190)),
        2 => "t".repeat(random.usize(1..60_000)),
        3 => "\u{1f321}\u{fe0f}\u{202e}e\u{301}".repeat(random.usize(1..20)),
        4 => "%00 $SYS \\\"'".to_owned(),
        5 => String::new(),
        _ => format!("hostile-{}", random.u16(..)),
    };
    format!("telemetry/{rest}")
}

/// A payload that somebody made on purpose: its shape, depth, size or encoding is the trouble.
fn strange_payload(random: &mut fastrand::Rng, number: u64) -> Vec<u8> {
    let good = reading(number).payload();
    let many = |random: &mut fastrand::Rng| 1 << random.u32(..13);
    match random.u8(..24) {
        0..4 => {
            let elements =
                ["0", "{}", "[]", "null", "\"\"", "[[[]]]", "{\"device_id\":\"\\u0001\"}", &good];
            let count = many(random);
            let element = |_| elements[random.usize(..elements.len())];
            let array = (0..count).map(element).collect::<Vec<_>>().join(",");
            // The end of it may be missing.
            format!("[{array}{}", if count % 3 == 0 { "" } else { "]" }).into_bytes()
        }
        4..7 => {
            let depth = many(random);
            let (open, close) =
                [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")][random.usize(..3)];
            let closed = if random.bool() { depth } else { depth / 2 };
            format!("{}1{}", open.repeat(depth), close.repeat(closed)).into_bytes()
        }
        7..9 => {
            let key = ["\"a\":1", "\"humidity\":1", "\"\\u0000\":null"][random.usize(..3)];
            let keys = format!("{key},").repeat(many(random));
            format!("{{{keys}{}", good.trim_start_matches('{')).into_bytes()
        }
        9..11 => {
            let unit =
                ["x", "\\u0001", "\\ud83d\\ude00", "\\ud800", "\u{10ffff}"][random.usize(..5)];
            let id = unit.repeat(129 + many(random) / 4);
            good.replace(&reading(number).device_id, &id).into_bytes()
        }
        11..16 => encoded(random, &good),
        16..19 => (0..random.usize(..9)).map(|_| random.u8(..)).collect(),
        19 => vec![b' '; random.usize(65_530..65_545)],
        20 => vec![b"[{\"0x\xff "[random.usize(..7)]; random.usize(65_537..300_000)],
        _ => hostile(random, number),
    }
}

/// A good reading, in another encoding than UTF-8, or in another format.
fn encoded(random: &mut fastrand::Rng, good: &str) -> Vec<u8> {
    let wide = |order: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    match random.u8(..9) {
        0 => [&b"\xff\xfe"[..], &wide(u16::to_le_bytes)].concat(),
        1 => [&b"\xfe\xff"[..], &wide(u16::to_be_bytes)].concat(),
        2 => wide(u16::to_le_bytes),
        3 => [b"\xef\xbb\xbf", good.as_bytes()].concat(),
        4 => good.replace("device", "d\u{e9}vice").chars().map(|c| c as u8).collect(),
        5 => [b"\xc0\xaf\xed\xa0\x80", good.as_bytes()].concat(),
        6 => [b"\x1f\x8b\x08\0\0\0\0\0", good.as_bytes()].concat(),
        7 => format!("{good}\n{good}\n").into_bytes(),
        _ => good.replace([',', ':', '"', '{', '}'], ";").into_bytes(),
    }
}

#[test]
fn ten_thousand_messages_of_strangers_hold_up_no_good_one_and_cost_neither_memory_nor_disk() {
    const STRANGE: u64 = 10_000;
    let mut random = random();
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let before = written_bytes(&ingestor);
    let load = Load::start(broker.port, 50);
    let mut stranger = Publisher::connect(broker.port);
    let mut came = 0;
    for number in 0..STRANGE {
        let (topic, payload) = (strange_topic(&mut random), strange_payload(&mut random, number));
        came += (topic.len() + payload.len()) as u64;
        stranger.publish(&topic, payload);
    }
    stranger.finish();
    let good = load.stop();
    let count = good.end - good.start;
    within(Duration::from_secs(100), "all are acknowledged", || {
        ingestor.must_run();
        (ingestor.metric("ingestor_acks_total") >= STRANGE + count).then_some(())
    });
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    let written = written_bytes(&ingestor) - before;
    let metrics = ingestor.metrics();
    let peak = ingestor.peak_memory();
    println!(
        "{count} good ones; {came} bytes came in, {written} were written; {peak} bytes of memory"
    );
    assert!(written <= 20 * came, "{written} bytes written of {came} that came in");
    assert!(peak <= 64 << 20, "{peak} bytes");
    assert_eq!(metrics.get("ingestor_mqtt_reconnects_total"), 0);
    assert_eq!(metrics.get("ingestor_redeliveries_total"), 0);
    assert_eq!(
        metrics.get("ingestor_valid_messages_total"),
        metrics.get("ingestor_db_inserts_total") + metrics.get("ingestor_duplicates_total")
    );
    // From its receipt on: what the broker keeps back is not ours.
    let stored = metrics.get("ingestor_end_to_end_latency_seconds_count");
    let in_time = metrics.get(r#"ingestor_end_to_end_latency_seconds_bucket{le="1"}"#);
    assert_eq!(in_time, stored, "some came late");
    let key = |reading: &Reading| (reading.device_id.clone(), reading.micros);
    let stored: BTreeSet<_> = postgres.readings().iter().map(key).collect();
    assert!(readings(good).iter().all(|good| stored.contains(&key(good))), "some are missing");
    ingestor.stop();
}

#[test]
fn the_smallest_messages_are_written_at_most_twenty_times_over_too() {
    const MESSAGES: u64 = 5_000;
    let broker = Mosquitto::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    let mut ingestor = service.set("MQTT_TOPIC", "+").start();
    ingestor.await_ready();
    let before = written_bytes(&ingestor);
    let mut stranger = Publisher::connect(broker.port);
    for payload in [&b""[..], b"x", b"{}", b"[]", b"[1,2]"] {
        for _ in 0..MESSAGES / 5 {
            stranger.publish("t", payload);
        }
    }
    stranger.finish();
    ingestor.await_metric("ingestor_acks_total", MESSAGES);
    let written = written_bytes(&ingestor) - before;
    // A fixed header, the topic, a packet id, and two bytes on average.
    let came = MESSAGES * (2 + 3 + 2 + 2);
    println!("{} bytes written a message", written / MESSAGES);
    assert!(written <= 20 * came, "{written} bytes written of {came} that came in");
    ingestor.stop();
}
