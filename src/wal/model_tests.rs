//! The log against a model, on disk and in memory: whatever is appended, committed, read, trimmed
//! and reopened in whatever order, the log holds what a plain vector would.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::contract::Storage;
use super::engine::memory::MemoryStorage;
use super::{Limits, Log, Offset, SledStorage, Writer, log};
use crate::base::metrics::Metrics;
use crate::base::properties::seeded_cases;
use crate::base::time::{Clock, ManualClock, Timestamp};
use crate::telemetry::{Reading, Record};

const RETAIN: Duration = Duration::from_secs(10);

const LIMITS: Limits = Limits {
    max_bytes: u64::MAX,
    min_free_bytes: 0,
    generation_bytes: 64 * 1024 * 1024,
    retain: Duration::ZERO,
};

#[derive(Clone, Debug)]
enum Op {
    Append(u16),
    Commit,
    /// The sync fails and the process ends; and the power goes, if there is a seed for what that leaves.
    FailCommit(Option<u64>),
    /// The power goes without warning.
    CutPower(u64),
    Maintain,
    /// From a share of the log on, up to so many records.
    Read(u8, u16),
    /// Up to a share of what is pending.
    Flush(u8),
    /// Seconds pass, so many.
    Wait(u8),
    /// The database has everything that was flushed.
    Confirm,
    /// The database went back.
    Rewind,
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (1..700_u16).prop_map(Op::Append),
        6 => Just(Op::Commit),
        1 => any::<Option<u64>>().prop_map(Op::FailCommit),
        1 => any::<u64>().prop_map(Op::CutPower),
        2 => Just(Op::Maintain),
        4 => (any::<u8>(), 1..3_000_u16).prop_map(|(share, max)| Op::Read(share, max)),
        4 => any::<u8>().prop_map(Op::Flush),
        3 => (0..15_u8).prop_map(Op::Wait),
        3 => Just(Op::Confirm),
        2 => Just(Op::Rewind),
        2 => Just(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..60)
}

/// What the log must hold: a record's index is its offset.
#[derive(Default)]
struct Model {
    /// `None` where a commit was cut off by a power cut, and this block of it was not written.
    committed: Vec<Option<Record>>,
    /// Of commits that failed: read back by the next process, but not on the disk for certain.
    uncertain: Vec<Range<usize>>,
    /// What was uncertain and flushed when the power went: there or not.
    doubtful: Vec<Range<usize>>,
    appended: Vec<Record>,
    flushed: usize,
    /// What it was before a rewind, and may be for the next process.
    flushed_before: usize,
    /// When the log was flushed up to where.
    flushes: Vec<(Duration, usize)>,
    confirmed: Duration,
    made: u32,
}

impl Model {
    fn make(&mut self) -> Record {
        self.made += 1;
        Record::from(Reading {
            device_id: format!("device-{}", self.made % 7),
            timestamp: Timestamp::from_millis(1_759_667_696_000 + i64::from(self.made)).unwrap(),
            values: [f64::from(self.made) * 0.37, 1.0 / f64::from(self.made), 50.0],
        })
    }

    fn flushed(&self) -> Offset {
        self.flushed as Offset
    }
}

fn start() -> Timestamp {
    Timestamp::from_millis(1_759_667_696_000).unwrap()
}

fn open(storage: Box<dyn Storage>, limits: Limits, metrics: &Metrics) -> (Writer, Log) {
    log::open(storage, Arc::new(ManualClock::at(start())), limits, metrics).unwrap()
}

