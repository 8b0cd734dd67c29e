//! Watches over the parts that could hang, and speaks to systemd.
//!
//! sled can hang instead of failing after an I/O error, and a disk can. A process that takes
//! messages and never acknowledges them is worse than one that restarts, so a part that has made
//! no progress for [`PATIENCE`] ends the process, with or without systemd.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::base::activity::Activity;
use crate::status::health::{Health, WalState};
use crate::wal::{Log, Room};

/// Longest time that one commit or one trim may take.
const PATIENCE: Duration = Duration::from_secs(60);

const TICK: Duration = Duration::from_secs(1);

/// Tells systemd that the service is up.
pub fn notify_ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that the service is going down.
pub fn notify_stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    // Without systemd this does nothing.
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd was not notified");
    }
}

/// Runs until a part is stuck.
///
/// # Errors
/// The name of the part.
pub async fn run<const N: usize>(
    watched: [(&'static str, Activity); N],
    log: Log,
    health: Arc<Health>,
) -> anyhow::Result<()> {
    let mut interval = 0;
    let systemd_wants_pings = sd_notify::watchdog_enabled(false, &mut interval);
    // Half of what systemd waits, or it would be a race.
    let ping_limit = Duration::from_micros(interval) / 2;
    let mut tick =
        tokio::time::interval(TICK.min(if systemd_wants_pings { ping_limit } else { TICK }));
    let mut shown = String::new();
    let maintenance = Activity::default();
    let mut watched = Vec::from(watched);
    watched.push(("maintenance of the log", maintenance.clone()));
    loop {
        tick.tick().await;
        if let Some((name, activity)) = watched.iter().find(|(_, part)| part.busy_for() > PATIENCE)
        {
            let seconds = activity.busy_for().as_secs();
            anyhow::bail!("{name} has made no progress for {seconds} s, as when a disk hangs");
        }
        if maintenance.busy_for() == Duration::ZERO {
            maintenance.begin();
            let (log, maintenance) = (log.clone(), maintenance.clone());
            // Not awaited: it may hang on the disk, which is what is watched for here.
            tokio::task::spawn_blocking(move || {
                log.maintain();
                maintenance.end();
            });
        }
        show_room(&log, &health);
        let pending = log.stats().pending_records;
        let line = format!("{pending} readings pending in the log");
        if line != shown {
            notify(&[NotifyState::Status(&line)]);
            shown = line;
        }
        let stuck = watched.iter().any(|(_, part)| part.busy_for() > ping_limit);
        if systemd_wants_pings && !stuck {
            notify(&[NotifyState::Watchdog]);
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
