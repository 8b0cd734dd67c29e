//! The whole: devices, broker, the process with its three deciders, disk, letters and database, in one
//! simulated time, driven by a list of decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iot_ingestor::base::metrics::Metrics;
use iot_ingestor::base::settings::Sources;
use iot_ingestor::base::time::ManualClock;
use iot_ingestor::flusher::Settings;
use iot_ingestor::flusher::plan::{Event, Plan};
use iot_ingestor::mqtt::session::{Filters, Terms};
use iot_ingestor::telemetry::admit::Admission;
use iot_ingestor::telemetry::validate::{Rules, TimeOfDay};
use iot_ingestor::wal::contract::Storage;
use iot_ingestor::wal::engine::memory::MemoryStorage;
use iot_ingestor::wal::log::open;
use iot_ingestor::wal::{Limits, Log};

use crate::broker::{Broker, MessageId};
use crate::database::{Database, PASSING, SQLSTATES, Swallows};
use crate::disk::RetriesSyncs;
use crate::flusher::{self, Flusher};
use crate::intake::{self, Did, Intake};
use crate::ledger::{Ledger, Stored, Violation};
use crate::letters::Letters;
use crate::mutants::Mutant;
use crate::publisher::{self, clock, number};
use crate::schedule::{Decision, Dice};
use crate::source::{self, Source};
use crate::trace::{Happened, Trace};

/// How a schedule went.
pub(crate) struct Run {
    pub(crate) trace: Trace,
    pub(crate) outcome: Result<(), Violation>,
}

/// What all schedules share, because it is slow to make and nothing of it is looked at.
pub(crate) struct Shared {
    metrics: Metrics,
    admission: Admission,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let rules = Rules::read(&mut Sources::new(BTreeMap::new(), ""));
        let admission = Admission { max_payload_bytes: 4_096, rules };
        Self { metrics: Metrics::new().unwrap(), admission }
    }
}

/// Runs a schedule to its end, or to the first promise that is broken.
pub(crate) fn run(decisions: &[Decision], mutant: Option<Mutant>, shared: &Shared) -> Run {
    let (setup, steps) =
        decisions.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
    let mut world = World::new(setup, mutant, shared);
    let mut go = || {
        for step in steps {
            world.step(*step)?;
        }
        world.come_to_rest()
    };
    let outcome = go();
    Run { trace: world.trace, outcome }
}

/// What can go wrong. A schedule draws which of these it has, so that some have few kinds of faults and
/// get far, and some have many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    PowerCut,
    PowerCutAmidDisk,
    Stop,
    CutConnection,
    BrokerDown,
    BrokerForgets,
    BrokerRefuses,
    DatabaseDown,
    RefusesAll,
    RefusesNext,
    Swallows,
    DropKey,
    DropPartition,
    LoseAnswer,
    FailSync,
    DiskFull,
    LettersFail,
    LettersTaken,
    Pause,
    Mend,
    Stall,
}

const FAULTS: &[Fault] = &[
    Fault::Kill,
    Fault::PowerCut,
    Fault::PowerCutAmidDisk,
    Fault::Stop,
    Fault::CutConnection,
    Fault::BrokerDown,
    Fault::BrokerForgets,
    Fault::BrokerRefuses,
    Fault::DatabaseDown,
    Fault::RefusesAll,
    Fault::RefusesNext,
    Fault::Swallows,
    Fault::DropKey,
    Fault::DropPartition,
    Fault::LoseAnswer,
    Fault::FailSync,
    Fault::DiskFull,
    Fault::LettersFail,
    Fault::LettersTaken,
    Fault::Pause,
    Fault::Mend,
    Fault::Stall,
];

struct World<'s> {
    shared: &'s Shared,
    mutant: Option<Mutant>,
    now: Duration,
    clock: ManualClock,
    trace: Trace,
    faults: Vec<Fault>,
    poisons: bool,
    settings: Settings,
    limits: Limits,
    broker: Broker,
    database: Database,
    disk: MemoryStorage,
    disk_is_full: bool,
    letters: Letters,
    ledger: Ledger,
    remembered: Filters,
    starts: u64,
    process: Option<Process>,
    /// Whoever does nothing until then: a slow disk, a slow network, a slow database.
    stalled: Option<(Actor, Duration)>,
}

