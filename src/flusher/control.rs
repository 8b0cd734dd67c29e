//! Others' handle on the flusher.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

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
    pub(super) retry_at: Option<Instant>,
}

impl Default for Control {
    fn default() -> Self {
        let shown = Shown {
            state: State::Idle,
            consecutive_failures: 0,
            last_error: None,
            is_refused: false,
            resending: 0,
            retry_at: None,
        };
        Self { requests: watch::Sender::default(), shown: Mutex::new(shown) }
    }
}

impl Control {
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
        let until = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs_f64();
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
