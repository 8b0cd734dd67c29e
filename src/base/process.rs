//! The `process_*` metrics, with a start time that is right once the clock is.
//!
//! The library asks once for the start time, and a box without a battery starts in 1970: whoever
//! subtracts it from the time of day would read 56 years.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Gauge, MetricFamily};

use super::time::Timestamp;

const START_TIME: &str = "process_start_time_seconds";

/// By so much the start time may be off: a change is a restart to whoever counts changes.
const TOLERANCE_SECS: i64 = 60;

/// See the module.
pub(super) struct Process {
    library: ProcessCollector,
    /// When this was made, in seconds since the machine started, the time it was suspended included.
    made: i64,
    /// The start time that was shown last; 0: none was.
    shown: AtomicI64,
}

impl Process {
    pub(super) fn new() -> Self {
        let library = ProcessCollector::for_self();
        Self { library, made: seconds_of_boot(), shown: AtomicI64::new(0) }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.library.desc()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "seconds")]
    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.library.collect();
        let started = families.iter_mut().find(|family| family.name() == START_TIME);
        if let Some(metric) = started.and_then(|family| family.mut_metric().first_mut()) {
            let now = Timestamp::now().as_micros() / 1_000_000;
            let by_clock = now.saturating_sub(seconds_of_boot().saturating_sub(self.made));
            let shown = match self.shown.load(Ordering::Relaxed) {
                0 => metric.get_gauge().get_value() as i64,
                shown => shown,
            };
            let shown = corrected(shown, by_clock);
            self.shown.store(shown, Ordering::Relaxed);
            let mut gauge = Gauge::default();
            gauge.set_value(shown as f64);
            metric.set_gauge(gauge);
        }
        families
    }
}

fn corrected(shown: i64, by_clock: i64) -> i64 {
    let is_right = shown.saturating_sub(by_clock).saturating_abs() <= TOLERANCE_SECS;
    if is_right { shown } else { by_clock }
}

/// Which no clock that is set changes, and no suspension holds up.
fn seconds_of_boot() -> i64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_follows_a_clock_that_is_set_and_no_clock_that_drifts() {
        assert_eq!(corrected(1_000, 1_030), 1_000);
        assert_eq!(corrected(5, 1_800_000_000), 1_800_000_000);
        assert_eq!(corrected(1_800_086_400, 1_800_000_000), 1_800_000_000);
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    fn the_start_time_that_is_shown_lies_a_moment_ago() {
        let families = Process::new().collect();
        let started = families.iter().find(|family| family.name() == START_TIME).unwrap();
        let shown = started.get_metric()[0].get_gauge().get_value();
        let shown = Timestamp::from_millis(shown as i64 * 1_000).unwrap();
        let ago = Timestamp::now().seconds_since(shown);
        assert!(ago.abs() <= 120.0, "{ago}");
    }
}