/// What a kill takes away.
struct Process {
    source: Source,
    intake: Intake,
    flusher: Flusher,
    log: Log,
    /// Records that were in the log when it was opened.
    recovered: u64,
    /// Records that were lost before it.
    lost_before: u64,
    is_stopping: bool,
    /// The disk goes with it, as far as it was not synced.
    ends_by_power_cut: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Actor {
    Broker,
    Source,
    Intake,
    Serve,
    Answer,
    Flusher,
    Supervisor,
}

const ACTORS: [Actor; 7] = [
    Actor::Broker,
    Actor::Source,
    Actor::Intake,
    Actor::Serve,
    Actor::Answer,
    Actor::Flusher,
    Actor::Supervisor,
];

impl<'s> World<'s> {
    fn new(setup: Decision, mutant: Option<Mutant>, shared: &'s Shared) -> Self {
        let mut dice = Dice::of(setup);
        let most = dice.pick(&[2, 4, FAULTS.len()]);
        let faults = FAULTS.iter().copied().filter(|_| dice.below(FAULTS.len()) < most).collect();
        let settings = Settings {
            batch_size: dice.pick(&[1, 2, 4, 8]),
            batch_timeout: Duration::from_millis(dice.pick(&[0, 50])),
            connections: dice.pick(&[1, 2, 3]),
        };
        let limits = Limits {
            max_bytes: dice.pick(&[u64::MAX, u64::MAX, 2_000]),
            min_free_bytes: 1,
            generation_bytes: dice.pick(&[1, 400, u64::MAX]),
        };
        let mut letters = Letters::default();
        letters.evicts_database = mutant == Some(Mutant::EvictedLettersOfTheDatabase);
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
            database: Database::default(),
            disk: MemoryStorage::default(),
            disk_is_full: false,
            letters,
            ledger: Ledger::default(),
            remembered: Filters::default(),
            starts: 0,
            process: None,
            stalled: None,
        }
    }

    fn step(&mut self, decision: Decision) -> Result<(), Violation> {
        let mut dice = Dice::of(decision);
        let pass = if dice.one_in(16) { dice.below(20_000) } else { dice.below(30) };
        self.let_pass(Duration::from_millis(pass as u64));
        self.trace.note(Happened::Step, u64::from(decision), self.now.as_millis() as u64);
        match dice.below(10) {
            0..2 => self.publish(&mut dice),
            2..8 => {
                for _ in 0..=dice.below(12) {
                    self.act(&mut dice)?;
                }
            }
            _ if self.faults.is_empty() => {}
            _ => {
                let fault = dice.pick(&self.faults);
                self.trace.note(Happened::Fault, fault as u64, 0);
                self.fail(fault, &mut dice)?;
            }
        }
        self.ledger.check(&Stored { database: &self.database, letters: &self.letters })
    }

    fn let_pass(&mut self, time: Duration) {
        self.now += time;
        self.clock.advance(time);
    }

    fn publish(&mut self, dice: &mut Dice) {
        let (database, poisons) = (&mut self.database, self.poisons);
        let message = publisher::make(&mut self.ledger, dice, |reading, dice| {
            if poisons && dice.one_in(6) {
                database.poison(reading, dice.pick(SQLSTATES));
            }
        });
        let qos = dice.pick(&[0, 1, 1, 1, 2]);
        self.trace.note(Happened::Published, message as u64, u64::from(qos));
        self.broker.publish(message, qos, dice.one_in(20), dice.one_in(5));
    }

