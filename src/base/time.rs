//! Time: [`Timestamp`], an instant of the wall clock to the microsecond, and [`Clock`], where both kinds
//! of time come from.
//!
//! What decides takes the time as an argument. What has to ask for it takes a [`Clock`], so that a test
//! or a simulation sets the time and the same seed gives the same run.

#![expect(clippy::disallowed_methods, reason = "the clocks of this machine are here")]

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};

/// What a calendar date is known for.
const MICROS: RangeInclusive<i64> =
    DateTime::<Utc>::MIN_UTC.timestamp_micros()..=DateTime::<Utc>::MAX_UTC.timestamp_micros();

/// An instant as microseconds since the Unix epoch, the resolution of PostgreSQL's `timestamptz`.
///
/// Displayed as RFC 3339 in UTC with `Z`, with as many decimals as needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub(crate) const UNIX_EPOCH: Self = Self(0);

    /// The instant this many microseconds after the Unix epoch, or `None` outside the years
    /// −262143 to 262142, which is what a calendar date is known for here.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        MICROS.contains(&micros).then_some(Self(micros))
    }

    /// The instant this many milliseconds after the Unix epoch; `None` as in [`Self::from_micros`].
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1_000).and_then(Self::from_micros)
    }

    /// Reads RFC 3339 with any offset; what is finer than a microsecond is cut off.
    #[must_use]
    pub(crate) fn from_rfc3339(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|at| Self(at.timestamp_micros()))
    }

    /// The clock of this machine.
    #[must_use]
    pub fn now() -> Self {
        let now = SystemTime::now();
        let micros = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)
            }
        };
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to `self`, negative if it lies ahead.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a duration for a person or a histogram")]
    pub(crate) fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e6
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(timestamp: Timestamp) -> Self {
        // Every value but the machine's own clock went through `from_micros`, so it is in range.
        DateTime::from_timestamp_micros(timestamp.0).unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at: DateTime<Utc> = (*self).into();
        f.write_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Time since a moment that is the same for as long as this clock is used. Never goes back, and is
    /// not set by anybody: durations are measured with it.
    fn monotonic(&self) -> Duration;

    /// The time of day, which can be set, so it may jump in both directions.
    fn wall(&self) -> Timestamp;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until it is moved, for tests and simulations. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct ManualClock {
    state: Arc<Mutex<(Duration, Timestamp)>>,
}

impl ManualClock {
    /// A clock that reads `wall`, with its monotonic time at 0.
    #[must_use]
    pub fn at(wall: Timestamp) -> Self {
        Self { state: Arc::new(Mutex::new((Duration::ZERO, wall))) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (monotonic, wall) = *state;
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        *state = (monotonic + by, Timestamp(wall.0.saturating_add(micros)));
    }

    /// Sets the time of day, as an operator or a time server does.
    #[cfg(test)]
    pub(crate) fn set_wall(&self, wall: Timestamp) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = wall;
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn wall(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_converted_to_utc_and_microseconds_are_kept() {
        let at = Timestamp::from_rfc3339("2025-10-05T14:34:56.1234569+02:00").unwrap();
        assert_eq!(at.to_string(), "2025-10-05T12:34:56.123456Z");
    }

    #[test]
    fn whole_seconds_are_shown_without_decimals() {
        assert_eq!(
            Timestamp::from_millis(1_759_667_696_000).unwrap().to_string(),
            "2025-10-05T12:34:56Z"
        );
    }

    #[test]
    fn instants_without_a_calendar_date_are_refused() {
        assert_eq!(Timestamp::from_millis(i64::MAX), None);
        assert_eq!(Timestamp::from_micros(i64::MIN), None);
        for edge in [*MICROS.start(), *MICROS.end()] {
            for micros in [edge - 1, edge, edge + 1] {
                let date = DateTime::<Utc>::from_timestamp_micros(micros);
                assert_eq!(Timestamp::from_micros(micros).map(DateTime::from), date, "{micros}");
            }
        }
    }

    #[test]
    fn a_manual_clock_passes_only_when_it_is_moved_and_its_time_of_day_can_be_set_back() {
        let start = Timestamp::from_millis(1_000).unwrap();
        let clock = ManualClock::at(start);
        let same = clock.clone();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(same.monotonic(), Duration::from_millis(1_500));
        assert_eq!(same.wall(), Timestamp::from_millis(2_500).unwrap());
        same.set_wall(start);
        assert_eq!((clock.monotonic(), clock.wall()), (Duration::from_millis(1_500), start));
    }
}
