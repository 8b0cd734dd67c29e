//! All devices, and whose turn it is when.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::time::Duration;

use fastrand::Rng;
use rumqttc::{Publish, QoS};
use tokio::time::Instant;

use crate::base::time::Timestamp;

use super::device::Device;
use super::encode::{Encoder, Flaw};
use super::settings::Settings;
use super::shapes::{Identity, Shape};

/// Devices take turns at equal distances, so that a fleet's load is even whatever its size.
pub(super) struct Fleet {
    devices: Vec<Device>,
    /// `None`: the contract's.
    shape: Option<&'static Shape>,
    next: usize,
    /// How often all devices have had their turn.
    rounds: u64,
    invalid_ratio: f64,
    encoder: Encoder,
    rng: Rng,
}

impl Fleet {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut rng = Rng::new();
        let now = Timestamp::now();
        let resolution = settings.shape.map_or(1, |shape| shape.resolution);
        Self {
            devices: (1..=settings.devices)
                .map(|n| Device::new(n, now, &mut rng).with_resolution(resolution))
                .collect(),
            shape: settings.shape,
            next: 0,
            rounds: 0,
            invalid_ratio: settings.invalid_ratio,
            encoder: Encoder::new(),
            rng,
        }
    }

    /// The message of the device whose turn it is.
    pub(super) fn publish(&mut self) -> Publish {
        let turn = self.next;
        self.next = (turn + 1) % self.devices.len();
        let messages = self.rounds;
        self.rounds += u64::from(self.next == 0);
        let device = &mut self.devices[turn];
        let sample = device.measure(Timestamp::now(), &mut self.rng);
        let is_invalid = self.rng.f64() < self.invalid_ratio;
        if let Some(shape) = self.shape {
            let number = u32::try_from(turn + 1).unwrap_or(u32::MAX);
            let identity = Identity { id: device.id(), number, messages };
            let (topic, payload) = shape.write(&identity, sample);
            let payload = if is_invalid { Shape::spoil(&payload) } else { payload };
            return Publish::new(topic, QoS::AtLeastOnce, payload);
        }
        let payload = if is_invalid {
            let flaw = Flaw::ALL[self.rng.usize(..Flaw::ALL.len())];
            self.encoder.spoil(device.id(), sample, flaw)
        } else {
            self.encoder.encode(device.id(), sample)
        };
        Publish::new(device.topic(), QoS::AtLeastOnce, payload)
    }
}

/// When messages are due: the fleet's devices spread evenly over the interval.
pub(super) struct Schedule {
    interval: Duration,
    devices: u32,
    start: Instant,
    done: u64,
}

impl Schedule {
    pub(super) fn new(settings: &Settings, start: Instant) -> Self {
        Self { interval: settings.interval, devices: settings.devices, start, done: 0 }
    }

    /// When the next message is due. One that is late is not dropped: the rate is kept on average.
    pub(super) fn next_due(&self) -> Instant {
        let nanos = self.interval.as_nanos() * u128::from(self.done) / u128::from(self.devices);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Goes on to the next message.
    pub(super) fn advance(&mut self) {
        self.done += 1;
    }

    /// Forgets what would have been due before `now`, as after a time without connection.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.start, self.done) = (now, 0);
    }
}

#[cfg(test)]
mod tests {

    use std::collections::BTreeSet;

    use super::*;
    use crate::base::settings::Sources;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::read(&mut Sources::new(variables.collect(), ""))
    }

    #[test]
    fn devices_take_turns_spread_over_the_interval() {
        let start = Instant::now();
        let settings = settings(&[("NUM_DEVICES", "4"), ("PUBLISH_INTERVAL_MS", "1000")]);
        let mut schedule = Schedule::new(&settings, start);
        let due: Vec<_> = (0..6)
            .map(|_| {
                let due = schedule.next_due().duration_since(start).as_millis();
                schedule.advance();
                due
            })
            .collect();
        assert_eq!(due, [0, 250, 500, 750, 1_000, 1_250]);
        let mut fleet = Fleet::new(&settings);
        let topics: Vec<_> = (0..5).map(|_| fleet.publish().topic).collect();
        let expected = ["001", "002", "003", "004", "001"].map(|n| format!("telemetry/sensor-{n}"));
        assert_eq!(topics, expected);
    }

    #[test]
    fn no_payload_repeats_at_full_speed() {
        let mut fleet = Fleet::new(&settings(&[("NUM_DEVICES", "1")]));
        let stamps: BTreeSet<_> = (0..10_000)
            .map(|_| String::from_utf8(fleet.publish().payload.to_vec()).unwrap())
            .map(|payload| payload.split("\"timestamp\":\"").nth(1).unwrap()[..27].to_owned())
            .collect();
        assert_eq!(stamps.len(), 10_000);
    }

    #[test]
    fn the_asked_for_share_of_messages_is_invalid() {
        let mut fleet = Fleet::new(&settings(&[("INVALID_RATIO", "0.25")]));
        let mut invalid = 0;
        for _ in 0..10_000 {
            let payload = fleet.publish().payload;
            crate::telemetry::decode::decode(&payload, |_, outcome| {
                let flawed = |r: &crate::telemetry::Reading| {
                    r.values[0] > 100.0
                        || r.values[1] > 100.0
                        || r.values[2] < 0.0
                        || r.device_id.is_empty()
                        || r.timestamp.seconds_since(Timestamp::now()).abs() > 86_400.0
                };
                invalid += i32::from(outcome.map_or(true, |reading| flawed(&reading)));
            });
        }
        assert!((2_200..2_800).contains(&invalid), "{invalid}");
    }
}
