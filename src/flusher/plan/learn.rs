//! What an outcome means.

use std::time::Duration;

use super::batch::{Batch, Part, RefusedRow, Trust};
use super::breaker::Verdict;
use super::event::{Accepted, BatchId, Command, Lettered, Report};
use super::state::{Ended, LONGEST_PAUSE, Plan, Reported};
use crate::flusher::sink::{Refusal, SinkError};
use crate::wal::Offset;

/// Times that a single row may be too slow while others are stored, before that counts as a refusal.
const MOST_TIMEOUTS: u32 = 3;

/// How long letters wait for room before they are tried again.
const LETTERS_PAUSE: Duration = Duration::from_secs(5);

impl Plan {
    pub(super) fn inserted(
        &mut self,
        id: BatchId,
        outcome: Result<Accepted, SinkError>,
        took: Duration,
        now: Duration,
    ) {
        let Some(part) = self.batches.get_mut(&id.0).and_then(Batch::take_sent) else {
            return;
        };
        if let (Trust::Held { is_tables }, Some(open)) = (part.trust, self.breaker.as_open()) {
            open.unhold(part.len(), if is_tables { part.len() } else { 0 });
        }
        match outcome {
            Ok(accepted) => {
                let stored = accepted.inserted + accepted.duplicates;
                if stored > 0 {
                    self.accepted(id, &part, stored, took);
                }
                self.swallowed(id, &part, stored, accepted.swallowed, now);
            }
            Err(SinkError::Refused(refusal)) => {
                self.refused(id, &part, refusal, now);
                // A row that was held for the table's sake may have been the last of those.
                if self.breaker.as_open().is_some_and(|open| open.are_rows_at_fault()) {
                    self.blame_rows();
                }
            }
            Err(error @ SinkError::TimedOut { .. }) => self.timed_out(id, part, error, now),
            Err(error @ (SinkError::Unavailable { .. } | SinkError::WentBack { .. })) => {
                self.put_back(id, part);
                self.failed(error, now);
            }
        }
        self.settle(id);
    }

    pub(super) fn lettered(&mut self, id: BatchId, outcome: Lettered, now: Duration) {
        let Some(batch) = self.batches.get_mut(&id.0) else { return };
        match outcome {
            Lettered::Stored => {
                batch.lettered(true);
                self.settle(id);
            }
            Lettered::NoRoom(reason) => {
                batch.lettered(false);
                batch.not_before = now + LETTERS_PAUSE;
                let what = Reported::Error(reason.clone());
                let is_new = self.reported.as_ref() != Some(&what);
                self.last_error = Some(reason.clone());
                self.reported = Some(what);
                self.commands.push(Command::Report(Report::NoRoomForLetters { reason, is_new }));
            }
        }
    }

    fn accepted(&mut self, id: BatchId, part: &Part, stored: u64, took: Duration) {
        if let Some(batch) = self.batches.get_mut(&id.0) {
            batch.stored += stored;
        }
        self.acceptances += 1;
        self.rejects = false;
        self.pace.succeeded(part.len(), took);
        let was_held = matches!(part.trust, Trust::Held { .. });
        match self.breaker.accepted(stored, was_held) {
            Verdict::Undecided => {}
            Verdict::Mended => {
                self.batches.values_mut().for_each(Batch::release);
                self.breaker.close();
            }
            Verdict::RowsAtFault => self.blame_rows(),
        }
        self.succeeded();
    }

    /// What is held becomes letters if it is refused once more.
    fn blame_rows(&mut self) {
        self.batches.values_mut().for_each(Batch::find_at_fault);
        self.breaker.close();
    }

    /// The statement was answered, and not with an acceptance.
    fn refused(&mut self, id: BatchId, part: &Part, refusal: Refusal, now: Duration) {
        self.spend(id, &refusal);
        if part.is_single() {
            self.row_refused(id, part, refusal, now);
        } else if let Some(batch) = self.batches.get_mut(&id.0) {
            batch.put_halves(part);
        }
    }

    fn row_refused(&mut self, id: BatchId, part: &Part, refusal: Refusal, now: Duration) {
        let is_at_fault = part.trust == Trust::AtFault && !refusal.is_tables;
        let is_decided = self.rejects || is_at_fault;
        if !is_decided && self.breaker.is_open() {
            self.hold(id, part.rows.clone(), refusal.is_tables);
            return;
        }
        let is_tables = !is_decided && (refusal.is_tables || self.breaker.refused(1));
        let Some(batch) = self.batches.get_mut(&id.0) else { return };
        batch.add_refused(RefusedRow {
            offset: part.rows.start,
            refusal: refusal.clone(),
            is_decided,
        });
        if is_tables {
            self.trip(refusal, now);
        }
    }

    /// Rows that were taken and are not in the table, beside `stored` that are.
    fn swallowed(
        &mut self,
        id: BatchId,
        part: &Part,
        stored: u64,
        offsets: Vec<Offset>,
        now: Duration,
    ) {
        if offsets.is_empty() {
            return;
        }
        let rows = offsets.len() as u64;
        let refusal = Refusal::swallowed();
        if part.trust == Trust::Unknown {
            self.commands.push(Command::Report(Report::Swallowed { rows }));
        }
        let is_decided = self.rejects || part.trust == Trust::AtFault;
        if !is_decided {
            self.spend(id, &refusal);
            // Those beside them say that the table takes rows.
            if stored < rows && self.breaker.refused(rows) {
                self.trip(refusal.clone(), now);
            }
            if self.breaker.is_open() {
                runs(&offsets).for_each(|run| self.hold(id, run, false));
                return;
            }
        }
        let Some(batch) = self.batches.get_mut(&id.0) else { return };
        for offset in offsets {
            batch.add_refused(RefusedRow { offset, refusal: refusal.clone(), is_decided });
        }
    }

