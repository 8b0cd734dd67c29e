//! The pure functions on the way of every reading: a payload decoded, a block encoded and decoded.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has failed")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use iot_ingestor::base::time::Timestamp;
use iot_ingestor::telemetry::Reading;
use iot_ingestor::telemetry::decode::decode;
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
    let readings = readings();
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

criterion_group!(benches, payloads, blocks);
criterion_main!(benches);
