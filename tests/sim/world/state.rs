//! All that there is in the simulated world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iot_ingestor::base::metrics::Metrics;
use iot_ingestor::base::settings::Sources;
use iot_ingestor::base::time::ManualClock;
use iot_ingestor::flusher::Settings;
use iot_ingestor::intake::queue::Replayed;
use iot_ingestor::mqtt::session::Filters;
use iot_ingestor::telemetry::admit::{Admission, MappedTopics};
use iot_ingestor::telemetry::mapping::{Mappings, OwnTopics};
use iot_ingestor::telemetry::validate::Rules;
use iot_ingestor::wal::engine::memory::MemoryStorage;
use iot_ingestor::wal::{Limits, Log, Offset};
use tokio::sync::oneshot;

use super::kinds::{Actor, FAULTS, Fault};
use crate::broker::Broker;
use crate::database::{Database, SQLSTATES};
use crate::flusher::{self, Flusher};
use crate::intake::Intake;
use crate::kept::MessageId;
use crate::ledger::{Ledger, Stored, Violation};
use crate::letters::Letters;
use crate::mutants::Mutant;
use crate::publisher::{self, MAPPINGS, clock};
use crate::schedule::{Decision, Dice};
use crate::source::{self, Source};
use crate::trace::{Happened, Trace};

/// What all schedules share, because it is slow to make and nothing of it is looked at.
pub(crate) struct Shared {
    pub(super) metrics: Metrics,
    pub(super) admission: Admission,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let rules = Rules::read(&mut Sources::new(BTreeMap::new(), ""));
        let mut from = Sources::new(BTreeMap::new(), MAPPINGS);
        let mappings = Mappings::read(&mut from);
        from.finish().unwrap();
        let own = OwnTopics::new(&[TOPICS[0].to_owned()]);
        let mapped = Some(Arc::new(MappedTopics { mappings, own }));
        let admission = Admission { max_payload_bytes: 4_096, rules, mapped };
        Self { metrics: Metrics::new().unwrap(), admission }
    }
}

/// What is subscribed to.
pub(super) const TOPICS: [&str; 2] = ["telemetry/#", "arrival/+"];

pub(super) struct World<'s> {
    pub(super) shared: &'s Shared,
    pub(super) mutant: Option<Mutant>,
    pub(super) now: Duration,
    pub(super) clock: ManualClock,
    pub(super) trace: Trace,
    pub(super) faults: Vec<Fault>,
    pub(super) poisons: bool,
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    pub(super) broker: Broker,
    pub(super) database: Database,
    pub(super) disk: MemoryStorage,
    pub(super) disk_is_full: bool,
    pub(super) letters: Letters,
    pub(super) ledger: Ledger,
    pub(super) remembered: Filters,
    /// The last process has left the broker in order.
    pub(super) is_settled: bool,
    /// Which database has what was confirmed, in a file.
    pub(super) database_known: Option<u64>,
    /// From where on the log of the last process had records.
    pub(super) retained_before: Offset,
    pub(super) starts: u64,
    pub(super) process: Option<Process>,
    /// Since a process last found out what is in the log.
    pub(super) power_was_cut: bool,
    /// Whoever does nothing until then: a slow disk, a slow network, a slow database.
    pub(super) stalled: Option<(Actor, Duration)>,
}

/// What a kill takes away.
pub(super) struct Process {
    pub(super) source: Source,
    pub(super) intake: Intake,
    pub(super) flusher: Flusher,
    pub(super) log: Log,
    /// Readings that an operator puts back, and has no answer of yet.
    pub(super) replays: Vec<(u64, oneshot::Receiver<Replayed>)>,
    /// Records that were found in the log when it was opened: it may take some for pending that are gone,
    /// if a power cut has torn what it knew of them.
    pub(super) recovered: u64,
    /// Records that were lost before it.
    pub(super) lost_before: u64,
    /// Records that had appeared before it.
    pub(super) appeared_before: u64,
    pub(super) is_stopping: bool,
    /// The disk goes with it, as far as it was not synced.
    pub(super) ends_by_power_cut: bool,
}