fn run(ops: &[Op], storage: &dyn Fn() -> Box<dyn Storage>, memory: Option<&MemoryStorage>) {
    // So small that every maintenance starts a new generation.
    let limits = Limits { generation_bytes: 1, retain: RETAIN, ..LIMITS };
    let metrics = Metrics::new().unwrap();
    let clock = ManualClock::at(start());
    let reopen = || log::open(storage(), Arc::new(clock.clone()), limits, &metrics).unwrap();
    let mut model = Model::default();
    let (mut writer, mut log) = reopen();
    for op in ops {
        match op {
            Op::Append(count) => {
                for _ in 0..*count {
                    let reading = model.make();
                    model.appended.push(reading.clone());
                    writer.append(start(), reading);
                }
            }
            Op::Commit => {
                writer.commit().unwrap();
                model.committed.extend(model.appended.drain(..).map(Some));
            }
            Op::FailCommit(power_cut) => {
                let Some(memory) = memory.filter(|_| !model.appended.is_empty()) else { continue };
                memory.fail_next_sync();
                assert!(writer.commit().is_err());
                assert!(writer.commit().is_err(), "a poisoned log takes nothing more");
                assert_eq!(*log.committed().borrow(), model.committed.len() as Offset);
                drop((writer, log));
                if let Some(seed) = power_cut {
                    memory.cut_power(&mut fastrand::Rng::with_seed(*seed));
                }
                (writer, log) = reopen();
                model.restarted(&log, power_cut.is_some(), clock.monotonic());
            }
            Op::CutPower(seed) => {
                let Some(memory) = memory else { continue };
                drop((writer, log));
                memory.cut_power(&mut fastrand::Rng::with_seed(*seed));
                model.appended.clear();
                (writer, log) = reopen();
                model.restarted(&log, true, clock.monotonic());
            }
            Op::Maintain => writer.maintain().unwrap(),
            Op::Read(share, max) => check_read(&log, &model, *share, usize::from(*max)),
            Op::Flush(share) => {
                let pending = model.committed.len() - model.flushed;
                model.flushed += pending * usize::from(*share) / 255;
                log.flush_to(model.flushed());
                model.flushes.push((clock.monotonic(), model.flushed));
            }
            Op::Wait(seconds) => {
                clock.advance(Duration::from_secs(u64::from(*seconds)));
                log.maintain();
            }
            Op::Confirm => {
                log.confirm(Duration::ZERO);
                model.confirmed = clock.monotonic();
            }
            Op::Rewind => {
                let pending = log.stats().pending_records;
                let rewound = log.rewind().unwrap();
                assert_eq!(log.stats().pending_records, pending + rewound.records);
                let to = usize::try_from(rewound.to).unwrap();
                let promised = model.retained();
                // What lies before a hole cannot be told from what is given up already.
                let mut holes = (promised..model.flushed).filter(|at| model.may_be_hole(*at));
                assert!(to <= holes.next_back().map_or(promised, |hole| hole + 1));
                model.flushed_before = model.flushed_before.max(model.flushed);
                model.set_flushed(to);
            }
            Op::Reopen => {
                drop((writer, log));
                model.appended.clear();
                (writer, log) = reopen();
                model.restarted(&log, false, clock.monotonic());
            }
        }
        check_state(&log, &model);
    }
    check_read(&log, &model, 0, usize::MAX);
}

impl Model {
    /// What a restart may change: a group that was cut off is there, or not, or in part; and what was
    /// flushed may be forgotten in a power cut, and is sent again. It must be there then.
    fn restarted(&mut self, log: &Log, is_power_cut: bool, now: Duration) {
        let stats = log.stats();
        let flushed = usize::try_from(stats.flushed_offset).unwrap();
        let next = usize::try_from(stats.next_offset).unwrap();
        let committed = self.committed.len();
        // Of a generation in which nothing can be read, no offset that it may have held is used again.
        let has_skipped = next > committed + self.appended.len();
        assert!(is_power_cut || !has_skipped);
        let nothing_is_pending = self.flushed == committed && flushed == next;
        let may_be = self.flushed..=self.flushed.max(self.flushed_before);
        // Where the log is trimmed up to offsets that were skipped, it goes on behind them.
        let mut between = self.flushed..flushed.min(committed);
        assert!(
            may_be.contains(&flushed)
                || (is_power_cut && flushed < self.flushed)
                || (has_skipped && nothing_is_pending)
                || (flushed <= committed && between.all(|at| self.may_be_hole(at)))
        );
        self.set_flushed(flushed);
        // Nobody knows any more when that was.
        self.flushes.push((now, flushed));
        assert!(next >= committed);
        if is_power_cut {
            self.forget_uncertain(log);
            self.look_for_doubtful(log);
        } else if next > committed {
            self.uncertain.push(committed..next);
        }
        let read = log.read(committed as Offset, next as Offset).unwrap();
        self.committed.resize(next, None);
        for (offset, reading) in read.records() {
            let at = usize::try_from(offset).unwrap();
            assert_eq!(*reading, self.appended[at - committed]);
            self.committed[at] = Some(reading.clone());
        }
        self.appended.clear();
    }

