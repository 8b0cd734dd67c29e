//! Watches over the parts that could hang, and speaks to systemd.
//!
//! sled can hang instead of failing after an I/O error, and a disk can. A process that takes
//! messages and never acknowledges them is worse than one that restarts, so a part that has made
//! no progress for [`LONGEST`] ends the process, with or without systemd. What the whole machine
//! stood still in between does not count ([`StallTimer`]).

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;

use super::stall_timer::StallTimer;
use crate::base::activity::Activity;
use crate::base::time::Clock;

/// Longest time that one commit or one trim may take.
const LONGEST: Duration = Duration::from_secs(60);

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

/// Runs until a part is stuck. The activities have the same clock.
///
/// # Errors
/// The name of the part.
pub(super) async fn run(
    watched: Vec<(&'static str, Activity)>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let mut interval = 0;
    let systemd_wants_pings = sd_notify::watchdog_enabled(false, &mut interval);
    // Half of what systemd waits, or it would be a race.
    let ping_limit = Duration::from_micros(interval) / 2;
    let period = if systemd_wants_pings { TICK.min(ping_limit) } else { TICK };
    let mut tick = tokio::time::interval(period);
    // Each look comes a whole period after the last one: what is late was lost.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut timer = StallTimer::new(period, watched.len(), clock.monotonic());
    loop {
        tick.tick().await;
        let busy: Vec<_> = watched.iter().map(|(_, part)| part.busy_since()).collect();
        let worked = timer.look(&busy, clock.monotonic());
        let stuck = worked.iter().zip(&watched).find(|(worked, _)| **worked > LONGEST);
        if let Some((worked, (name, _))) = stuck {
            let seconds = worked.as_secs();
            anyhow::bail!("{name} has made no progress for {seconds} s, as when a disk hangs");
        }
        if systemd_wants_pings && worked.iter().all(|worked| *worked <= ping_limit) {
            notify(NotifyState::Watchdog);
        }
    }
}