    /// Somebody who has something to do does it; false if nobody has.
    fn act(&mut self, dice: &mut Dice) -> Result<bool, Violation> {
        let stalled = self.stalled.filter(|(_, until)| *until > self.now).map(|(actor, _)| actor);
        let first = dice.below(ACTORS.len());
        for at in 0..ACTORS.len() {
            let actor = ACTORS[(first + at) % ACTORS.len()];
            if stalled != Some(actor) && self.can_act(actor) {
                self.let_act(actor, dice)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn can_act(&mut self, actor: Actor) -> bool {
        let now = self.now;
        match (actor, &self.process) {
            (Actor::Broker, _) => self.broker.can_work(),
            (Actor::Supervisor, None) => true,
            (_, None) => false,
            (Actor::Supervisor, Some(process)) => {
                (process.is_stopping && process.has_let_go()) || process.flusher.end().is_some()
            }
            (Actor::Source, Some(_)) => {
                self.with_source(|source, around| source.can_work(around)).unwrap_or(false)
            }
            (Actor::Intake, Some(process)) => process.intake.can_work(),
            (Actor::Serve, Some(process)) => process.flusher.has_requests(),
            (Actor::Answer, Some(process)) => process.flusher.has_answers(),
            (Actor::Flusher, Some(process)) => process.flusher.is_behind(&process.log, now),
        }
    }

    fn let_act(&mut self, actor: Actor, dice: &mut Dice) -> Result<(), Violation> {
        match actor {
            Actor::Broker => {
                let acknowledged = self.broker.work()?;
                self.acknowledge(acknowledged)?;
            }
            Actor::Source => {
                let done = self.with_source(|source, around| source.work(dice, around));
                self.acknowledge(done.transpose()?.into_iter().flatten())?;
            }
            Actor::Intake => self.let_intake_work(dice)?,
            Actor::Serve => {
                self.with_flusher(|flusher, around| flusher.serve(dice, around));
            }
            Actor::Answer => {
                self.with_flusher(|flusher, around| flusher.answer(dice, around)).transpose()?;
            }
            Actor::Flusher => {
                self.with_flusher(Flusher::catch_up).transpose()?;
            }
            Actor::Supervisor => return self.supervise(dice),
        }
        Ok(())
    }

    fn let_intake_work(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let did = process.intake.work(
            1 + dice.below(4),
            &mut intake::Around {
                ledger: &mut self.ledger,
                letters: &mut self.letters,
                log: &process.log,
                trace: &mut self.trace,
                now: TimeOfDay::at(clock(self.now)),
                admission: &self.shared.admission,
                mutant: self.mutant,
            },
        );
        match did {
            Did::Nothing | Did::Something => Ok(()),
            Did::Settled(settled) => {
                process.source.settle(settled);
                Ok(())
            }
            Did::Failed => self.end_process(dice),
        }
    }

    /// Starts a process, goes on with a stop, and ends one that has done what it had to.
    fn supervise(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let Some(process) = &mut self.process else { return self.start() };
        if process.flusher.end().is_some() {
            return self.end_process(dice);
        }
        self.with_flusher(Flusher::stop).transpose()?;
        Ok(())
    }

    /// A new process: opens the log, and finds in it what was committed.
    fn start(&mut self) -> Result<(), Violation> {
        self.starts += 1;
        let storage: Box<dyn Storage> = match self.mutant {
            Some(Mutant::RetryOfAFailedSync) => Box::new(RetriesSyncs(self.disk.clone())),
            _ => Box::new(self.disk.clone()),
        };
        let lost_before = self.shared.metrics.wal_lost_records.get();
        let clock = Arc::new(self.clock.clone());
        let opened = open(storage, clock, self.limits, &self.shared.metrics);
        self.trace.note(Happened::Started, self.starts, u64::from(opened.is_ok()));
        let Ok((writer, log)) = opened else { return Ok(()) };
        let (flushed, next) = (log.flushed(), *log.committed().borrow());
        let found = log.read(flushed, next).map_err(|error| Violation(error.to_string()))?;
        let found = found.records().map(|(offset, reading)| (offset, number(reading))).collect();
        self.ledger.reopened(flushed, next, &found)?;
        let terms = Terms {
            topics: vec!["telemetry/#".to_owned()],
            has_history: self.starts > 1,
            remembered: self.remembered.clone(),
        };
        let room = log.room().borrow().clone();
        let random = || fastrand::Rng::with_seed(self.starts);
        let plan = Plan::new(&self.settings, flushed, random());
        self.process = Some(Process {
            source: Source::new(terms, room, random(), self.now),
            intake: Intake::new(writer),
            flusher: Flusher::new(plan, flushed),
            log,
            recovered: next - flushed,
            lost_before,
            is_stopping: false,
            ends_by_power_cut: false,
        });
        Ok(())
    }

    /// The process is gone. What it wrote last to the broker arrives, or a part of it.
    fn end_process(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let Some(process) = self.process.take() else { return Ok(()) };
        self.trace.note(Happened::Ended, u64::from(process.ends_by_power_cut), 0);
        let acknowledged = self.broker.client_is_gone(dice)?;
        self.acknowledge(acknowledged)?;
        if process.ends_by_power_cut {
            self.disk.cut_power(dice.random());
        }
        Ok(())
    }

    fn acknowledge(
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

    fn fail(&mut self, fault: Fault, dice: &mut Dice) -> Result<(), Violation> {
        match fault {
            Fault::Kill => return self.end_process(dice),
            Fault::PowerCut => {
                if let Some(process) = &mut self.process {
                    process.ends_by_power_cut = true;
                }
                return self.end_process(dice);
            }
            Fault::PowerCutAmidDisk => {
                if let Some(process) = &mut self.process {
                    process.ends_by_power_cut = true;
                    self.disk.power_off_after(dice.below(6) as u32);
                }
            }
            Fault::Stop => return self.stop(),
            Fault::CutConnection => {
                // A disk that is slow just then leaves more under way.
                if dice.one_in(2) {
                    self.stall(Actor::Intake, dice);
                }
                let acknowledged = self.broker.cut(dice)?;
                return self.acknowledge(acknowledged);
            }
            Fault::BrokerDown => self.broker.is_down = !self.broker.is_down,
            Fault::BrokerForgets => {
                if dice.one_in(2) {
                    self.stall(Actor::Intake, dice);
                }
                self.broker.forget();
            }
            Fault::BrokerRefuses => self.broker.refuses_next = true,
            Fault::DatabaseDown => self.database.is_down = !self.database.is_down,
            Fault::RefusesAll => {
                let is_over = self.database.refuses_all.is_some();
                self.database.refuses_all = (!is_over).then(|| dice.pick(SQLSTATES));
            }
            Fault::RefusesNext => self.database.refuses_next = Some(dice.pick(PASSING)),
            Fault::Swallows => {
                let kinds = [Swallows::Nothing, Swallows::EveryThird, Swallows::Everything];
                self.database.swallows = dice.pick(&kinds);
            }
            Fault::DropKey => self.database.has_key = false,
            Fault::DropPartition => self.database.has_partition = false,
            Fault::LoseAnswer => {
                self.with_flusher(|flusher, around| flusher.lose(dice, around)).transpose()?;
            }
            Fault::FailSync => self.disk.fail_next_sync(),
            Fault::DiskFull => {
                self.set_disk_full(!self.disk_is_full);
                self.look_at_disk();
            }
            Fault::LettersFail => self.letters.fails_next = true,
            Fault::LettersTaken => self.letters.take_database(),
            Fault::Pause => {
                let event = if dice.one_in(2) { Event::Pause } else { Event::Resume };
                self.with_flusher(|flusher, around| flusher.hear(event, around)).transpose()?;
            }
            Fault::Mend => self.database.mend(),
            Fault::Stall => self.stall(dice.pick(&ACTORS), dice),
        }
        Ok(())
    }

    fn stall(&mut self, actor: Actor, dice: &mut Dice) {
        let time = dice.pick(&[100, 400, 1_000, 3_000]);
        self.stalled = Some((actor, self.now + Duration::from_millis(time)));
    }

    fn set_disk_full(&mut self, is_full: bool) {
        self.disk_is_full = is_full;
        self.letters.disk_is_full = is_full;
        self.disk.set_capacity(is_full.then_some(0));
    }

    fn stop(&mut self) -> Result<(), Violation> {
        match &mut self.process {
            Some(process) if !process.is_stopping => process.is_stopping = true,
            _ => return Ok(()),
        }
        let done = self.with_source(Source::stop).transpose()?;
        self.acknowledge(done.into_iter().flatten())
    }

    /// Housekeeping: the log looks at its limits, which others can change.
    fn look_at_disk(&self) {
        if let Some(process) = &self.process {
            process.log.maintain();
        }
    }

    /// Faults stop, everything is mended, and time runs: in the end all is where it belongs.
    fn come_to_rest(&mut self) -> Result<(), Violation> {
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

    fn is_at_rest(&self) -> bool {
        self.broker.is_drained()
            && self.ledger.pending() == 0
            && self.process.as_ref().is_some_and(|one| one.intake.is_idle() && !one.is_stopping)
    }

    fn next_wake(&self) -> Duration {
        let later = self.now + Duration::from_secs(5);
        let Some(process) = &self.process else { return later };
        let wakes = [process.source.wake_at(), Some(process.flusher.wake_at())];
        let next = wakes.into_iter().flatten().fold(later, Duration::min);
        next.max(self.now + Duration::from_millis(1))
    }

    fn check_end(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        let stored = Stored { database: &self.database, letters: &self.letters };
        self.ledger.check_end(&stored)?;
        self.check_books()?;
        // And after a power cut nothing of it is different.
        self.fail(Fault::PowerCut, dice)?;
        self.start()?;
        self.ledger.check(&Stored { database: &self.database, letters: &self.letters })
    }

    /// All that came into the log since the start has gone out of it.
    fn check_books(&self) -> Result<(), Violation> {
        let Some(Process { intake, flusher, recovered, lost_before, .. }) = &self.process else {
            return Ok(());
        };
        let lost = self.shared.metrics.wal_lost_records.get() - lost_before;
        if intake.accepted + recovered == flusher.stored + lost {
            return Ok(());
        }
        Err(Violation(format!(
            "the books do not balance: {} accepted and {recovered} recovered, {} stored and {lost} lost",
            intake.accepted, flusher.stored
        )))
    }

    fn with_source<T>(
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
            log: &process.log,
            trace: &mut self.trace,
            now: self.now,
            mutant: self.mutant,
        };
        Some(f(&mut process.source, &mut around))
    }

    fn with_flusher<T>(
        &mut self,
        f: impl FnOnce(&mut Flusher, &mut flusher::Around<'_>) -> T,
    ) -> Option<T> {
        let process = self.process.as_mut()?;
        let mut around = flusher::Around {
            ledger: &mut self.ledger,
            letters: &mut self.letters,
            database: &mut self.database,
            log: &process.log,
            trace: &mut self.trace,
            now: self.now,
            mutant: self.mutant,
        };
        Some(f(&mut process.flusher, &mut around))
    }
}

impl Process {
    /// The broker was left, and the intake has nothing more to do.
    fn has_let_go(&self) -> bool {
        self.source.is_over() && self.intake.is_idle() && !self.flusher.is_stopping()
    }
}
