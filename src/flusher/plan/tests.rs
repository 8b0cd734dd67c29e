//! The plan against a model of everything it commands.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::{Accepted, Command, Event, Lettered, Plan, Report};
use crate::flusher::settings::Settings;
use crate::flusher::sink::{FlushError, Refusal, SinkError};
use crate::wal::{Offset, Rewound, WalError};

/// A database, a log and a dead-letter store, and the plan's commands that are under way.
struct World {
    plan: Plan,
    now: Duration,
    random: fastrand::Rng,
    under_way: Vec<Command>,
    reports: Vec<Report>,
    committed: Offset,
    table: BTreeSet<Offset>,
    letters: BTreeSet<Offset>,
    trimmed: Offset,
    statements: u64,
    finished: Option<Result<(), FlushError>>,

    is_down: bool,
    /// It went back, or is another one, and takes nothing.
    is_another: bool,
    /// From where on the log has what was flushed.
    retained: Offset,
    remembered: u32,
    /// How long the database takes for a row.
    row_takes: Duration,
    /// A single row that is always too slow.
    slow_row: Option<Offset>,
    refuses: Box<dyn Fn(Offset) -> bool>,
    refuses_by_table: Box<dyn Fn(Offset) -> bool>,
    swallows: Box<dyn Fn(Offset) -> bool>,
    has_room_for_letters: bool,
}

fn refusal(is_tables: bool) -> Refusal {
    let (sqlstate, reason) = (Some("P0001".to_owned()), "no".to_owned());
    Refusal { sqlstate, reason, object: None, advice: None, is_tables }
}

fn too_slow() -> SinkError {
    SinkError::TimedOut { reason: "slow".to_owned() }
}

impl World {
    fn new(batch_size: usize, connections: usize, seed: u64) -> Self {
        let batch_timeout = Duration::from_millis(50);
        let settings = Settings { batch_size, batch_timeout, connections };
        let mut world = Self {
            plan: Plan::new(&settings, 0, fastrand::Rng::with_seed(seed)),
            now: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
            under_way: Vec::new(),
            reports: Vec::new(),
            committed: 0,
            table: BTreeSet::new(),
            letters: BTreeSet::new(),
            trimmed: 0,
            statements: 0,
            finished: None,
            is_down: false,
            is_another: false,
            retained: 0,
            remembered: 0,
            row_takes: Duration::ZERO,
            slow_row: None,
            refuses: Box::new(|_| false),
            refuses_by_table: Box::new(|_| false),
            swallows: Box::new(|_| false),
            has_room_for_letters: true,
        };
        world.tell(Event::Tick);
        world
    }

    fn tell(&mut self, event: Event) {
        for command in self.plan.handle(event, self.now) {
            match command {
                Command::Flushed(to) => {
                    assert!(to > self.trimmed);
                    for offset in self.trimmed..to {
                        let is_safe =
                            self.table.contains(&offset) || self.letters.contains(&offset);
                        assert!(is_safe || self.is_another, "{offset} is flushed and nowhere");
                    }
                    self.trimmed = to;
                }
                Command::Report(report) => self.reports.push(report),
                Command::Remember => {
                    assert!((0..self.trimmed).all(|at| self.table.contains(&at)));
                    self.remembered += 1;
                }
                Command::Release { .. } => {}
                Command::Finish(outcome) => {
                    assert!(self.under_way.is_empty(), "it does not wait: {:?}", self.under_way);
                    self.finished = Some(outcome);
                }
                other => {
                    assert!(self.finished.is_none(), "after its end: {other:?}");
                    self.under_way.push(other);
                }
            }
        }
    }

    fn grow(&mut self, rows: u64) {
        self.committed += rows;
        self.tell(Event::Grown(self.committed));
    }

