//! Everything the plan remembers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::batch::Batch;
use super::breaker::Breaker;
use super::event::Command;
use super::pace::Pace;
use super::window::Resend;
use crate::base::retry::Backoff;
use crate::flusher::settings::Settings;
use crate::flusher::sink::FlushError;
use crate::wal::Offset;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What an operator was told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reported {
    /// What it said.
    Error(String),
    /// Who refuses: what it said may quote a row.
    Refusal { sqlstate: Option<String>, object: Option<String> },
}

/// A batch that ended while an earlier one has not.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) to: Offset,
    /// Rows of it that are in the table or a letter.
    pub(super) stored: u64,
}

/// See the module. Times are those since some moment before everything else.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Plan {
    /// Batches in flight at once.
    pub(super) connections: usize,
    pub(super) pace: Pace,
    /// One past what can be read.
    pub(super) committed: Offset,
    /// Where the next batch begins.
    pub(super) position: Offset,
    /// Everything below is in the table or a letter.
    pub(super) flushed: Offset,
    /// By first offset.
    pub(super) ended: BTreeMap<Offset, Ended>,
    /// First offset → a batch between `flushed` and `position` that has not ended.
    pub(super) batches: BTreeMap<Offset, Batch>,
    pub(super) resend: Resend,
    /// Commands whose end is yet to be heard of.
    pub(super) in_flight: usize,
    /// When the record at `position` was first seen waiting.
    pub(super) waiting_since: Option<Duration>,
    pub(super) breaker: Breaker,
    /// Whether an operator wants letters of what is refused.
    pub(super) rejects: bool,
    pub(super) backoff: Backoff,
    /// Nothing is tried before this, after the database failed.
    pub(super) retry_at: Option<Duration>,
    /// After a failure one statement goes alone.
    pub(super) probing: bool,
    pub(super) schema_ready: bool,
    pub(super) last_answer: Option<Duration>,
    /// Inserts that were accepted.
    pub(super) acceptances: u64,
    pub(super) is_paused: bool,
    pub(super) is_stopping: bool,
    pub(super) is_finished: bool,
    pub(super) failure: Option<FlushError>,
    /// What was last said of the database.
    pub(super) is_up: Option<bool>,
    /// Failures since the last success.
    pub(super) failures: u64,
    /// What the last one was, as text; it is kept after a success.
    pub(super) last_error: Option<String>,
    pub(super) turns_away: bool,
    /// The error of which an operator was told last; none once it is over.
    pub(super) reported: Option<Reported>,
    pub(super) commands: Vec<Command>,
}

impl Plan {
    /// Begins where the log was flushed to; `random` is for pauses.
    #[must_use]
    pub fn new(settings: &Settings, flushed: Offset, random: fastrand::Rng) -> Self {
        Self {
            connections: settings.connections,
            pace: Pace::new(settings.batch_size as u64, settings.batch_timeout),
            committed: flushed,
            position: flushed,
            flushed,
            ended: BTreeMap::new(),
            batches: BTreeMap::new(),
            resend: Resend::default(),
            in_flight: 0,
            waiting_since: None,
            breaker: Breaker::Closed { refused: 0 },
            rejects: false,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, random),
            retry_at: None,
            probing: true,
            schema_ready: false,
            last_answer: None,
            acceptances: 0,
            is_paused: false,
            is_stopping: false,
            is_finished: false,
            failure: None,
            is_up: None,
            failures: 0,
            last_error: None,
            turns_away: false,
            reported: None,
            commands: Vec::new(),
        }
    }

    /// With so much time for a statement, instead of 30 s.
    #[must_use]
    pub(crate) fn with_limit(mut self, limit: Duration) -> Self {
        self.pace.set_limit(limit);
        self
    }

    /// Where everything below is in the table or a letter.
    #[must_use]
    pub fn flushed(&self) -> Offset {
        self.flushed
    }

    /// Failures since the last success.
    #[must_use]
    pub(crate) fn consecutive_failures(&self) -> u64 {
        self.failures
    }

    /// What the last failure was, also when it is over.
    #[must_use]
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Whether that was the database turning us or our rows away, rather than not answering.
    #[must_use]
    pub(crate) fn is_turned_away(&self) -> bool {
        self.turns_away
    }

    /// When the next attempt comes, while backing off.
    #[must_use]
    pub(crate) fn retry_at(&self) -> Option<Duration> {
        match &self.breaker {
            Breaker::Open(open) => self.retry_at.max(open.next_round),
            Breaker::Closed { .. } => self.retry_at,
        }
    }

    /// Whether nothing new is begun any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether something is on its way, or waits to be sent again.
    #[must_use]
    pub(crate) fn is_flushing(&self) -> bool {
        self.flushed < self.position
    }
}