    /// A power cut takes of what is uncertain what it likes.
    fn forget_uncertain(&mut self, log: &Log) {
        for uncertain in self.uncertain.drain(..) {
            self.doubtful.push(uncertain.start..uncertain.end.min(self.flushed));
            for at in uncertain.start.max(self.flushed)..uncertain.end {
                let offset = at as Offset;
                if log.read(offset, offset + 1).unwrap().is_empty() {
                    self.committed[at] = None;
                }
            }
        }
    }

    /// Of what was in doubt something can be pending again, if it is there.
    fn look_for_doubtful(&mut self, log: &Log) {
        for at in self.doubtful.iter().flat_map(Clone::clone) {
            let offset = at as Offset;
            if at >= self.flushed && log.read(offset, offset + 1).unwrap().is_empty() {
                self.committed[at] = None;
            }
        }
    }

    /// What is flushed from here on can be sent again.
    fn retained(&self) -> usize {
        let is_over =
            |at: Duration| self.confirmed.checked_sub(at).is_some_and(|age| age >= RETAIN);
        let over = self.flushes.iter().filter(|(at, _)| is_over(*at));
        over.map(|(_, flushed)| *flushed).max().unwrap_or(0)
    }

    fn set_flushed(&mut self, flushed: usize) {
        self.flushed = flushed;
        for (_, before) in &mut self.flushes {
            *before = flushed.min(*before);
        }
    }

    fn may_be_hole(&self, at: usize) -> bool {
        let is_doubtful = self.doubtful.iter().any(|doubtful| doubtful.contains(&at));
        is_doubtful || self.committed[at].is_none()
    }

    fn is_hole(&self, offset: Offset) -> bool {
        self.committed[usize::try_from(offset).unwrap()].is_none()
    }
}

fn check_state(log: &Log, model: &Model) {
    let stats = log.stats();
    assert_eq!(stats.next_offset, model.committed.len() as Offset);
    assert_eq!(stats.flushed_offset, model.flushed());
    let holes = model.committed[model.flushed..].iter().filter(|reading| reading.is_none()).count();
    let unflushed = stats.next_offset - stats.flushed_offset;
    assert!((unflushed - holes as Offset..=unflushed).contains(&stats.pending_records));
    // After another restart nobody knows of a hole any more that it was never acknowledged.
    for range in log.quarantined().unwrap().iter().flat_map(|report| &report.lost_ranges) {
        assert!((range.from..=range.to).all(|offset| model.is_hole(offset)), "{range:?}");
    }
}

fn check_read(log: &Log, model: &Model, share: u8, max: usize) {
    let pending = &model.committed[model.flushed..];
    let skip = pending.len() * usize::from(share) / 255;
    let from = model.flushed + skip;
    let to = pending.len().min(skip.saturating_add(max));
    let batch = log.read(from as Offset, (from as Offset).saturating_add(max as Offset)).unwrap();
    assert_eq!(batch.next, (model.flushed + to) as Offset);
    let expected = (from as Offset..).zip(&pending[skip..to]);
    let expected = expected.filter_map(|(offset, reading)| Some((offset, reading.as_ref()?)));
    assert!(batch.records().eq(expected));
}

proptest! {
    #![proptest_config(seeded_cases(200))]

    #[test]
    fn the_log_in_memory_holds_what_its_model_holds(ops in ops()) {
        let memory = MemoryStorage::default();
        run(&ops, &|| Box::new(memory.clone()), Some(&memory));
    }
}