impl<'s> World<'s> {
    pub(super) fn new(setup: Decision, mutant: Option<Mutant>, shared: &'s Shared) -> Self {
        let mut dice = Dice::of(setup);
        let most = dice.pick(&[2, 4, FAULTS.len()]);
        let faults: Vec<Fault> =
            FAULTS.iter().copied().filter(|_| dice.below(FAULTS.len()) < most).collect();
        let settings = Settings {
            batch_size: dice.pick(&[1, 2, 4, 8]),
            batch_timeout: Duration::from_millis(dice.pick(&[0, 50])),
            connections: dice.pick(&[1, 2, 3]),
        };
        let limits = Limits {
            max_bytes: dice.pick(&[u64::MAX, u64::MAX, 2_000]),
            min_free_bytes: 1,
            generation_bytes: dice.pick(&[1, 400, u64::MAX]),
            retain: Duration::from_millis(dice.pick(&[0, 5_000, 40_000])),
        };
        let mut letters = Letters::default();
        letters.evicts_database = mutant == Some(Mutant::EvictedLettersOfTheDatabase);
        let may_forget = limits.max_bytes < u64::MAX
            || faults.iter().any(|fault| {
                fault.is_damage() || matches!(fault, Fault::DiskFull | Fault::FailSync)
            });
        let mut database = Database::default();
        database.one_time_each = !may_forget;
        Self {
            shared,
            mutant,
            now: Duration::ZERO,
            clock: ManualClock::at(clock(Duration::ZERO)),
            trace: Trace::default(),
            faults,
            poisons: dice.one_in(2),
            settings,
            limits,
            broker: Broker::default(),
            database,
            disk: MemoryStorage::default(),
            disk_is_full: false,
            letters,
            ledger: Ledger::default(),
            remembered: Filters::default(),
            is_settled: false,
            database_known: None,
            retained_before: 0,
            starts: 0,
            process: None,
            power_was_cut: false,
            stalled: None,
        }
    }

    /// From where on the log may still have records.
    pub(super) fn retained(&self) -> Offset {
        self.process.as_ref().map_or(self.retained_before, |process| process.log.retained())
    }

    pub(super) fn let_pass(&mut self, time: Duration) {
        self.now += time;
        self.clock.advance(time);
    }

    pub(super) fn publish(&mut self, dice: &mut Dice) {
        let (database, poisons) = (&mut self.database, self.poisons);
        let message = publisher::make(&mut self.ledger, dice, |reading, dice| {
            if poisons && dice.one_in(6) {
                database.poison(reading, dice.pick(SQLSTATES));
            }
        });
        let qos = dice.pick(&[0, 1, 1, 1, 2]);
        self.trace.note(Happened::Published, message as u64, u64::from(qos));
        // What is kept and has no time of its own is left alone.
        let is_kept = dice.one_in(20) && !self.ledger.messages[message].by_arrival;
        self.broker.publish(message, qos, is_kept, dice.one_in(5));
    }

    pub(super) fn acknowledge(
        &mut self,
        messages: impl IntoIterator<Item = MessageId>,
    ) -> Result<(), Violation> {
        for message in messages {
            self.trace.note(Happened::Acknowledged, message as u64, 0);
            let stored = Stored { database: &self.database, letters: &self.letters };
            self.ledger.acknowledge(message, &self.letters, &stored)?;
        }
        Ok(())
    }

    pub(super) fn with_source<T>(
        &mut self,
        f: impl FnOnce(&mut Source, &mut source::Around<'_>) -> T,
    ) -> Option<T> {
        let process = self.process.as_mut()?;
        let (queue_has_room, intake_is_idle) =
            (process.intake.has_room(), process.intake.is_idle());
        let mut around = source::Around {
            broker: &mut self.broker,
            ledger: &self.ledger,
            queue: &mut process.intake.queue,
            queue_has_room,
            intake_is_idle,
            remembered: &mut self.remembered,
            is_settled: &mut self.is_settled,
            log: &process.log,
            trace: &mut self.trace,
            now: self.now,
            mutant: self.mutant,
        };
        Some(f(&mut process.source, &mut around))
    }

    pub(super) fn with_flusher<T>(
        &mut self,
        f: impl FnOnce(&mut Flusher, &mut flusher::Around<'_>) -> T,
    ) -> Option<T> {
        let process = self.process.as_mut()?;
        let mut around = flusher::Around {
            ledger: &mut self.ledger,
            letters: &mut self.letters,
            database: &mut self.database,
            log: &process.log,
            remembered: &mut self.database_known,
            trace: &mut self.trace,
            now: self.now,
            mutant: self.mutant,
        };
        Some(f(&mut process.flusher, &mut around))
    }
}

impl Process {
    /// The broker was left, and the intake has nothing more to do.
    pub(super) fn has_let_go(&self) -> bool {
        self.source.is_over() && self.intake.is_idle() && !self.flusher.is_stopping()
    }
}
