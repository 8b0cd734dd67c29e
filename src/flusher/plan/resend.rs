//! Sending again what a database has lost that went back in time, or that is another one.
//!
//! A sink that notices takes no rows before that is dealt with. What is under way ends first: some of it may
//! have been confirmed by a server that nobody asks any more. Then everything that was flushed and that the log
//! still has becomes pending again, and what was sent behind it counts as never sent. Batches of the one and
//! of the other alternate, so that newer rows keep up.

use super::event::{Command, Report};
use super::state::Plan;
use crate::wal::Rewound;

impl Plan {
    /// How many offsets that had been flushed are yet to be once more.
    #[must_use]
    pub(crate) fn resending(&self) -> u64 {
        self.resend.until.map_or(0, |until| until.saturating_sub(self.flushed))
    }

    /// The sink takes nothing more before the log is rewound.
    pub(super) fn went_back(&mut self, reason: String) {
        self.resend.noticed.get_or_insert(reason);
    }

    /// Whether the log has to be rewound before anything else; asks for that once nothing is under way.
    pub(super) fn must_rewind(&mut self) -> bool {
        if self.resend.noticed.is_none() {
            return false;
        }
        if self.in_flight == 0 {
            self.in_flight = 1;
            self.commands.push(Command::Rewind);
        }
        true
    }

    pub(super) fn rewound(&mut self, rewound: Rewound) {
        let Some(reason) = self.resend.noticed.take() else { return };
        // Some of what lies behind has arrived before what lies in front.
        let ended: u64 = self.ended.values().map(|ended| ended.stored).sum();
        let in_part: u64 = self.batches.values().map(|batch| batch.stored).sum();
        let records = rewound.records + ended + in_part;
        self.ended.clear();
        for batch in std::mem::take(&mut self.batches).into_values() {
            self.commands.push(Command::Release { batch: batch.id(), is_done: false });
        }
        self.breaker.close();
        // It may go back again before everything has arrived once more.
        let flushed = std::mem::replace(&mut self.flushed, rewound.to);
        let until = self.resend.until.map_or(flushed, |until| until.max(flushed));
        self.position = until;
        self.resend.left = rewound.to..until;
        self.resend.until = Some(until);
        self.commands.push(Command::Report(Report::WentBack { reason, records }));
        self.has_arrived();
    }

    /// What is known of the database is worth keeping once it has everything.
    pub(super) fn has_arrived(&mut self) {
        if self.resend.until.is_some_and(|until| self.flushed >= until) {
            self.resend.until = None;
            self.commands.push(Command::Remember);
        }
    }
}
