//! The state of the parts, as their owners report it and as `/health/ready` shows it.
//!
//! Each part reports its own state and nobody else's, so an atomic each is enough. A setter says
//! whether anything changed, so that its caller can log one line a change; the first report is
//! always a change. The gauges of the metrics follow.
//!
//! Since when a part is in its state is an age, by the monotonic clock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::base::metrics::Metrics;
use crate::base::time::Clock;

/// Whether the log accepts writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u64)]
pub(crate) enum WalState {
    /// It takes writes.
    Ok = 1,
    /// Not until there is room again.
    Full = 2,
    /// Not any more: a commit failed, and the process is about to end. This state is final.
    Failed = 3,
}

/// The state of the parts, shared by all of them.
pub(crate) struct Health {
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    /// When that showed this, the process had started.
    started: Duration,
    mqtt: Part,
    /// Filters that are not granted.
    missing_filters: Mutex<Vec<String>>,
    /// Why the source stays away from the broker.
    away: Mutex<Option<&'static str>>,
    wal: Part,
    database: Part,
    /// Set while a query had no answer at all and none has had one since: when it was last asked whether the
    /// database is there again.
    silence: Mutex<Option<Duration>>,
    stopping: AtomicBool,
}

/// Between two questions whether a database is there again that left a query without an answer.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How long each part has been in its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    /// Connected, unsubscribed, or neither.
    pub(crate) mqtt: Duration,
    /// Ok, full or failed.
    pub(crate) wal: Duration,
    /// Up, or down.
    pub(crate) database: Duration,
}

/// Nothing reported yet.
const UNKNOWN: u64 = 0;
const UP: u64 = 1;
const DOWN: u64 = 2;
/// Connected, but of no use.
const UNSUBSCRIBED: u64 = 3;

/// A state in the lowest byte, and above it how many milliseconds after the start it began: one
/// value, so that nobody sees a state with another's age.
struct Part(AtomicU64);

const STATE_BITS: u32 = 8;

impl Part {
    fn new(state: u64) -> Self {
        Self(AtomicU64::new(state))
    }

    fn state(&self) -> u64 {
        self.0.load(Ordering::Acquire) & ((1 << STATE_BITS) - 1)
    }

    fn since(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire) >> STATE_BITS)
    }

    /// Returns whether that is news. It is no news of what is `fixed`.
    fn set(&self, state: u64, fixed: Option<u64>, now: Duration) -> bool {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX >> STATE_BITS) << STATE_BITS;
        let update = |before: u64| {
            let was = before & ((1 << STATE_BITS) - 1);
            // What was never up has been down since the start.
            let since = if (was, state) == (UNKNOWN, DOWN) { 0 } else { now };
            (was != state && Some(was) != fixed).then_some(since | state)
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).is_ok()
    }
}

