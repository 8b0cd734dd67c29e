//! The pure functions on the way of every reading: a payload decoded, a block encoded and decoded.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "benchmarks measure time")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use iot_ingestor::base::settings::Sources;
use iot_ingestor::base::time::Timestamp;
use iot_ingestor::telemetry::decode::decode;
use iot_ingestor::telemetry::mapping::{Mappings, Message};
use iot_ingestor::telemetry::validate::{Rules, TimeOfDay};
use iot_ingestor::telemetry::{Reading, Record};
use iot_ingestor::wal::frame;

/// As many as there are in a batch.
const READINGS: usize = 2_000;

fn readings() -> Vec<Reading> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut hundredths = |range: std::ops::Range<i32>| f64::from(rng.i32(range)) / 100.0;
    (0..)
        .take(READINGS)
        .map(|n: i64| Reading {
            device_id: format!("sensor-{:03}", n % 1_000),
            timestamp: Timestamp::from_millis(1_759_667_696_000 + n).unwrap_or_else(Timestamp::now),
            values: [2_000..2_300, 4_500..5_000, 8_000..8_100].map(&mut hundredths),
        })
        .collect()
}

fn json(reading: &Reading) -> String {
    let Reading { device_id, timestamp, values: [temperature, humidity, battery] } = reading;
    format!(
        r#"{{"device_id":"{device_id}","timestamp":"{timestamp}","temperature":{temperature},"humidity":{humidity},"battery":{battery}}}"#
    )
}

fn payloads(criterion: &mut Criterion) {
    let objects: Vec<String> = readings().iter().map(json).collect();
    let array = format!("[{}]", objects[..500].join(","));
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(1));
    let mut next = objects.iter().cycle();
    group.bench_function("an object", |bencher| {
        bencher.iter(|| {
            let payload = next.next().map_or(&b""[..], |object| object.as_bytes());
            decode(payload, |_, outcome| drop(black_box(outcome)));
        });
    });
    group.throughput(Throughput::Elements(500));
    group.bench_function("an array of 500", |bencher| {
        bencher.iter(|| decode(array.as_bytes(), |_, outcome| drop(black_box(outcome))));
    });
    group.finish();
}

fn blocks(criterion: &mut Criterion) {
    let readings: Vec<Record> = readings().into_iter().map(Record::from).collect();
    let received_at = vec![Timestamp::now(); readings.len()];
    let mut frames = Vec::new();
    let encode = |frames: &mut Vec<Vec<u8>>| {
        frames.clear();
        let mut keep = |_, _, frame| frames.push(frame);
        frame::encode(0, 0, &received_at, &readings, &mut keep).expect("it can be encoded");
    };
    encode(&mut frames);
    let bytes: usize = frames.iter().map(Vec::len).sum();
    println!("{} readings take {} blocks, {bytes} bytes", readings.len(), frames.len());
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Elements(READINGS as u64));
    group.bench_function("encode", |bencher| {
        let mut frames = Vec::new();
        bencher.iter(|| encode(&mut frames));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for frame in &frames {
                black_box(frame::decode(frame).expect("it was encoded"));
            }
        });
    });
    group.finish();
}

/// 32 mappings: of a small flat message, of a large nested one, and of many other topics.
fn compiled() -> Mappings {
    let mut toml = String::from(
        r#"
[[default.mapping]]
name = "zigbee"
topic = "zigbee2mqtt/{device...}"
except = ["zigbee2mqtt/bridge/#"]
device = "{device}"
time = { path = "last_seen" }
fields = { temperature = {}, humidity = {}, battery = {}, linkquality = { type = "int" }, contact = { type = "bool" } }

[[default.mapping]]
name = "lorawan"
topic = "v3/+/devices/+/up"
has = ["uplink_message.decoded_payload"]
device = "{.end_device_ids.device_id}"
time = { path = "received_at" }
extra = { path = "uplink_message.decoded_payload" }
fields = { temperature = { path = "uplink_message.decoded_payload.temperature" }, rssi = { path = "uplink_message.rx_metadata[0].rssi", type = "int" } }
"#,
    );
    let other = |at: usize| {
        format!(
            "[[default.mapping]]\nname = \"m{at}\"\ntopic = \"site{at}/{{device}}/+/state\"\ndevice = \"{{device}}\"\ntime = {{ path = \"t\" }}\nfields = [\"a\"]\n"
        )
    };
    toml.extend((0..30).map(other));
    let mut from = Sources::new(BTreeMap::new(), &toml);
    let mappings = Mappings::read(&mut from);
    from.mistakes_so_far().expect("they are good");
    mappings
}

fn mappings(criterion: &mut Criterion) {
    let mappings = compiled();
    let rules = Rules::read(&mut Sources::new(BTreeMap::new(), ""));
    let clock = TimeOfDay::at(Timestamp::now());
    let received_at = Timestamp::now();
    let zigbee = r#"{"battery":91,"contact":true,"device":{"friendlyName":"door","model":"MCCGQ11LM"},"humidity":45.2,"last_seen":"2025-10-05T12:34:56+02:00","linkquality":87,"temperature":21.53,"voltage":3005,"x":1}"#;
    let gateway = r#"{"gateway_ids":{"gateway_id":"g","eui":"0102030405060708"},"time":"2025-10-05T12:34:56Z","rssi":-97,"snr":8.5,"location":{"latitude":52.5,"longitude":13.4}}"#;
    let lorawan = format!(
        r#"{{"end_device_ids":{{"device_id":"d-1","application_ids":{{"application_id":"app"}}}},"correlation_ids":["{}"],"received_at":"2025-10-05T12:34:57.123Z","uplink_message":{{"f_port":1,"frm_payload":"AQID","decoded_payload":{{"temperature":21.5,"humidity":40,"door":"open","battery":3.1}},"rx_metadata":[{}]}}}}"#,
        "x".repeat(300),
        [gateway; 9].join(",")
    );
    let mut group = criterion.benchmark_group("mapping");
    let mut decide = |name: &str, topic: &str, payload: &str| {
        println!("{name}: {} bytes", payload.len());
        let payload = payload.as_bytes();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let message = Message { topic, payload, is_retained: false, received_at };
                mappings.decide(message, &rules, clock, |_, outcome| drop(black_box(outcome)))
            });
        });
    };
    decide("zigbee", "zigbee2mqtt/kitchen/door", zigbee);
    decide("lorawan", "v3/app@ttn/devices/d-1/up", &lorawan);
    decide("dispatch without a match", "site17/device/x/other", "1");
    group.finish();
}

criterion_group!(benches, payloads, mappings, blocks);
criterion_main!(benches);
