//! How a process begins and ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use iot_ingestor::flusher::plan::Plan;
use iot_ingestor::intake::arrivals::Arrivals;
use iot_ingestor::mqtt::session::Terms;
use iot_ingestor::wal::LeftReceipts;
use iot_ingestor::wal::Offset;
use iot_ingestor::wal::contract::Storage;
use iot_ingestor::wal::log::open_with_receipts;

use super::state::{Process, TOPICS, World};
use crate::disk::RetriesSyncs;
use crate::flusher::{Flusher, lost_in};
use crate::intake::Intake;
use crate::ledger::Violation;
use crate::mutants::Mutant;
use crate::publisher::number;
use crate::schedule::Dice;
use crate::source::Source;
use crate::trace::Happened;

impl World<'_> {
    /// Starts a process, goes on with a stop, and ends one that has done what it had to.
    pub(super) fn supervise(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let Some(process) = &mut self.process else { return self.start() };
        if process.flusher.end().is_some() {
            return self.end_process(dice);
        }
        self.with_flusher(Flusher::stop).transpose()?;
        Ok(())
    }

    /// A new process: opens the log, and finds in it what was committed.
    pub(super) fn start(&mut self) -> Result<(), Violation> {
        self.starts += 1;
        let storage: Box<dyn Storage> = match self.mutant {
            Some(Mutant::RetryOfAFailedSync) => Box::new(RetriesSyncs(self.disk.clone())),
            _ => Box::new(self.disk.clone()),
        };
        let clock = Arc::new(self.clock.clone());
        let are_needed = !self.is_settled;
        let metrics = &self.shared.metrics;
        let opened = open_with_receipts(storage, clock, self.limits, metrics, are_needed);
        self.trace.note(Happened::Started, self.starts, u64::from(opened.is_ok()));
        let Ok((writer, log, mut left)) = opened else { return Ok(()) };
        if self.mutant == Some(Mutant::ReceiptsNotReadBack) {
            left = LeftReceipts::default();
        }
        let (flushed, next) = (log.flushed(), *log.committed().borrow());
        // What the disk does not read now the next process takes for lost.
        let Ok(found) = log.read(flushed, next) else { return Ok(()) };
        let found = found.records().map(|(offset, reading)| (offset, number(reading)));
        let found: BTreeMap<Offset, u64> = found.collect();
        let was_power_cut = std::mem::take(&mut self.power_was_cut);
        self.ledger.reopened(flushed, next, &found, &lost_in(&log), was_power_cut)?;
        let terms = Terms {
            topics: TOPICS.map(str::to_owned).to_vec(),
            has_history: self.starts > 1,
            remembered: self.remembered.clone(),
            is_settled: self.is_settled,
        };
        let room = log.room().borrow().clone();
        let random = || fastrand::Rng::with_seed(self.starts);
        let plan = Plan::new(&self.settings, flushed, random());
        self.process = Some(Process {
            source: Source::new(terms, room, random(), self.now),
            intake: Intake::new(writer, Arrivals::after(left)),
            flusher: Flusher::new(plan, flushed, self.database_known),
            log,
            replays: Vec::new(),
            recovered: found.len() as u64,
            lost_before: self.ledger.lost_records(),
            appeared_before: self.ledger.appeared(),
            is_stopping: false,
            ends_by_power_cut: false,
        });
        Ok(())
    }

    pub(super) fn stop(&mut self) -> Result<(), Violation> {
        match &mut self.process {
            Some(process) if !process.is_stopping => process.is_stopping = true,
            _ => return Ok(()),
        }
        let done = self.with_source(Source::stop).transpose()?;
        self.acknowledge(done.into_iter().flatten())
    }

    /// The process is gone. What it wrote last to the broker arrives, or a part of it.
    pub(super) fn end_process(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let Some(process) = self.process.take() else { return Ok(()) };
        self.retained_before = process.log.retained();
        self.trace.note(Happened::Ended, u64::from(process.ends_by_power_cut), 0);
        let acknowledged = self.broker.client_is_gone(dice)?;
        self.acknowledge(acknowledged)?;
        if process.ends_by_power_cut {
            self.disk.cut_power(dice.random());
            self.power_was_cut = true;
        }
        Ok(())
    }
}
