//! The state of the parts, as their owners report it and as `/health/ready` shows it.
//!
//! Each part reports its own state and nobody else's, so an atomic each is enough. A setter says
//! whether anything changed, so that its caller can log one line a change; the first report is
//! always a change. The gauges of the metrics follow.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use serde::Serialize;

use crate::metrics::Metrics;

/// Whether the log accepts writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum WalState {
    /// It does.
    Ok = 1,
    /// Not until there is room again.
    Full = 2,
    /// Not any more: a commit failed, and the process is about to end. This state is final.
    Failed = 3,
}

/// The state of the parts, shared by all of them.
pub struct Health {
    metrics: Metrics,
    mqtt: AtomicU8,
    wal: AtomicU8,
    database: AtomicU8,
    stopping: AtomicBool,
}

/// Nothing reported yet.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

impl Health {
    /// Nothing is known to work yet, but the log: a process that cannot open it does not start.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            mqtt: AtomicU8::new(UNKNOWN),
            wal: AtomicU8::new(WalState::Ok as u8),
            database: AtomicU8::new(UNKNOWN),
            stopping: AtomicBool::new(false),
        }
    }

    /// The source is connected to the broker, or is not. Returns whether that is news.
    pub fn set_mqtt_connected(&self, connected: bool) -> bool {
        self.metrics.mqtt_connected.set(connected.into());
        swap(&self.mqtt, connected)
    }

    /// The database answered the flusher, or failed it. Returns whether that is news.
    pub fn set_database_up(&self, up: bool) -> bool {
        self.metrics.db_up.set(up.into());
        swap(&self.database, up)
    }

    /// The log's state. Returns whether that is news.
    pub fn set_wal(&self, state: WalState) -> bool {
        let failed = WalState::Failed as u8;
        let update = |now| (now != failed && now != state as u8).then_some(state as u8);
        let changed = self.wal.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).is_ok();
        self.metrics.wal_full.set((self.wal() == WalState::Full).into());
        changed
    }

    /// The process is about to end: not ready from now on. Returns whether that is news.
    pub fn set_stopping(&self) -> bool {
        !self.stopping.swap(true, Ordering::AcqRel)
    }

    /// The log's state.
    #[must_use]
    pub fn wal(&self) -> WalState {
        match self.wal.load(Ordering::Acquire) {
            state if state == WalState::Failed as u8 => WalState::Failed,
            state if state == WalState::Full as u8 => WalState::Full,
            _ => WalState::Ok,
        }
    }

    /// Whether the broker is connected.
    #[must_use]
    pub fn is_mqtt_connected(&self) -> bool {
        self.mqtt.load(Ordering::Acquire) == UP
    }

    /// Whether the database answered when it was last used.
    #[must_use]
    pub fn is_database_up(&self) -> bool {
        self.database.load(Ordering::Acquire) == UP
    }

    /// Whether messages can be taken: the broker is connected and the log accepts writes. The
    /// database has no say in it.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.report().is_ready()
    }

    /// All of it, for `/health/ready`.
    #[must_use]
    pub fn report(&self) -> Report {
        let (mqtt, wal) = (self.is_mqtt_connected(), self.wal());
        let ready = mqtt && wal == WalState::Ok && !self.stopping.load(Ordering::Acquire);
        Report {
            status: if ready { "ready" } else { "not_ready" },
            mqtt: if mqtt { "connected" } else { "disconnected" },
            wal,
            database: if self.is_database_up() { "up" } else { "down" },
        }
    }
}

/// The body of `/health/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `ready` or `not_ready`.
    pub status: &'static str,
    /// `connected` or `disconnected`.
    pub mqtt: &'static str,
    /// `ok`, `full` or `failed`.
    pub wal: WalState,
    /// `up` or `down`.
    pub database: &'static str,
}

impl Report {
    /// Whether `status` is `ready`.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

fn swap(part: &AtomicU8, up: bool) -> bool {
    let state = if up { UP } else { DOWN };
    part.swap(state, Ordering::AcqRel) != state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(Metrics::new().unwrap())
    }

    #[test]
    fn the_body_is_that_of_the_contract() {
        let health = health();
        assert_eq!(
            serde_json::to_string(&health.report()).unwrap(),
            r#"{"status":"not_ready","mqtt":"disconnected","wal":"ok","database":"down"}"#
        );
        health.set_mqtt_connected(true);
        health.set_database_up(true);
        assert_eq!(
            serde_json::to_string(&health.report()).unwrap(),
            r#"{"status":"ready","mqtt":"connected","wal":"ok","database":"up"}"#
        );
    }

    #[test]
    fn a_database_outage_is_not_unreadiness_but_all_else_is() {
        let health = health();
        health.set_mqtt_connected(true);
        health.set_database_up(false);
        assert!(health.ready());
        health.set_wal(WalState::Full);
        assert!(!health.ready());
        health.set_wal(WalState::Ok);
        assert!(health.ready());
        health.set_mqtt_connected(false);
        assert!(!health.ready());
        health.set_mqtt_connected(true);
        health.set_stopping();
        assert!(!health.ready());
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
    fn gauges_follow() {
        let metrics = Metrics::new().unwrap();
        let health = Health::new(metrics.clone());
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
