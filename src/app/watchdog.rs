//! Watches over the parts that could hang, and speaks to systemd.
//!
//! sled can hang instead of failing after an I/O error, and a disk can. A process that takes
//! messages and never acknowledges them is worse than one that restarts, so a part that has made
//! no progress for [`PATIENCE`] ends the process, with or without systemd.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::base::activity::Activity;

/// Longest time that one commit or one trim may take.
const PATIENCE: Duration = Duration::from_secs(60);

const TICK: Duration = Duration::from_secs(1);

/// Tells systemd that the service is up.
pub(super) fn notify_ready() {
    notify(NotifyState::Ready);
}

/// Tells systemd that the service is going down.
pub(super) fn notify_stopping() {
    notify(NotifyState::Stopping);
}

/// Tells systemd how the service is, in a line for `systemctl status`.
pub(super) fn notify_status(line: &str) {
    notify(NotifyState::Status(line));
}

fn notify(state: NotifyState<'_>) {
    // Without systemd this does nothing.
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::debug!(%error, "systemd was not notified");
    }
}

/// Runs until a part is stuck.
///
/// # Errors
/// The name of the part.
pub(super) async fn run(watched: Vec<(&'static str, Activity)>) -> anyhow::Result<()> {
    let mut interval = 0;
    let systemd_wants_pings = sd_notify::watchdog_enabled(false, &mut interval);
    // Half of what systemd waits, or it would be a race.
    let ping_limit = Duration::from_micros(interval) / 2;
    let mut tick =
        tokio::time::interval(TICK.min(if systemd_wants_pings { ping_limit } else { TICK }));
    loop {
        tick.tick().await;
        if let Some((name, activity)) = watched.iter().find(|(_, part)| part.busy_for() > PATIENCE)
        {
            let seconds = activity.busy_for().as_secs();
            anyhow::bail!("{name} has made no progress for {seconds} s, as when a disk hangs");
        }
        let stuck = watched.iter().any(|(_, part)| part.busy_for() > ping_limit);
        if systemd_wants_pings && !stuck {
            notify(NotifyState::Watchdog);
        }
    }
}