    fn timed_out(&mut self, id: BatchId, mut part: Part, error: SinkError, now: Duration) {
        self.pace.timed_out(part.len());
        if !part.is_single() {
            self.put_back(id, part);
            self.failed(error, now);
            return;
        }
        if part.timeouts == 0 {
            part.accepted_before = self.acceptances;
        }
        part.timeouts += 1;
        let others_are_stored = self.acceptances > part.accepted_before;
        if others_are_stored && part.timeouts >= MOST_TIMEOUTS {
            self.refused(id, &part, Refusal::too_slow(&error), now);
            return;
        }
        // Others first: it must not stop them.
        let pause = Duration::from_secs(1 << part.timeouts.min(10)).min(LONGEST_PAUSE);
        if let Some(batch) = self.batches.get_mut(&id.0) {
            batch.not_before = now + pause;
        }
        self.put_back(id, part);
        if !others_are_stored {
            self.failed(error, now);
        }
    }

    /// To be sent again when the database takes rows.
    fn put_back(&mut self, id: BatchId, part: Part) {
        match part.trust {
            Trust::Held { is_tables } => self.hold(id, part.rows, is_tables),
            Trust::Unknown | Trust::AtFault => {
                if let Some(batch) = self.batches.get_mut(&id.0) {
                    if part.timeouts > 0 { batch.put_last(part) } else { batch.put_first(part) }
                }
            }
        }
    }

    fn hold(&mut self, id: BatchId, rows: std::ops::Range<Offset>, is_tables: bool) {
        let count = rows.end - rows.start;
        let Some(batch) = self.batches.get_mut(&id.0) else { return };
        match self.breaker.as_open() {
            Some(open) => {
                open.hold(count, if is_tables { count } else { 0 });
                batch.hold(rows, is_tables);
            }
            // It has closed while they were under way.
            None => batch.put_last(Part::new(rows)),
        }
    }

    fn spend(&mut self, id: BatchId, refusal: &Refusal) {
        let Some(open) = self.breaker.as_open() else { return };
        open.spend();
        open.refusal = refusal.clone();
        if let Some(batch) = self.batches.get_mut(&id.0) {
            batch.refused_in_round += 1;
        }
    }

    /// The table is at fault: what was refused is held.
    fn trip(&mut self, refusal: Refusal, now: Duration) {
        self.breaker.open(refusal);
        let Some(open) = self.breaker.as_open() else { return };
        for batch in self.batches.values_mut() {
            let (rows, by_table) = batch.hold_refused_rows();
            open.hold(rows, by_table);
            if batch.rests() {
                self.commands.push(Command::Release { batch: batch.id(), is_done: false });
            }
        }
        self.probing = true;
        self.end_round(now);
    }

    /// Takes leave of the batch if it is done with, or of its rows if they are not needed soon.
    fn settle(&mut self, id: BatchId) {
        let Some(batch) = self.batches.get(&id.0) else { return };
        let (rows, is_done) = (batch.rows(), batch.is_done());
        if !is_done && !batch.rests() {
            return;
        }
        let is_new = is_done && !self.resend.covers(rows.start);
        let ended = Ended { to: rows.end, stored: batch.stored };
        self.commands.push(Command::Release { batch: id, is_done: is_new });
        if is_done {
            self.batches.remove(&id.0);
            self.advance(rows.start, ended);
        }
    }

    /// The database did what it was asked to.
    pub(super) fn succeeded(&mut self) {
        // Else it was on its way before another failed, and says nothing of now.
        if self.retry_at.is_some() || self.breaker.is_open() {
            return;
        }
        self.backoff.reset();
        self.probing = false;
        self.reported = None;
        let failures = std::mem::take(&mut self.failures);
        if self.is_up.replace(true) != Some(true) {
            self.commands.push(Command::Report(Report::Up { failures }));
        }
    }

    pub(super) fn failed(&mut self, error: SinkError, now: Duration) {
        if let SinkError::WentBack { reason } = error {
            return self.went_back(reason);
        }
        if error.is_missing_table() {
            self.schema_ready = false;
        }
        let pause = self.backoff.next_pause();
        self.retry_at = Some(now + pause);
        self.probing = true;
        let text = error.to_string();
        let is_new = self.note_failure(Reported::Error(text.clone()), text, error.turns_away());
        self.commands.push(Command::Report(Report::Down { error, pause, is_new }));
    }

    /// Remembers what an operator is told; whether that is new to them.
    pub(super) fn note_failure(&mut self, what: Reported, error: String, turns_away: bool) -> bool {
        self.failures += 1;
        self.turns_away = turns_away;
        let went_down = self.is_up.replace(false) != Some(false);
        let is_new = self.reported.as_ref() != Some(&what);
        self.reported = Some(what);
        self.last_error = Some(error);
        went_down || is_new
    }
}

/// Offsets, in order, as ranges without gaps.
fn runs(offsets: &[Offset]) -> impl Iterator<Item = std::ops::Range<Offset>> {
    offsets.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[0] + run.len() as u64)
}