impl Health {
    /// Nothing is known to work yet, but the log: a process that cannot open it does not start.
    #[must_use]
    pub(crate) fn new(metrics: Metrics, clock: Arc<dyn Clock>) -> Self {
        Self {
            metrics,
            started: clock.monotonic(),
            clock,
            mqtt: Part::new(UNKNOWN),
            missing_filters: Mutex::default(),
            away: Mutex::default(),
            wal: Part::new(WalState::Ok as u64),
            database: Part::new(UNKNOWN),
            silence: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The source is connected to the broker and has every filter, or is not. Returns whether that
    /// is news.
    pub(crate) fn set_mqtt_connected(&self, connected: bool) -> bool {
        self.set_mqtt(up_or_down(connected), Vec::new())
    }

    /// The source is connected to the broker, which has not granted these filters. Returns whether
    /// that is news.
    pub(crate) fn set_mqtt_unsubscribed(&self, filters: Vec<String>) -> bool {
        self.set_mqtt(UNSUBSCRIBED, filters)
    }

    /// The source stays away from the broker, for this reason. Returns whether that is news.
    pub(crate) fn set_mqtt_away(&self, reason: &'static str) -> bool {
        let is_news = self.set_mqtt(DOWN, Vec::new());
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        is_news
    }

    fn set_mqtt(&self, state: u64, missing: Vec<String>) -> bool {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.missing_filters.lock().unwrap_or_else(PoisonError::into_inner) = missing;
        self.metrics.mqtt_connected.set((state != DOWN).into());
        self.mqtt.set(state, None, self.uptime())
    }

    /// The database answered the flusher, or failed it. Returns whether that is news.
    pub(crate) fn set_database_up(&self, up: bool) -> bool {
        self.metrics.db_up.set(up.into());
        self.database.set(up_or_down(up), None, self.uptime())
    }

    /// The log's state. Returns whether that is news.
    pub(crate) fn set_wal(&self, state: WalState) -> bool {
        let failed = WalState::Failed as u64;
        let changed = self.wal.set(state as u64, Some(failed), self.uptime());
        self.metrics.wal_full.set((self.wal() == WalState::Full).into());
        changed
    }

    /// The process is about to end: not ready from now on. Returns whether that is news.
    pub(crate) fn set_stopping(&self) -> bool {
        !self.stopping.swap(true, Ordering::AcqRel)
    }

    /// The log's state.
    #[must_use]
    pub(crate) fn wal(&self) -> WalState {
        match self.wal.state() {
            state if state == WalState::Failed as u64 => WalState::Failed,
            state if state == WalState::Full as u64 => WalState::Full,
            _ => WalState::Ok,
        }
    }

    /// The filters that the broker has not granted; empty without a connection.
    #[must_use]
    pub(crate) fn missing_filters(&self) -> Vec<String> {
        self.missing_filters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the source stays away from the broker, if it does.
    #[must_use]
    pub(crate) fn away(&self) -> Option<&'static str> {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the database answered when it was last used.
    #[must_use]
    pub(crate) fn is_database_up(&self) -> bool {
        self.database.state() == UP
    }

    /// Whether the database failed the flusher when it was last used.
    #[must_use]
    pub(crate) fn is_database_down(&self) -> bool {
        self.database.state() == DOWN
    }

    /// Whether the database failed the flusher when it was last used, or has left a query without an
    /// answer: one that hangs is known to the flusher only when its own patience is at an end.
    #[must_use]
    pub(crate) fn is_database_doubtful(&self) -> bool {
        let silence = *self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_database_down() || silence.is_some()
    }

    /// Whether it is time to ask the database, with all patience, whether it answers again, so that no request
    /// has to wait for it. To be done then.
    #[must_use]
    pub(crate) fn is_probe_due(&self) -> bool {
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.uptime();
        let is_due = silence.is_some_and(|at| now.saturating_sub(at) >= PROBE_EVERY);
        if is_due {
            *silence = Some(now);
        }
        is_due
    }

    /// A query was answered, or was not, however long it was waited for.
    pub(crate) fn note_query(&self, is_answered: bool) {
        let silence = (!is_answered).then(|| self.uptime());
        *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = silence;
    }

    /// Whether the process is about to end.
    #[must_use]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// How long each part has been in its state; what was never up has been down since the start.
    #[must_use]
    pub(crate) fn ages(&self) -> Ages {
        let now = self.uptime();
        let age = |part: &Part| now.saturating_sub(part.since());
        Ages { mqtt: age(&self.mqtt), wal: age(&self.wal), database: age(&self.database) }
    }

    fn uptime(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    /// All of it, for `/health/ready`.
    #[must_use]
    pub(crate) fn report(&self) -> Report {
        let (mqtt, wal) = (self.mqtt.state(), self.wal());
        let ready = mqtt == UP && wal == WalState::Ok && !self.is_stopping();
        Report {
            status: if ready { "ready" } else { "not_ready" },
            mqtt: match mqtt {
                UP => "connected",
                UNSUBSCRIBED => "unsubscribed",
                _ => "disconnected",
            },
            wal,
            database: if self.is_database_up() { "up" } else { "down" },
        }
    }
}

/// What `/health/ready` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// `ready` or `not_ready`.
    pub(crate) status: &'static str,
    /// `connected`; `unsubscribed`: connected, and a filter is not granted; or `disconnected`.
    pub(crate) mqtt: &'static str,
    /// `ok`, `full` or `failed`.
    pub(crate) wal: WalState,
    /// `up` or `down`.
    pub(crate) database: &'static str,
}

impl Report {
    /// Whether `status` is `ready`.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

fn up_or_down(up: bool) -> u64 {
    if up { UP } else { DOWN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{ManualClock, Timestamp};

    fn health_by(clock: &ManualClock) -> Health {
        Health::new(Metrics::new().unwrap(), Arc::new(clock.clone()))
    }

    fn clock() -> ManualClock {
        ManualClock::at(Timestamp::UNIX_EPOCH)
    }

    fn health() -> Health {
        health_by(&clock())
    }

    #[test]
    fn a_database_outage_is_not_unreadiness_but_all_else_is() {
        let health = health();
        health.set_mqtt_connected(true);
        health.set_database_up(false);
        assert!(health.report().is_ready());
        health.set_wal(WalState::Full);
        assert!(!health.report().is_ready());
        health.set_wal(WalState::Ok);
        assert!(health.report().is_ready());
        health.set_mqtt_connected(false);
        assert!(!health.report().is_ready());
        let filter = "a/#".to_owned();
        assert!(health.set_mqtt_unsubscribed(vec![filter.clone()]));
        assert!(!health.report().is_ready());
        assert_eq!(
            (health.report().mqtt, health.missing_filters()),
            ("unsubscribed", vec![filter])
        );
        health.set_mqtt_connected(true);
        assert_eq!(health.missing_filters(), [""; 0]);
        assert!(health.report().is_ready());
        assert!(health.set_mqtt_away("the clock is wrong"));
        assert_eq!((health.report().mqtt, health.report().is_ready()), ("disconnected", false));
        assert_eq!(health.away(), Some("the clock is wrong"));
        health.set_mqtt_connected(true);
        assert_eq!((health.away(), health.report().is_ready()), (None, true));
        health.set_stopping();
        assert!(!health.report().is_ready());
    }

    #[test]
    fn the_first_report_and_every_change_are_news_and_repetition_is_not() {
        let health = health();
        assert!(health.set_database_up(false));
        assert!(!health.set_database_up(false));
        assert!(health.set_database_up(true));
        assert!(health.set_mqtt_connected(false));
        assert!(health.set_mqtt_connected(true));
        assert!(!health.set_mqtt_connected(true));
        assert!(!health.set_wal(WalState::Ok));
        assert!(health.set_wal(WalState::Full));
        assert!(health.set_stopping());
        assert!(!health.set_stopping());
    }

    #[test]
    fn an_age_begins_with_a_change_and_not_with_a_repetition() {
        let part = Part::new(UNKNOWN);
        let at = Duration::from_millis;
        part.set(DOWN, None, at(700));
        assert_eq!((part.state(), part.since()), (DOWN, at(0)));
        part.set(UP, None, at(1_500));
        part.set(UP, None, at(9_000));
        assert_eq!((part.state(), part.since()), (UP, at(1_500)));
        part.set(DOWN, None, at(10_000));
        assert_eq!((part.state(), part.since()), (DOWN, at(10_000)));
        part.set(UP, Some(DOWN), at(11_000));
        assert_eq!((part.state(), part.since()), (DOWN, at(10_000)));
    }

    #[test]
    fn a_database_that_left_a_query_without_an_answer_is_doubted_until_one_is_answered() {
        let health = health();
        health.set_database_up(true);
        assert!(!health.is_database_doubtful() && !health.is_probe_due());
        health.note_query(false);
        assert!(health.is_database_doubtful());
        health.note_query(true);
        assert!(!health.is_database_doubtful() && !health.is_probe_due());
    }

    #[test]
    fn a_silent_database_is_asked_every_five_seconds_and_by_one_of_those_who_wait() {
        let clock = clock();
        let health = health_by(&clock);
        let seconds = Duration::from_secs;
        clock.advance(seconds(3_600));
        health.note_query(false);
        for _ in 0..2 {
            clock.advance(seconds(4));
            assert!(!health.is_probe_due());
            clock.advance(seconds(1));
            assert!(health.is_probe_due());
            assert!(!health.is_probe_due(), "somebody asks already");
        }
        clock.advance(seconds(4));
        health.note_query(false);
        clock.advance(seconds(4));
        assert!(!health.is_probe_due(), "another query has found out meanwhile");
        clock.advance(seconds(3_600));
        assert!(health.is_database_doubtful(), "time alone is no answer");
    }

    #[test]
    fn ages_are_counted_from_when_the_state_changed_or_from_the_start() {
        let clock = clock();
        let seconds = Duration::from_secs;
        clock.advance(seconds(100));
        let health = health_by(&clock);
        clock.advance(seconds(7));
        health.set_database_up(false);
        health.set_mqtt_connected(true);
        clock.advance(seconds(5));
        health.set_wal(WalState::Full);
        // The time of day has no say in it.
        clock.set_wall(Timestamp::UNIX_EPOCH);
        clock.advance(seconds(1));
        let Ages { mqtt, wal, database } = health.ages();
        assert_eq!((mqtt, wal, database), (seconds(6), seconds(1), seconds(13)));
    }

    #[test]
    fn gauges_follow() {
        let metrics = Metrics::new().unwrap();
        let health = Health::new(metrics.clone(), Arc::new(clock()));
        health.set_mqtt_connected(true);
        health.set_database_up(true);
        health.set_wal(WalState::Full);
        let gauges = [&metrics.mqtt_connected, &metrics.db_up, &metrics.wal_full];
        assert_eq!(gauges.map(prometheus::IntGauge::get), [1, 1, 1]);
        health.set_wal(WalState::Ok);
        assert_eq!(metrics.wal_full.get(), 0);
    }

    #[test]
    fn a_failed_log_stays_failed() {
        let health = health();
        assert!(health.set_wal(WalState::Failed));
        assert!(!health.set_wal(WalState::Ok));
        assert_eq!(health.wal(), WalState::Failed);
    }
}
