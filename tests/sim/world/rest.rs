//! How a schedule ends: all is mended, and everything has to come where it belongs.

use std::time::Duration;

use iot_ingestor::flusher::plan::Event;

use super::kinds::Fault;
use super::state::{Process, World};
use crate::ledger::{Stored, Violation};
use crate::schedule::Dice;
use crate::trace::Happened;

impl World<'_> {
    /// Faults stop, everything is mended, and time runs: in the end all is where it belongs.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        /// More than enough for every pause that grows.
        const ROUNDS: usize = 200;
        let mut dice = Dice::of(0);
        self.trace.note(Happened::Mended, 0, 0);
        if self.process.as_ref().is_some_and(|process| process.ends_by_power_cut) {
            self.end_process(&mut dice)?;
        }
        (self.broker.is_down, self.broker.refuses_next) = (false, false);
        self.database.mend();
        self.set_disk_full(false);
        (self.letters.fails_next, self.letters.has_quota) = (false, false);
        self.stalled = None;
        self.with_flusher(|flusher, around| flusher.hear(Event::Resume, around)).transpose()?;
        for round in 0..ROUNDS {
            self.look_at_disk();
            while self.act(&mut dice)? {}
            self.hear_of_replays();
            if self.is_at_rest() {
                return self.check_end(&mut dice);
            }
            // A row that is refused alone is judged by others that are not.
            if round % 4 == 3 {
                self.poisons = false;
                self.publish(&mut dice);
            }
            self.let_pass(self.next_wake().saturating_sub(self.now));
        }
        Err(Violation(format!(
            "all is mended, and nothing comes to rest: the log holds {} records, the broker's session is {}drained",
            self.ledger.pending(),
            if self.broker.is_drained() { "" } else { "not " },
        )))
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.broker.is_drained()
            && self.ledger.pending() == 0
            && self.process.as_ref().is_some_and(|one| {
                one.intake.is_idle() && !one.is_stopping && one.flusher.knows(&self.database)
            })
    }

    pub(super) fn next_wake(&self) -> Duration {
        let later = self.now + Duration::from_secs(5);
        let Some(process) = &self.process else { return later };
        let wakes = [process.source.wake_at(), Some(process.flusher.wake_at())];
        let next = wakes.into_iter().flatten().fold(later, Duration::min);
        next.max(self.now + Duration::from_millis(1))
    }

    pub(super) fn check_end(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let stored = Stored { database: &self.database, letters: &self.letters };
        self.ledger.check_end(&stored)?;
        self.check_books()?;
        // And after a power cut, or a kill, nothing of it is different.
        self.fail(Fault::PowerCut, dice)?;
        self.start()?;
        if self.process.is_none() {
            // What the disk did not read is lost to the next process.
            self.start()?;
        }
        self.ledger.check(&Stored { database: &self.database, letters: &self.letters })
    }

    /// Next ≥ committed ≥ flushed ≥ trimmed.
    pub(super) fn check_order(&self) -> Result<(), Violation> {
        let Some(Process { log, flusher, .. }) = &self.process else { return Ok(()) };
        let (next, committed) = (self.ledger.next, *log.committed().borrow());
        let (flushed, trimmed) = (flusher.flushed(), log.flushed());
        if next == committed && committed >= flushed && flushed >= trimmed {
            return Ok(());
        }
        Err(Violation(format!(
            "out of order: next {next}, committed {committed}, flushed {flushed}, trimmed {trimmed}"
        )))
    }

    /// All that came into the log since the start is in it, or has gone out of it, once.
    pub(super) fn check_books(&self) -> Result<(), Violation> {
        let Some(Process { intake, flusher, recovered, lost_before, appeared_before, .. }) =
            &self.process
        else {
            return Ok(());
        };
        let lost = self.ledger.lost_records();
        let (held, stored_in_log) = (self.ledger.pending_records(), flusher.stored_in_log());
        let appeared = self.ledger.appeared() - appeared_before;
        let came = intake.committed() + recovered + appeared + flusher.resent + lost_before;
        let went = flusher.stored + lost;
        if came + stored_in_log == went + held {
            return Ok(());
        }
        Err(Violation(format!(
            "the books do not balance: {} committed and {recovered} recovered, {} sent again; {} stored, {held} in the log, {stored_in_log} in both, and {lost} lost",
            intake.committed(),
            flusher.resent,
            flusher.stored
        )))
    }
}