    /// Ends a command that is under way; false if there is none.
    fn end_one(&mut self) -> bool {
        if self.under_way.is_empty() {
            return false;
        }
        let at = self.random.usize(..self.under_way.len());
        let mut took = Duration::from_millis(5);
        let down = || SinkError::Unavailable { reason: "down".to_owned(), sqlstate: None };
        let another = || SinkError::WentBack { reason: "another".to_owned() };
        let answer = match (self.is_down, self.is_another) {
            (true, _) => Err(down()),
            (false, true) => Err(another()),
            (false, false) => Ok(()),
        };
        let event = match self.under_way.swap_remove(at) {
            Command::Prepare => Event::Prepared(answer),
            Command::Ping => Event::Ponged(answer),
            Command::Insert { batch, rows, all, limit } => {
                let count = u32::try_from(rows.end - rows.start).unwrap();
                let is_slow = self.slow_row.is_some_and(|row| rows.contains(&row));
                took = if is_slow { limit } else { took + self.row_takes * count };
                let answer = if took < limit { answer } else { Err(too_slow()) };
                took = took.min(limit);
                assert!(all.start <= rows.start && rows.end <= all.end && rows.start < rows.end);
                self.statements += 1;
                let outcome = answer.and_then(|()| self.insert(rows));
                Event::Inserted { batch, outcome, took }
            }
            Command::Letter { batch, rows, .. } => {
                let outcome = if self.has_room_for_letters {
                    for (offset, _) in rows {
                        assert!(!self.table.contains(&offset), "{offset} is in the table");
                        assert!(self.letters.insert(offset), "{offset} has two letters");
                    }
                    Lettered::Stored
                } else {
                    Lettered::NoRoom("no room".to_owned())
                };
                Event::Lettered { batch, outcome }
            }
            Command::Rewind => {
                assert!(self.under_way.is_empty(), "beside it is under way: {:?}", self.under_way);
                let records = self.trimmed - self.retained;
                (self.trimmed, self.is_another) = (self.retained, false);
                Event::Rewound(Rewound { to: self.retained, records })
            }
            other => panic!("{other:?} has no end"),
        };
        self.now += took;
        self.tell(event);
        true
    }

    fn insert(&mut self, rows: Range<Offset>) -> Result<Accepted, SinkError> {
        if rows.clone().any(&self.refuses_by_table) {
            return Err(SinkError::Refused(refusal(true)));
        }
        if rows.clone().any(&self.refuses) {
            return Err(SinkError::Refused(refusal(false)));
        }
        let mut accepted = Accepted::default();
        for offset in rows {
            assert!(!self.letters.contains(&offset), "{offset} is a letter");
            if (self.swallows)(offset) {
                accepted.swallowed.push(offset);
            } else if self.table.insert(offset) {
                accepted.inserted += 1;
            } else {
                accepted.duplicates += 1;
            }
        }
        Ok(accepted)
    }

    fn pass_time(&mut self) {
        let wake = self.plan.wake_at(self.now);
        assert!(wake > self.now, "it would spin");
        self.now = wake;
        self.tell(Event::Tick);
    }