proptest! {
    #![proptest_config(seeded_cases(20))]

    #[test]
    fn the_log_on_disk_holds_what_its_model_holds(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        run(&ops, &|| Box::new(SledStorage::open(dir.path()).unwrap()), None);
    }
}

/// Found by the test above.
#[test]
fn a_first_commit_of_which_only_torn_blocks_are_left_is_set_aside_and_its_offsets_skipped() {
    let memory = MemoryStorage::default();
    let ops = [Op::Append(1_501), Op::FailCommit(Some(14_716_909_541_870_505_574))];
    run(&ops, &|| Box::new(memory.clone()), Some(&memory));
    assert_eq!(memory.quarantined().unwrap().len(), 1);
}

/// Of which it was said that they are gone.
#[test]
fn a_flush_that_ends_among_skipped_offsets_leaves_nothing_that_is_missed_after_a_restart() {
    let memory = MemoryStorage::default();
    let skips = [Op::Append(1_501), Op::FailCommit(Some(14_716_909_541_870_505_574))];
    let is_trimmed = [Op::Flush(128), Op::Wait(14), Op::Confirm, Op::Wait(1)];
    let ops: Vec<Op> = [Op::Append(42), Op::Commit, Op::Reopen]
        .into_iter()
        .chain(skips)
        .chain(is_trimmed)
        .chain([Op::Reopen])
        .collect();
    run(&ops, &|| Box::new(memory.clone()), Some(&memory));
    assert_eq!(memory.quarantined().unwrap().len(), 1, "{:?}", memory.quarantined().unwrap());
}

/// Found by the test above.
#[test]
fn what_a_torn_group_and_a_power_cut_leave_is_read_as_it_was_committed() {
    let memory = MemoryStorage::default();
    let ops = [
        Op::Append(42),
        Op::Commit,
        Op::Append(414),
        Op::Append(471),
        Op::Append(614),
        Op::Flush(7),
        Op::FailCommit(Some(13_759_019_150_985_185_762)),
        Op::Flush(1),
        Op::Wait(14),
        Op::Confirm,
        Op::Wait(1),
        Op::CutPower(0),
    ];
    run(&ops, &|| Box::new(memory.clone()), Some(&memory));
}

fn on_disk(dir: &Path, limits: Limits) -> (Writer, Log, Metrics) {
    let metrics = Metrics::new().unwrap();
    let (writer, log) = open(Box::new(SledStorage::open(dir).unwrap()), limits, &metrics);
    (writer, log, metrics)
}

fn commit(writer: &mut Writer, model: &mut Model, records: usize) {
    for _ in 0..records {
        let reading = model.make();
        writer.append(start(), reading.clone());
        model.committed.push(Some(reading));
    }
    writer.commit().unwrap();
}

#[test]
fn offsets_go_on_after_a_restart_with_everything_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let (mut writer, log, _) = on_disk(dir.path(), LIMITS);
    commit(&mut writer, &mut model, 1_000);
    log.flush_to(1_000);
    drop((writer, log));
    let (mut writer, log, _) = on_disk(dir.path(), LIMITS);
    assert_eq!(log.stats().next_offset, 1_000);
    commit(&mut writer, &mut model, 1);
    assert_eq!(log.read(1_000, 1_010).unwrap().records().next().unwrap().0, 1_000);
}

