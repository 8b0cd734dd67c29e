//! One simulated device: what it measures drifts as slowly as weather and batteries do.

use std::f64::consts::TAU;

use fastrand::Rng;

use crate::base::time::Timestamp;
use crate::telemetry::fields::COUNT;

const DAY_SECS: f64 = 86_400.0;
/// How fast the weather forgets.
const DRIFT_SECS: f64 = 1_800.0;
/// The hour, UTC, about which devices are warmest.
const WARMEST_HOUR: f64 = 14.0;

/// Hundredths of a unit. Readings carry two decimals, and whole numbers are quick to print.
pub(super) type Hundredths = i32;

/// What a device measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) timestamp: Timestamp,
    /// In the order of [`FIELDS`](crate::telemetry::fields::FIELDS).
    pub(super) values: [Hundredths; COUNT],
}

impl Sample {
    /// The same, but for the value of one field.
    pub(super) fn with(mut self, field: usize, value: Hundredths) -> Self {
        self.values[field] = value;
        self
    }
}

pub(super) struct Device {
    id: String,
    topic: String,
    character: Character,
    last: Timestamp,
    /// °C that the weather of the hour adds.
    drift: f64,
    battery: f64,
    charging: bool,
    /// Smallest difference between two of its times, in microseconds.
    resolution: i64,
}

/// What distinguishes a device; drawn from its number, so that it is the same in every run.
struct Character {
    mean_temperature: f64,
    daily_swing: f64,
    /// Seconds by which its warmest time is off.
    phase: f64,
    mean_humidity: f64,
    /// Battery, % per second.
    discharge: f64,
    charge: f64,
    /// Battery, %, at which it is put on the charger and taken off.
    low: f64,
    high: f64,
}

impl Device {
    /// The device with this number, counted from 1, as it is at `now`.
    pub(super) fn new(number: u32, now: Timestamp, rng: &mut Rng) -> Self {
        let id = format!("sensor-{number:03}");
        let character = Character::of(number);
        Self {
            topic: format!("telemetry/{id}"),
            id,
            last: now,
            drift: 0.8 * bell(rng),
            battery: between(rng, character.low, character.high),
            charging: false,
            resolution: 1,
            character,
        }
    }

    /// The same, with a clock that gives no time between multiples of so many microseconds.
    pub(super) fn with_resolution(mut self, resolution: i64) -> Self {
        self.resolution = resolution;
        self.last = self.as_told(self.last);
        self
    }