    /// Until nothing waits, or so much time has passed.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.trimmed < self.committed {
            if !self.end_one() {
                self.pass_time();
            }
        }
    }

    #[track_caller]
    fn drain(&mut self) {
        self.run_for(Duration::from_secs(3 * 3_600));
        assert_eq!(self.trimmed, self.committed, "it does not drain: {:?}", self.plan);
    }

    fn is_refusing(&self) -> bool {
        let is_it = |report: &&Report| !matches!(report, Report::Swallowed { .. });
        matches!(self.reports.iter().rfind(is_it), Some(Report::Refusing { .. }))
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn full_batches_go_at_once_over_all_connections_and_what_lingers_goes_after_the_timeout() {
    let mut world = World::new(100, 2, 1);
    world.grow(250);
    // The schema.
    world.end_one();
    assert_eq!(world.under_way.len(), 2, "two connections are used: {:?}", world.under_way);
    world.drain();
    assert_eq!(world.statements, 3);
    assert!(world.now > Duration::from_millis(50) && world.now < Duration::from_millis(100));
}

#[test]
fn what_ends_out_of_order_is_trimmed_when_the_gap_is_closed() {
    let mut world = World::new(10, 4, 2);
    world.grow(200);
    while world.trimmed < 200 {
        world.end_one();
    }
    assert_eq!(world.table.len(), 200);
}

#[test]
fn a_refused_row_becomes_a_letter_and_stops_none_of_its_neighbours() {
    let mut world = World::new(2_000, 2, 3);
    world.refuses = Box::new(|row| [0, 1_111, 1_112, 2_999].contains(&row));
    world.grow(3_000);
    world.drain();
    assert_eq!(world.letters, BTreeSet::from([0, 1_111, 1_112, 2_999]));
    assert_eq!(world.table.len(), 2_996);
    assert!(world.statements < 100, "{} statements", world.statements);
    assert!(!world.reports.iter().any(|report| matches!(report, Report::Refusing { .. })));
}

#[test]
fn what_refuses_row_after_row_gets_no_letter_and_all_goes_in_once_it_is_mended() {
    for connections in [1, 2, 8] {
        let mut world = World::new(2_000, connections, 4);
        world.refuses = Box::new(|_| true);
        world.grow(100_000);
        world.run_for(HOUR);
        assert_eq!(world.letters.len(), 0);
        assert!(world.is_refusing());
        let rounds = HOUR.as_secs() / 5;
        assert!(world.statements < rounds * 110, "{} statements", world.statements);
        world.refuses = Box::new(|_| false);
        let (before, then) = (world.statements, world.now);
        world.drain();
        assert_eq!(world.table.len(), 100_000);
        assert!(world.statements - before < 300, "{} statements", world.statements - before);
        assert!(world.now < then + MINUTE);
        assert!(!world.is_refusing());
    }
}

#[test]
fn row_by_row_a_broken_table_makes_less_than_a_hundred_letters() {
    let mut world = World::new(2_000, 2, 5);
    world.refuses = Box::new(|_| true);
    for _ in 0..200 {
        world.grow(1);
        world.run_for(MINUTE / 6);
    }
    assert!((50..100).contains(&world.letters.len()), "{} letters", world.letters.len());
    assert!(world.is_refusing());
    world.refuses = Box::new(|_| false);
    world.drain();
    assert_eq!(world.table.len() + world.letters.len(), 200);
}

#[test]
fn many_refused_rows_in_a_row_are_at_fault_when_as_many_others_are_accepted() {
    let mut world = World::new(100, 2, 6);
    world.refuses = Box::new(|row| row < 300);
    world.grow(1_000);
    world.run_for(MINUTE);
    assert_eq!(world.letters, (0..300).collect());
    assert_eq!(world.table, (300..1_000).collect());
}

#[test]
fn what_no_row_can_help_is_kept_while_its_neighbours_go_in() {
    let mut world = World::new(500, 2, 7);
    world.refuses_by_table = Box::new(|row| row % 10 == 3);
    world.grow(5_000);
    world.run_for(10 * MINUTE);
    assert_eq!(world.letters.len(), 0);
    assert_eq!(world.table.len(), 4_500, "its neighbours are stored");
    assert!(world.is_refusing());
    // Fresh rows are not held up by what is held.
    let then = world.now;
    world.grow(10);
    world.run_for(MINUTE);
    assert_eq!(world.table.len(), 4_509);
    world.refuses_by_table = Box::new(|_| false);
    world.drain();
    assert_eq!(world.table.len(), 5_010);
    assert!(world.now < then + 3 * MINUTE);
}

#[test]
fn a_row_that_is_refused_for_itself_once_the_table_is_mended_waits_for_no_further_rows() {
    let mut world = World::new(4, 2, 7);
    world.refuses_by_table = Box::new(|offset| offset == 3);
    world.grow(10);
    world.run_for(Duration::from_mins(1));
    assert_eq!((world.table.len(), world.letters.len(), world.trimmed), (9, 0, 0));
    // A log that is full brings no row that could be accepted.
    world.refuses_by_table = Box::new(|_| false);
    world.refuses = Box::new(|offset| offset == 3);
    world.drain();
    assert_eq!((world.table.len(), world.letters.len(), world.trimmed), (9, 1, 10));
}

#[test]
fn an_operator_can_have_what_is_refused_dead_lettered_until_something_is_accepted() {
    let mut world = World::new(1_000, 2, 8);
    world.refuses = Box::new(|row| row < 5_000);
    world.refuses_by_table = Box::new(|row| row < 2_000);
    world.grow(5_000);
    world.run_for(MINUTE);
    assert_eq!(world.letters.len(), 0);
    world.tell(Event::Reject);
    world.drain();
    assert_eq!(world.letters.len(), 5_000);
    world.grow(10);
    world.drain();
    assert_eq!(world.table.len(), 10);
    world.refuses = Box::new(|_| true);
    world.grow(1_000);
    world.run_for(MINUTE);
    assert_eq!(world.letters.len(), 5_000, "it is over with the first row accepted");
}

#[test]
fn swallowed_rows_are_refused_rows() {
    let mut world = World::new(1_000, 2, 9);
    world.swallows = Box::new(|row| row % 100 == 7);
    world.grow(3_000);
    world.drain();
    assert_eq!(world.letters.len(), 30);
    world.swallows = Box::new(|_| true);
    world.grow(12_000);
    world.run_for(2 * MINUTE);
    assert_eq!(world.letters.len(), 30, "all of them swallowed: the table's fault");
    assert!(world.is_refusing());
    world.swallows = Box::new(|_| false);
    world.drain();
    assert_eq!(world.table.len(), 2_970 + 12_000);
}

#[test]
fn batches_shrink_until_they_are_fast_enough_and_a_row_that_never_is_stops_none() {
    let mut world = World::new(2_000, 1, 10);
    world.row_takes = Duration::from_millis(700);
    world.slow_row = Some(123);
    world.grow(2_500);
    world.drain();
    assert_eq!(world.table.len(), 2_499);
    assert_eq!(world.letters, BTreeSet::from([123]));
    assert!(world.now < 60 * MINUTE, "{:?}", world.now);
}

#[test]
fn without_room_for_letters_their_rows_stay_in_the_log_and_others_go_in() {
    let mut world = World::new(100, 2, 11);
    world.refuses = Box::new(|row| row == 50);
    world.has_room_for_letters = false;
    world.grow(1_000);
    world.run_for(MINUTE);
    assert_eq!((world.table.len(), world.trimmed), (999, 0));
    world.has_room_for_letters = true;
    world.drain();
    assert_eq!(world.letters, BTreeSet::from([50]));
}

#[test]
fn a_disk_that_fails_ends_it_after_what_is_under_way_and_is_no_failure_of_the_database() {
    let mut world = World::new(10, 3, 12);
    world.grow(100);
    world.end_one();
    world.end_one();
    world.under_way.pop();
    world.tell(Event::Failed(FlushError::Log(WalError::Poisoned)));
    assert!(world.finished.is_none());
    while world.end_one() {}
    assert!(matches!(world.finished, Some(Err(FlushError::Log(WalError::Poisoned)))));
    assert!(!world.reports.iter().any(|report| matches!(report, Report::Down { .. })));
}

#[test]
fn a_stop_begins_nothing_and_waits_for_what_is_under_way() {
    let mut world = World::new(10, 3, 13);
    world.grow(100);
    world.end_one();
    world.end_one();
    let under_way = world.under_way.len();
    assert!(under_way > 0);
    world.tell(Event::Stop);
    assert!(world.finished.is_none());
    for _ in 0..under_way {
        assert!(world.end_one());
    }
    assert!(matches!(world.finished, Some(Ok(()))));
}

#[test]
fn while_paused_nothing_is_sent_but_the_question_whether_the_database_is_there() {
    let mut world = World::new(10, 3, 14);
    world.tell(Event::Pause);
    world.end_one();
    world.grow(100);
    for _ in 0..100 {
        if !world.end_one() {
            world.pass_time();
        }
    }
    assert_eq!(world.statements, 0);
    world.tell(Event::Resume);
    world.drain();
}

/// Everything at once, as a seed has it; each offset ends in the table or as one letter.
fn chaos(seed: u64) {
    let mut random = fastrand::Rng::with_seed(!seed);
    let mut world = World::new(random.usize(1..200), random.usize(1..5), seed);
    let poison = random.u64(2..300);
    world.refuses = Box::new(move |row| row % poison == 1);
    let thirsty = random.u64(2..500);
    world.swallows = Box::new(move |row| row % thirsty == 2);
    for _ in 0..random.usize(10..200) {
        match random.u32(..20) {
            0 => world.is_down = !world.is_down,
            1 => world.row_takes = Duration::from_millis(random.u64(..2) * random.u64(..3_000)),
            2 => {
                let is_whole = random.bool();
                let gap = random.u64(1..9);
                world.refuses_by_table = Box::new(move |row| !is_whole && row % gap == 0);
            }
            3 => world.has_room_for_letters = random.bool(),
            4 => world.tell(if random.bool() { Event::Pause } else { Event::Resume }),
            5 if seed.is_multiple_of(3) => world.tell(Event::Reject),
            6 | 7 => world.pass_time(),
            8..=10 => world.grow(random.u64(1..300)),
            _ => drop(world.end_one()),
        }
    }
    world.is_down = false;
    world.row_takes = Duration::ZERO;
    world.refuses_by_table = Box::new(|_| false);
    world.has_room_for_letters = true;
    world.tell(Event::Resume);
    // So that those at fault can be told from a table at fault.
    world.grow(2_000);
    world.run_for(10 * MINUTE);
    if world.trimmed < world.committed {
        world.refuses = Box::new(|_| false);
        world.swallows = Box::new(|_| false);
    }
    world.drain();
    let (stored, lettered) = (world.table.len(), world.letters.len());
    assert_eq!((stored + lettered) as u64, world.committed, "seed {seed}");
    world.tell(Event::Stop);
    while world.end_one() {}
    assert!(matches!(world.finished, Some(Ok(()))), "seed {seed}");
}

#[test]
fn whatever_happens_each_row_ends_in_the_table_or_as_a_letter_and_is_trimmed_after_that() {
    for seed in 0..150 {
        chaos(seed);
    }
}

#[test]
fn what_a_database_has_lost_that_went_back_is_sent_again() {
    let mut world = World::new(10, 2, 1);
    world.grow(100);
    world.drain();
    world.table.retain(|offset| *offset < 40);
    (world.is_another, world.retained) = (true, 20);
    world.grow(30);
    world.drain();
    assert!(world.table.iter().copied().eq(0..130));
    let reports = world.reports.iter();
    let again = reports.filter_map(|report| match report {
        Report::WentBack { records, .. } => Some(*records),
        _ => None,
    });
    assert_eq!(again.collect::<Vec<_>>(), [80]);
    assert_eq!((world.remembered, world.plan.resending()), (1, 0));
    assert!(!world.reports.iter().any(|report| matches!(report, Report::Down { .. })));
}

#[test]
fn one_that_goes_back_once_more_amid_that_is_not_remembered_before_it_has_everything() {
    let mut world = World::new(10, 1, 1);
    world.grow(100);
    world.drain();
    world.table.clear();
    world.is_another = true;
    world.grow(10);
    while world.plan.flushed() == 0 || world.plan.flushed() > 50 {
        if !world.end_one() {
            world.pass_time();
        }
    }
    world.table.clear();
    world.is_another = true;
    while world.remembered == 0 {
        assert!(world.plan.resending() <= 100);
        if !world.end_one() {
            world.pass_time();
        }
    }
    assert!((0..100).all(|offset| world.table.contains(&offset)));
    world.drain();
    assert!(world.table.iter().copied().eq(0..110));
}

#[test]
fn a_database_that_went_back_is_noticed_also_when_nothing_comes() {
    let mut world = World::new(10, 2, 1);
    world.grow(100);
    world.drain();
    world.table.clear();
    world.is_another = true;
    while world.remembered == 0 {
        if !world.end_one() {
            world.pass_time();
        }
    }
    assert_eq!(world.table.len(), 100);
}

#[test]
fn newer_rows_keep_up_with_those_that_are_sent_again() {
    let mut world = World::new(10, 1, 1);
    world.grow(1_000);
    world.drain();
    world.table.clear();
    world.is_another = true;
    world.grow(10);
    while world.remembered == 0 {
        let before = world.statements;
        while !world.table.contains(&(world.committed - 1)) {
            if !world.end_one() {
                world.pass_time();
            }
        }
        assert!(world.statements - before <= 3, "{} statements", world.statements - before);
        world.grow(10);
    }
}

#[test]
fn what_was_confirmed_beside_a_database_that_is_another_counts_for_nothing() {
    let mut world = World::new(10, 2, 1);
    world.end_one();
    world.grow(10);
    world.drain();
    world.grow(20);
    assert_eq!(world.under_way.len(), 2);
    let batch_of = |command| match command {
        Command::Insert { batch, rows, .. } => (batch, rows.end - rows.start),
        other => panic!("{other:?}"),
    };
    let took = Duration::from_millis(1);
    let (noticed, _) = batch_of(world.under_way.remove(0));
    let (confirmed, inserted) = batch_of(world.under_way.remove(0));
    let outcome = Err(SinkError::WentBack { reason: "another".to_owned() });
    world.is_another = true;
    world.tell(Event::Inserted { batch: noticed, outcome, took });
    assert!(world.under_way.is_empty(), "what is under way ends first");
    // By the server that is not there any more.
    let outcome = Ok(Accepted { inserted, ..Accepted::default() });
    world.tell(Event::Inserted { batch: confirmed, outcome, took });
    world.drain();
    assert!(world.table.iter().copied().eq(0..30));
    let again = |report: &Report| matches!(report, Report::WentBack { records: 20, .. });
    assert!(world.reports.iter().any(again), "{:?}", world.reports);
}
