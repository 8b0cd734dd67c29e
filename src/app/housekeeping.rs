//! What is done once a second, and what is brought up to date when somebody looks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::watchdog;
use crate::base::activity::Activity;
use crate::base::metrics::Metrics;
use crate::base::output::Output;
use crate::base::time::Timestamp;
use crate::postgres::Database;
use crate::status::health::{Health, WalState};
use crate::status::history::History;
use crate::wal::{Log, Room};

const TICK: Duration = Duration::from_secs(1);

/// Maintains the log, and shows its state to health and to systemd; ends with an error or never.
pub(super) async fn run(
    log: Log,
    health: Arc<Health>,
    maintenance: Activity,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(TICK);
    // After a pause of the machine once is enough.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = None;
    loop {
        tick.tick().await;
        if maintenance.busy_since().is_none() {
            maintenance.begin();
            let (log, maintenance) = (log.clone(), maintenance.clone());
            // Not awaited: it may hang on the disk, which is what the watchdog watches for.
            tokio::task::spawn_blocking(move || {
                log.maintain();
                maintenance.end();
            });
        }
        show_room(&log, &health);
        let pending = log.stats().pending_records;
        if shown != Some(pending) {
            watchdog::notify_status(&format!("{pending} readings pending in the log"));
            shown = Some(pending);
        }
    }
}

fn show_room(log: &Log, health: &Health) {
    let state = match &*log.room().borrow() {
        _ if log.is_poisoned() => WalState::Failed,
        Room::Open => WalState::Ok,
        Room::Full(_) => WalState::Full,
    };
    health.set_wal(state);
}

/// Brings what is computed only when somebody looks up to date.
pub(super) fn refresh(
    log: &Log,
    history: &Arc<History>,
    metrics: &Metrics,
    database: &Database,
    output: &Output,
) -> Arc<dyn Fn() + Send + Sync> {
    let (log, history, metrics) = (log.clone(), Arc::clone(history), metrics.clone());
    let (database, output) = (database.clone(), output.clone());
    Arc::new(move || {
        let space = history.space(&log);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.wal_pending_records.set(gauge(log.stats().pending_records));
        metrics.wal_disk_bytes.set(gauge(space.used_bytes));
        metrics.wal_left_bytes.set(gauge(space.left_bytes()));
        metrics.wal_oldest_pending_seconds.set(log.oldest_pending_seconds());
        metrics.db_unsafe.set(gauge(database.findings().len() as u64));
        metrics.partitions_ahead_seconds.set(database.partitions_ahead_seconds());
        let (partitions, rows, is_held_up, last_success) = database.retention_counts();
        let counts = [
            (&metrics.retention_removed_partitions, partitions),
            (&metrics.retention_removed_rows, rows),
        ];
        for (counter, count) in counts {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        metrics.retention_held_up.set(is_held_up.into());
        let since_epoch = |at: Timestamp| at.seconds_since(Timestamp::UNIX_EPOCH);
        metrics.retention_last_success.set(last_success.map_or(f64::NAN, since_epoch));
        let dropped = output.dropped().saturating_sub(metrics.log_lines_dropped.get());
        metrics.log_lines_dropped.inc_by(dropped);
    })
}