    fn as_told(&self, time: Timestamp) -> Timestamp {
        let micros = time.as_micros().div_euclid(self.resolution) * self.resolution;
        Timestamp::from_micros(micros).unwrap_or(time)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Measures at `now`, or a step of its clock after the last time if that has not moved since: no
    /// device ever gives two readings the same timestamp.
    pub(super) fn measure(&mut self, now: Timestamp, rng: &mut Rng) -> Sample {
        let soonest = Timestamp::from_micros(self.last.as_micros().saturating_add(self.resolution));
        let now = self.as_told(now);
        let timestamp = soonest.map_or(now, |soonest| soonest.max(now));
        let elapsed = timestamp.seconds_since(self.last);
        self.last = timestamp;

        let forgotten = (-elapsed / DRIFT_SECS).exp();
        self.drift =
            self.drift * forgotten + 0.8 * (1.0 - forgotten * forgotten).sqrt() * bell(rng);
        self.use_battery(elapsed);

        let character = &self.character;
        let day = (seconds(timestamp) + character.phase - WARMEST_HOUR * 3_600.0) / DAY_SECS;
        let warmth = character.daily_swing * (day * TAU).cos() + self.drift;
        let temperature = character.mean_temperature + warmth + 0.05 * bell(rng);
        // The same water in warmer air is a lower relative humidity.
        let humidity = character.mean_humidity - 2.2 * warmth + 0.2 * bell(rng);
        Sample {
            timestamp,
            values: [
                hundredths(temperature),
                hundredths(humidity.clamp(5.0, 99.0)),
                hundredths((self.battery + 0.02 * bell(rng)).clamp(0.0, 100.0)),
            ],
        }
    }

    fn use_battery(&mut self, elapsed: f64) {
        let character = &self.character;
        if self.charging {
            self.battery = (self.battery + character.charge * elapsed).min(character.high);
            self.charging = self.battery < character.high;
        } else {
            // On the charger in time, however long ago it was last asked.
            self.battery = (self.battery - character.discharge * elapsed).max(character.low - 1.0);
            self.charging = self.battery < character.low;
        }
    }
}

impl Character {
    fn of(number: u32) -> Self {
        let rng = &mut Rng::with_seed(u64::from(number));
        Self {
            mean_temperature: between(rng, 14.0, 26.0),
            daily_swing: between(rng, 2.0, 7.0),
            phase: between(rng, -3_600.0, 3_600.0),
            mean_humidity: between(rng, 45.0, 65.0),
            discharge: 85.0 / (between(rng, 12.0, 72.0) * 3_600.0),
            charge: 85.0 / (between(rng, 1.0, 3.0) * 3_600.0),
            low: between(rng, 8.0, 20.0),
            high: between(rng, 92.0, 100.0),
        }
    }
}

fn between(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.f64()
}

/// Nearly normal, mean 0, deviation 1, never beyond ±3.
fn bell(rng: &mut Rng) -> f64 {
    (rng.f64() + rng.f64() + rng.f64() - 1.5) * 2.0
}

#[expect(clippy::cast_precision_loss, reason = "the time of day needs no microseconds")]
fn seconds(timestamp: Timestamp) -> f64 {
    timestamp.as_micros() as f64 / 1e6
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded on purpose; measured values are small"
)]
fn hundredths(value: f64) -> Hundredths {
    (value * 100.0).round() as Hundredths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_759_667_696_000_000 + second * 1_000_000).unwrap()
    }

    /// `device`'s samples of `days` days, one every `step` seconds.
    fn samples(number: u32, days: i64, step: i64) -> Vec<Sample> {
        let rng = &mut Rng::with_seed(7);
        let mut device = Device::new(number, at(0), rng);
        (1..days * 86_400 / step).map(|n| device.measure(at(n * step), rng)).collect()
    }

    #[test]
    fn values_stay_in_the_contracts_bounds_for_months() {
        for number in 1..=50 {
            for sample in samples(number, 60, 600) {
                assert!((-5_000..=10_000).contains(&sample.values[0]), "{sample:?}");
                assert!((0..=10_000).contains(&sample.values[1]), "{sample:?}");
                assert!((0..=10_000).contains(&sample.values[2]), "{sample:?}");
            }
        }
    }

    #[test]
    fn timestamps_rise_even_if_the_clock_stands_still_or_steps_back() {
        let rng = &mut Rng::with_seed(7);
        let mut device = Device::new(1, at(0), rng);
        let clock = [5, 5, 5, 3, 4, 6];
        let stamps: Vec<_> = clock.map(|s| device.measure(at(s), rng).timestamp).to_vec();
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        assert_eq!((stamps[0], stamps[5]), (at(5), at(6)));
    }

    #[test]
    fn neighbouring_readings_are_close() {
        for pair in samples(3, 2, 1).windows(2) {
            assert!((pair[0].values[0] - pair[1].values[0]).abs() < 100, "{pair:?}");
            assert!((pair[0].values[1] - pair[1].values[1]).abs() < 300, "{pair:?}");
            assert!((pair[0].values[2] - pair[1].values[2]).abs() < 20, "{pair:?}");
        }
    }

    #[test]
    fn nights_are_colder_and_damper_than_days() {
        let all = samples(4, 20, 600);
        let mean = |hour: i64, value: fn(&Sample) -> Hundredths| {
            let at_hour = |s: &&Sample| s.timestamp.as_micros() / 3_600_000_000 % 24 == hour;
            let values: Vec<_> = all.iter().filter(at_hour).map(value).collect();
            values.iter().map(|&v| i64::from(v)).sum::<i64>() / i64::try_from(values.len()).unwrap()
        };
        assert!(mean(2, |s| s.values[0]) + 200 < mean(14, |s| s.values[0]));
        assert!(mean(2, |s| s.values[1]) > mean(14, |s| s.values[1]) + 200);
    }

    #[test]
    fn a_battery_falls_and_is_charged_again() {
        let all = samples(5, 10, 600);
        let lowest = all.iter().map(|s| s.values[2]).min().unwrap();
        let highest = all.iter().map(|s| s.values[2]).max().unwrap();
        assert!(lowest < 2_100 && highest > 9_100, "{lowest} to {highest}");
    }
}