#[test]
fn what_was_flushed_is_known_after_two_power_cuts_in_a_row() {
    let memory = MemoryStorage::default();
    let metrics = Metrics::new().unwrap();
    let reopen = || open(Box::new(memory.clone()), LIMITS, &metrics);
    let mut model = Model::default();
    let (mut writer, mut log) = reopen();
    commit(&mut writer, &mut model, 10);
    log.flush_to(5);
    commit(&mut writer, &mut model, 1);
    for _ in 0..2 {
        drop((writer, log));
        memory.cut_power_dropping_all();
        (writer, log) = reopen();
        assert_eq!(log.stats().pending_records, 6);
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let _first = SledStorage::open(dir.path()).unwrap();
    assert!(matches!(SledStorage::open(dir.path()), Err(super::WalError::Locked { .. })));
}

#[test]
fn a_drained_log_gives_its_disk_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let (mut writer, log, _) = on_disk(dir.path(), LIMITS);
    for _ in 0..100 {
        commit(&mut writer, &mut model, 6_000);
        writer.maintain().unwrap();
    }
    assert!(log.stats().disk_bytes > 10 << 20, "{:?}", log.stats());
    log.flush_to(600_000);
    assert!(log.stats().disk_bytes < 4 << 20, "{:?}", log.stats());
}

struct AfterDamage {
    read: Vec<(Offset, Record)>,
    quarantined: Vec<super::Quarantined>,
    metrics: Metrics,
    model: Model,
}

/// Damages the raw file of the generation that holds offset 0, and reads everything back.
fn damaged(damage: impl FnOnce(&Path)) -> AfterDamage {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let (mut writer, log, _) = on_disk(dir.path(), LIMITS);
    for _ in 0..30 {
        commit(&mut writer, &mut model, 1_000);
    }
    drop((writer, log));
    damage(&dir.path().join("00000000000000000000"));
    let (mut writer, log, metrics) = on_disk(dir.path(), LIMITS);
    let first_new = log.stats().next_offset;
    assert!(first_new >= 30_000, "offsets are not used again: {first_new}");
    commit(&mut writer, &mut model, 1);
    let mut all = Vec::new();
    let mut next = 0;
    while next < first_new + 1 {
        let batch = log.read(next, next + 2_000).unwrap();
        all.extend(batch.records().map(|(offset, reading)| (offset, reading.clone())));
        next = batch.next;
    }
    log.flush_to(next);
    assert_eq!(log.stats().pending_records, 0);
    AfterDamage { read: all, quarantined: log.quarantined().unwrap(), metrics, model }
}

#[test]
fn flipped_bits_cost_the_blocks_they_hit_and_are_reported_by_offset() {
    for seed in 0..10 {
        let AfterDamage { read: all, quarantined, metrics, model } = damaged(|generation| {
            let file = generation.join("db");
            let mut raw = std::fs::read(&file).unwrap();
            let mut random = fastrand::Rng::with_seed(seed);
            let at = random.usize(..raw.len());
            raw[at] ^= 1 << random.u8(..8);
            std::fs::write(&file, raw).unwrap();
        });
        let lost = metrics.wal_lost_records.get();
        assert_eq!(all.len() as u64 + lost, 30_001, "seed {seed}");
        for (offset, reading) in &all {
            assert_eq!(Some(reading), model.committed[usize::try_from(*offset).unwrap()].as_ref());
        }
        assert!(lost < 2_000, "seed {seed} lost {lost}");
        let reported: u64 = quarantined
            .iter()
            .flat_map(|one| &one.lost_ranges)
            .map(super::OffsetRange::records)
            .sum();
        assert_eq!(reported, lost, "seed {seed}");
    }
}

#[test]
fn a_truncated_file_keeps_what_is_left_of_it() {
    let AfterDamage { read: all, quarantined, metrics, .. } = damaged(|generation| {
        let file = std::fs::OpenOptions::new().write(true).open(generation.join("db")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    });
    assert!(all.len() > 10_000, "{}", all.len());
    assert_eq!(all.len() as u64 + metrics.wal_lost_records.get(), 30_001);
    assert_eq!(quarantined.len(), 1);
}

#[test]
fn a_missing_file_is_reported_as_lost_from_its_first_to_its_last_offset() {
    let AfterDamage { read: all, quarantined, metrics, .. } = damaged(|generation| {
        std::fs::remove_file(generation.join("db")).unwrap();
    });
    assert_eq!(all.len(), 1);
    assert_eq!(metrics.wal_lost_records.get(), 30_000);
    let lost = &quarantined[0].lost_ranges;
    assert_eq!((lost[0].from, lost[0].to), (0, 29_999));
}
