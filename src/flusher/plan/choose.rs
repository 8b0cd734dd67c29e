//! What to do next.

use std::time::Duration;

use super::batch::Batch;
use super::event::{Command, Report};
use super::pace::Pace;
use super::state::{Ended, Plan, Reported};
use crate::wal::Offset;

/// How long the database may be silent, with nothing to write, before it is asked.
const PING_AFTER: Duration = Duration::from_secs(2);

/// Batches that may wait for a pause, a letter or a mended table while others go on.
const MOST_WAITING: usize = 64;

/// Refusals that a batch gets in a round before others are tried: as many as lead down to a row.
const SHARE: u32 = 12;

impl Plan {
    /// When there may be something to do, if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self, now: Duration) -> Duration {
        let later = now + PING_AFTER;
        if self.is_paused || self.is_busy() {
            return later;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return at;
        }
        let linger = self.waiting_since.map(|since| since + self.pace.linger());
        let ping = self.last_answer.map(|at| at + PING_AFTER);
        let batches = self.batches.values().map(|batch| batch.not_before);
        let times = [linger, ping, self.retry_at()].into_iter().flatten().chain(batches);
        times.filter(|at| *at > now).min().unwrap_or(later)
    }

    /// Starts what can be started now.
    pub(super) fn start(&mut self, now: Duration) {
        if self.is_stopping || self.must_rewind() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        while !self.is_busy() {
            let next = if self.is_paused { self.ping(now) } else { self.next(now) };
            let Some(command) = next else { return };
            self.in_flight += 1;
            self.commands.push(command);
        }
    }

    /// Whether as much is in flight as may be.
    fn is_busy(&self) -> bool {
        self.in_flight >= if self.probing { 1 } else { self.connections }
    }

    /// First the schema, then what was begun, then a batch that is full or has waited long enough, then
    /// the question whether the database is there at all.
    fn next(&mut self, now: Duration) -> Option<Command> {
        if !self.schema_ready {
            return (self.in_flight == 0).then_some(Command::Prepare);
        }
        let letter = self.letter(now);
        if letter.is_some() {
            return letter;
        }
        let insert = if self.breaker.is_open() {
            self.next_of_round(now)
        } else {
            self.first_left(now).or_else(|| self.fresh(now))
        };
        insert.or_else(|| self.ping(now))
    }

    fn letter(&mut self, now: Duration) -> Option<Command> {
        let is_next = |batch: &&mut Batch| batch.is_idle(now) && batch.has_only_refused_rows();
        let batch = self.batches.values_mut().find(is_next)?;
        Some(Command::Letter { batch: batch.id(), all: batch.rows(), rows: batch.letter() })
    }

    fn first_left(&mut self, now: Duration) -> Option<Command> {
        let is_next = |batch: &&mut Batch| batch.is_idle(now) && batch.has_left();
        insert(self.batches.values_mut().find(is_next)?, &self.pace)
    }

    /// A new batch, if one is full or has waited long enough to fill, or if there is something to be sent
    /// again.
    fn fresh(&mut self, now: Duration) -> Option<Command> {
        if self.batches.len() >= self.connections + MOST_WAITING {
            return None;
        }
        let size = self.pace.size();
        let is_due = self.is_due(size, now);
        let rows = match self.resend.next(size, is_due) {
            Some(rows) => rows,
            None if is_due => {
                let from = self.position;
                self.position += size.min(self.committed - from);
                self.waiting_since = (self.position < self.committed).then_some(now);
                from..self.position
            }
            None => return None,
        };
        let new = || Batch::new(rows.clone());
        insert(self.batches.entry(rows.start).or_insert_with(new), &self.pace)
    }

    /// Whether enough rows wait that were never sent, or have waited long enough.
    fn is_due(&mut self, size: u64, now: Duration) -> bool {
        let pending = self.committed - self.position;
        if pending == 0 {
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        pending >= size || now >= since + self.pace.linger()
    }

    /// While the table is at fault: something held, to see whether it was mended; then what was never
    /// refused row by row, a bit of each batch, because it may be accepted; then the rest.
    fn next_of_round(&mut self, now: Duration) -> Option<Command> {
        let held_parts = self.batches.values().map(Batch::held_parts).sum();
        if self.breaker.as_open()?.begin_round(now, held_parts) {
            self.batches.values_mut().for_each(|batch| batch.refused_in_round = 0);
        }
        let open = self.breaker.as_open()?;
        if !open.is_spent() {
            let command = open
                .may_probe(true)
                .then(|| self.probe(now))
                .flatten()
                .or_else(|| self.least_tried(now, SHARE))
                .or_else(|| self.fresh(now))
                .or_else(|| self.least_tried(now, u32::MAX));
            if command.is_some() {
                return command;
            }
            if self.breaker.as_open()?.may_probe(false) {
                let probe = self.probe(now);
                if probe.is_some() {
                    return probe;
                }
            }
        }
        self.end_round(now);
        None
    }

    /// Of the batch that was refused the least in this round, and less than `below`.
    fn least_tried(&mut self, now: Duration, below: u32) -> Option<Command> {
        let is_next = |batch: &&mut Batch| {
            batch.is_idle(now) && batch.has_left() && batch.refused_in_round < below
        };
        let candidates = self.batches.values_mut().filter(is_next);
        insert(candidates.min_by_key(|batch| batch.refused_in_round)?, &self.pace)
    }

    /// Something that is held.
    fn probe(&mut self, now: Duration) -> Option<Command> {
        let is_next = |batch: &&mut Batch| batch.is_idle(now) && batch.held_parts() > 0;
        let candidates = self.batches.values_mut().filter(is_next);
        let batch = candidates.min_by_key(|batch| batch.refused_in_round)?;
        let rows = batch.send_held()?;
        let (batch, all) = (batch.id(), batch.rows());
        Some(Command::Insert { batch, all, rows, limit: self.pace.limit(0) })
    }

    /// Nothing more is tried until the next round, if this one is not over already.
    pub(super) fn end_round(&mut self, now: Duration) {
        let Some(open) = self.breaker.as_open() else { return };
        if open.next_round.is_some() {
            return;
        }
        let pause = self.backoff.next_pause();
        open.next_round = Some(now + pause);
        let refusal = open.refusal.clone();
        let (sqlstate, object) = (refusal.sqlstate.clone(), refusal.object.clone());
        let what = Reported::Refusal { sqlstate, object };
        let is_new = self.note_failure(what, refusal.with_advice(), true);
        self.commands.push(Command::Report(Report::Refusing { refusal, pause, is_new }));
    }

    /// The question whether the database is there, if it is time to ask.
    fn ping(&self, now: Duration) -> Option<Command> {
        let is_silent = self.last_answer.is_none_or(|at| now >= at + PING_AFTER);
        (is_silent && self.in_flight == 0).then_some(Command::Ping)
    }

    /// Everything below is in the table or a letter, up to where batches have ended without a gap.
    pub(super) fn advance(&mut self, from: Offset, ended: Ended) {
        self.ended.insert(from, ended);
        let before = self.flushed;
        while let Some(ended) = self.ended.remove(&self.flushed) {
            self.flushed = ended.to;
        }
        if self.flushed > before {
            self.commands.push(Command::Flushed(self.flushed));
            self.has_arrived();
        }
    }
}

/// Sends the next part of a batch, but no more rows than go at once.
fn insert(batch: &mut Batch, pace: &Pace) -> Option<Command> {
    let rows = batch.send_left(pace.size())?;
    let limit = pace.limit(batch.timeouts());
    Some(Command::Insert { batch: batch.id(), all: batch.rows(), rows, limit })
}
