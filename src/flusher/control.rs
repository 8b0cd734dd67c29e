//! Others' handle on the flusher.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::time::Clock;

/// What the flusher is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Nothing waits.
    Idle,
    /// Batches are on their way.
    Flushing,
    /// The database failed or refuses rows; the next attempt comes after a pause.
    BackingOff,
    /// An operator has stopped it.
    Paused,
}

/// What the flusher is doing, in full.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Status {
    /// In a word.
    pub(crate) state: State,
    /// Failures since the last success.
    pub(crate) consecutive_failures: u64,
    /// What the last of them was.
    pub(crate) last_error: Option<String>,
    /// Whether that was the database turning us or our rows away, rather than not answering.
    pub(crate) is_refused: bool,
    /// Offsets that were sent before and are sent again, since the database went back.
    pub(crate) resending: u64,
    /// Seconds until the next attempt, while backing off.
    pub(crate) retry_in_seconds: Option<f64>,
}

/// See the module.
pub(crate) struct Control {
    clock: Arc<dyn Clock>,
    requests: watch::Sender<Requests>,
    shown: Mutex<Shown>,
}

/// What operators want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    pub(super) is_paused: bool,
    /// How often they asked for what is refused to be dead-lettered.
    pub(super) rejects: u64,
}

/// What the flusher last said of itself.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) state: State,
    pub(super) consecutive_failures: u64,
    pub(super) last_error: Option<String>,
    pub(super) is_refused: bool,
    pub(super) resending: u64,
    /// What the clock's monotonic time is at the next attempt, while backing off.
    retry_at: Option<Duration>,
}

impl Control {
    /// The handle on a flusher that has not begun. `clock`: tells how long it still backs off.
    #[must_use]
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let shown = Shown {
            state: State::Idle,
            consecutive_failures: 0,
            last_error: None,
            is_refused: false,
            resending: 0,
            retry_at: None,
        };
        Self { clock, requests: watch::Sender::default(), shown: Mutex::new(shown) }
    }

    /// Starts no further batch until [`Self::resume`]; those in flight end. Returns whether that
    /// is news.
    pub(crate) fn pause(&self) -> bool {
        self.set_paused(true)
    }

    /// Takes [`Self::pause`] back. Returns whether that is news.
    pub(crate) fn resume(&self) -> bool {
        self.set_paused(false)
    }

    /// Makes dead letters of what the database refuses, whoever is at fault, until it accepts a row
    /// again.
    pub(crate) fn reject(&self) {
        self.requests.send_modify(|requests| requests.rejects += 1);
    }

    /// What the flusher is doing now.
    #[must_use]
    pub(crate) fn status(&self) -> Status {
        let shown = self.lock();
        let until = |at: Duration| at.saturating_sub(self.clock.monotonic()).as_secs_f64();
        Status {
            state: if self.requests.borrow().is_paused { State::Paused } else { shown.state },
            consecutive_failures: shown.consecutive_failures,
            last_error: shown.last_error.clone(),
            is_refused: shown.is_refused,
            resending: shown.resending,
            retry_in_seconds: shown.retry_at.map(until),
        }
    }

    fn set_paused(&self, is_paused: bool) -> bool {
        let mut was_paused = is_paused;
        self.requests.send_modify(|requests| {
            was_paused = std::mem::replace(&mut requests.is_paused, is_paused);
        });
        was_paused != is_paused
    }

    pub(super) fn requests(&self) -> watch::Receiver<Requests> {
        self.requests.subscribe()
    }

    /// Shows what the flusher does now, and after which pause it tries again if it backs off.
    pub(super) fn show(&self, retry_in: Option<Duration>, change: impl FnOnce(&mut Shown)) {
        let mut shown = self.lock();
        shown.retry_at = retry_in.map(|pause| self.clock.monotonic() + pause);
        change(&mut shown);
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{ManualClock, Timestamp};

    #[test]
    fn the_time_until_the_next_attempt_runs_down_to_none() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(100));
        let control = Control::new(Arc::new(clock.clone()));
        let retry_in_seconds = || control.status().retry_in_seconds;
        assert_eq!(retry_in_seconds(), None);
        control.show(Some(Duration::from_secs(15)), |shown| shown.state = State::BackingOff);
        assert_eq!(retry_in_seconds(), Some(15.0));
        clock.advance(Duration::from_secs(10));
        assert_eq!(retry_in_seconds(), Some(5.0));
        clock.advance(Duration::from_secs(10));
        assert_eq!(retry_in_seconds(), Some(0.0));
        control.show(None, |shown| shown.state = State::Idle);
        assert_eq!(retry_in_seconds(), None);
    }

    #[test]
    fn a_flusher_that_is_paused_shows_it_whatever_it_does() {
        let control = Control::new(Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH)));
        control.show(None, |shown| shown.state = State::Flushing);
        assert!(control.pause());
        assert!(!control.pause());
        assert_eq!(control.status().state, State::Paused);
        assert!(control.resume());
        assert_eq!(control.status().state, State::Flushing);
    }
}
