//! Readings as devices publish them, to two decimals, and ways to get many of them into the log.

use std::ops::Range;
use std::time::Duration;

use crate::harness::{Ingestor, Publisher, Reading, Simulator, array};

const DEVICES: u64 = 1_000;

/// Readings in one message: with these, just under the 64 KiB that are accepted.
const READINGS_A_MESSAGE: usize = 500;

/// Between two looks at a counter, each of which takes the measured process some time.
const GLANCE: Duration = Duration::from_millis(20);

/// Devices that publish once a second, one after the other.
pub(crate) fn sample(number: u64) -> Reading {
    let (device, second) = (number % DEVICES, number / DEVICES);
    let hundredths = |low: i32, high: i32, seed: u64| {
        let mean = low + fastrand::Rng::with_seed(device * 4 + seed).i32(0..high - low);
        let noise = fastrand::Rng::with_seed(number * 4 + seed).i32(-50..50);
        f64::from(mean + noise) / 100.0
    };
    Reading {
        device_id: format!("sensor-{device:03}"),
        micros: crate::harness::reading(0).micros
            + i64::try_from(second * 1_000_000 + device * 997).unwrap(),
        temperature: hundredths(1_000, 3_000, 1),
        humidity: hundredths(3_000, 8_000, 2),
        battery: hundredths(1_000, 9_500, 3),
    }
}

/// Publishes these readings as arrays, which is quicker than one by one.
pub(crate) fn publish_arrays(port: u16, numbers: Range<u64>) {
    let mut publisher = Publisher::connect(port);
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(READINGS_A_MESSAGE) {
        let samples: Vec<Reading> = numbers.iter().copied().map(sample).collect();
        publisher.publish("telemetry/gateway", array(&samples));
    }
    publisher.finish();
}

/// A simulator that publishes so many messages, of a reading each, as fast as the broker takes them.
pub(crate) fn simulate(port: u16, messages: u64) -> Simulator {
    let settings = [
        ("MESSAGE_COUNT", messages.to_string()),
        ("NUM_DEVICES", DEVICES.to_string()),
        ("PUBLISH_INTERVAL_MS", "0".to_owned()),
        ("MAX_INFLIGHT", "1000".to_owned()),
        ("PROGRESS_INTERVAL_MS", "0".to_owned()),
    ];
    Simulator::start(port, &settings.each_ref().map(|(name, value)| (*name, value.as_str())))
}

/// Waits until a counter of the ingestor has come to `value`, for as long as it rises.
pub(crate) fn await_counter(ingestor: &mut Ingestor, name: &str, value: u64) {
    let mut last = (0, std::time::Instant::now());
    loop {
        let now = ingestor.metric(name);
        if now >= value {
            return;
        }
        if now > last.0 {
            last = (now, std::time::Instant::now());
        }
        assert!(last.1.elapsed() < Duration::from_secs(60), "{name} stays at {now} of {value}");
        ingestor.must_run();
        std::thread::sleep(GLANCE);
    }
}
