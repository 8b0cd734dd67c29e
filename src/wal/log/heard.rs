//! When a device was last heard of.
//!
//! By the arrival of its readings and not by the times that they bear: the clock of a device may be wrong, and
//! what it sends late it has sent all the same. And by the monotonic clock, so that it silences nobody when the
//! time of day is set. Of what an earlier process has received the time of day is all that is known.

use std::time::Duration;

use crate::base::time::Timestamp;
use crate::telemetry::validate::TimeOfDay;

/// A moment on the monotonic clock of the log, in milliseconds; negative before that clock began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Heard(i64);

impl Heard {
    /// At this time of the monotonic clock.
    #[must_use]
    pub(crate) fn at(monotonic: Duration) -> Self {
        Self(i64::try_from(monotonic.as_millis()).unwrap_or(i64::MAX))
    }

    /// At the time of day `at`, where both clocks read `monotonic` and `now`. At the latest then, as it lies
    /// behind; and just then while the time of day cannot be right, and says nothing.
    #[must_use]
    pub(super) fn dated(at: Timestamp, monotonic: Duration, now: TimeOfDay) -> Self {
        let Self(monotonic) = Self::at(monotonic);
        let age = now.now().as_micros().saturating_sub(at.as_micros()) / 1_000;
        Self(if now.is_plausible() { monotonic.saturating_sub(age.max(0)) } else { monotonic })
    }

    /// How long ago that was, at this time of the monotonic clock.
    #[must_use]
    pub(crate) fn age(self, monotonic: Duration) -> Duration {
        let Self(now) = Self::at(monotonic);
        Duration::from_millis(u64::try_from(now.saturating_sub(self.0)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_rfc3339(text).unwrap()
    }

    #[test]
    fn what_an_earlier_process_has_received_is_as_old_as_the_time_of_day_says_if_that_can_be_right()
    {
        let now = TimeOfDay::at(at("2100-01-01T01:00:00Z"));
        let started = Duration::from_secs(100);
        let age = |received, now| Heard::dated(at(received), started, now).age(started);
        assert_eq!(age("2100-01-01T00:59:00Z", now), Duration::from_secs(60));
        assert_eq!(
            age("2100-01-01T00:00:00Z", now),
            Duration::from_secs(3_600),
            "before the start"
        );
        assert_eq!(age("2100-01-01T02:00:00Z", now), Duration::ZERO, "dated ahead");
        let unset = TimeOfDay::at(at("1970-01-01T00:00:05Z"));
        assert_eq!(age("1970-01-01T00:00:01Z", unset), Duration::ZERO);
        let later = started + Duration::from_secs(5);
        assert_eq!(Heard::at(started).age(later), Duration::from_secs(5));
    }
}
