//! A log that is damaged in every way that a disk, a downgrade or a person can think of.
//!
//! One publisher fills each log, so that the number of a reading is its offset.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disasters::await_lost;
use crate::harness::backlog::{self, generations};
use crate::harness::postgres::Fsync;
use crate::harness::scratch::copy;
use crate::harness::service::bytes_below;
use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, array, eventually_eq, reading, readings,
};

const TOKEN: &str = "a token of some length";

/// Several generations that wait, to be damaged again and again.
struct Backlog {
    postgres: Postgres,
    broker: Mosquitto,
    service: Service,
    pristine: PathBuf,
    /// How many wait in it.
    readings: u64,
}

impl Backlog {
    fn make() -> Self {
        let mut postgres = Postgres::prepare(Fsync::Off);
        let broker = Mosquitto::start();
        let service = Service::new(&postgres.url(), broker.port)
            .set("WAL_GENERATION_BYTES", 1 << 20)
            // What is damaged is set aside as soon as the rest of it is stored.
            .set("WAL_RETAIN_SECS", 0)
            .set("ADMIN_TOKEN", TOKEN);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let mut devices = Publisher::connect(broker.port);
        let readings = backlog::fill(&service, &mut ingestor, &mut devices, 5);
        ingestor.stop();
        postgres.launch();
        let pristine = service.dir().join("pristine");
        copy(&service.wal_dir(), &pristine);
        Self { postgres, broker, service, pristine, readings }
    }

    /// As it was, with an empty table.
    fn restore(&self) {
        if self.postgres.count() > 0 {
            self.postgres.execute("truncate telemetry");
        }
        fs::remove_dir_all(self.service.wal_dir()).unwrap();
        copy(&self.pristine, &self.service.wal_dir());
    }

    /// First offset and directory of each.
    fn generations(&self) -> Vec<(u64, PathBuf)> {
        generations(&self.service.wal_dir())
    }

    /// Starts the service and waits until nothing waits any more.
    fn drain(&self) -> Ingestor {
        let mut ingestor = self.service.start();
        eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
        ingestor.must_run();
        ingestor
    }

    /// Drains a log in which these offsets are gone: all others are stored, these are reported, and
    /// another start is as good as the first.
    #[track_caller]
    fn must_lose_only(&self, lost: &BTreeSet<u64>) {
        let ingestor = self.drain();
        assert_eq!(&await_lost(&ingestor, &self.service.wal_dir()), lost);
        let kept: Vec<_> = (0..self.readings).filter(|n| !lost.contains(n)).map(reading).collect();
        self.postgres.await_exactly(&kept);
        ingestor.stop();
        let ingestor = self.drain();
        assert_eq!(ingestor.metric("ingestor_wal_lost_records_total"), 0);
        let wal = admin_wal(&ingestor);
        assert!(wal["next_offset"].as_u64() >= Some(self.readings), "{wal}");
        assert_eq!(reported_lost(&wal), *lost);
        ingestor.stop();
    }
}

#[track_caller]
fn admin_wal(ingestor: &Ingestor) -> Value {
    ingestor.admin("GET", "/admin/wal", TOKEN).json()
}

fn reported_lost(wal: &Value) -> BTreeSet<u64> {
    let ranges = wal["quarantined"].as_array().unwrap().iter();
    ranges
        .flat_map(|one| one["lost_ranges"].as_array().unwrap())
        .flat_map(|range| range["from"].as_u64().unwrap()..=range["to"].as_u64().unwrap())
        .collect()
}

/// A version of blocks that only a newer program knows.
pub(crate) const NEWER: u8 = 200;

/// Turns blocks of a generation into ones of version [`NEWER`], as a newer program writes them; returns
/// their offsets. `is_chosen` is asked for each block, by its first offset.
pub(crate) fn make_newer(generation: &Path, is_chosen: impl Fn(u64) -> bool) -> BTreeSet<u64> {
    const MAGIC: &[u8] = b"\xB7WAL";
    let path = generation.join("db");
    let mut file = fs::read(&path).unwrap();
    let mut changed = BTreeSet::new();
    let mut at = 0;
    while let Some(hit) = file[at..].windows(4).position(|window| window == MAGIC) {
        let frame = &mut file[at + hit..];
        at += hit + 4;
        if frame.len() < 52 {
            break;
        }
        let number = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().unwrap());
        let body = usize::from(u16::from_le_bytes([frame[6], frame[7]]));
        let (first, count) = (number(8), number(40) & 0xffff_ffff);
        // sled may have left the beginning of another copy at the end of the file.
        let is_whole = frame.len() >= 52 + body;
        if frame[4..6] != [2, 0] || !is_whole || !is_chosen(first) {
            continue;
        }
        frame[4] = NEWER;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&frame[..48]);
        hasher.update(&frame[52..52 + body]);
        frame[48..52].copy_from_slice(&hasher.finalize().to_le_bytes());
        changed.extend(first..first + count);
    }
    fs::write(&path, file).unwrap();
    changed
}

#[test]
fn blocks_of_an_unknown_version_are_set_aside_and_called_by_their_name() {
    let backlog = Backlog::make();
    let (first, generation) = backlog.generations().swap_remove(1);
    let newer = make_newer(&generation, |block| block != first);
    assert!(newer.len() > 100, "{} records", newer.len());
    let ingestor = backlog.drain();
    let reports = ingestor.await_log_of("a WAL generation was written by a newer version");
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0]["block_version"], NEWER);
    for damage in ["a WAL generation is damaged", "offsets lost to damage"] {
        assert!(ingestor.log_of(damage).is_empty());
    }
    assert!(!ingestor.await_log_of("offsets cannot be read by this version").is_empty());
    ingestor.stop();
    backlog.restore();
    assert_eq!(make_newer(&generation, |block| block != first), newer);
    backlog.must_lose_only(&newer);
    let id = format!("{first:020}");
    let set_aside = backlog.service.wal_dir().join("quarantine").join(id);
    let report: Value =
        serde_json::from_slice(&fs::read(set_aside.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["unknown_version"], NEWER);
    assert!(set_aside.join("db").metadata().unwrap().len() >= 1 << 20);
}

#[test]
fn a_log_of_a_newer_program_is_kept_whole_and_the_older_one_goes_on_behind_it() {
    let backlog = Backlog::make();
    let mut all = BTreeSet::new();
    let mut count = 0;
    for (_, generation) in backlog.generations() {
        let newer = make_newer(&generation, |_| true);
        count += usize::from(!newer.is_empty());
        all.extend(newer);
    }
    assert_eq!(all, (0..backlog.readings).collect());
    // Nor does it matter that nobody knows how far the log had come.
    fs::remove_file(backlog.service.wal_dir().join("positions")).unwrap();
    let mut ingestor = backlog.drain();
    ingestor.await_ready();
    Publisher::connect(backlog.broker.port).publish_one("telemetry/x", array(&readings(0..10)));
    backlog.postgres.await_exactly(&readings(0..10));
    ingestor.await_metric("ingestor_db_inserts_total", 10);
    let wal = admin_wal(&ingestor);
    assert_eq!(reported_lost(&wal), all);
    assert!(wal["next_offset"].as_u64() >= Some(backlog.readings + 10), "{wal}");
    ingestor.stop();
    let kept = fs::read_dir(backlog.service.wal_dir().join("quarantine")).unwrap();
    let kept = kept.filter(|entry| entry.as_ref().unwrap().path().join("db").exists());
    assert_eq!(kept.count(), count, "a generation has been deleted");
}

#[test]
fn quarantine_makes_room_for_what_is_not_stored_yet_but_not_at_the_cost_of_a_newer_programs_log() {
    let backlog = Backlog::make();
    let all = backlog.generations();
    let newer = make_newer(&all[0].1, |_| true);
    let db = |generation: &Path| {
        let id = generation.file_name().unwrap();
        backlog.service.wal_dir().join("quarantine").join(id).join("db")
    };
    // Nobody has a reason to delete anything while there is room.
    for (_, damaged) in &all[1..3] {
        let mut file = fs::read(damaged.join("db")).unwrap();
        let length = file.len();
        file[length / 4..length / 4 * 3].fill(0xff);
        fs::write(damaged.join("db"), file).unwrap();
    }
    let ingestor = backlog.drain();
    let lost = await_lost(&ingestor, &backlog.service.wal_dir());
    assert!(lost.is_superset(&newer));
    let before = admin_wal(&ingestor);
    assert!(all[..3].iter().all(|(_, generation)| db(generation).exists()));
    ingestor.stop();
    // With so little of it that one damaged generation has to go.
    let padding = vec![0; 3 << 20];
    fs::write(db(&all[0].1).with_file_name("padding"), &padding).unwrap();
    let set_aside = bytes_below(&backlog.service.wal_dir().join("quarantine"));
    let tight = backlog.service.clone().set("WAL_MAX_BYTES", set_aside);
    let mut ingestor = tight.start();
    ingestor.await_ready();
    assert_eq!(ingestor.await_log_of("no room is left").len(), 1);
    assert_eq!([0, 1, 2].map(|n| db(&all[n].1).exists()), [true, false, true]);
    let after = admin_wal(&ingestor);
    assert_eq!(after["full"], false);
    assert_eq!(after["quarantined"], before["quarantined"], "what was lost is still reported");
    // And with less than the log takes that nobody here can read.
    ingestor.stop();
    let ingestor = tight.set("WAL_MAX_BYTES", 4 << 20).start();
    assert_eq!([0, 1, 2].map(|n| db(&all[n].1).exists()), [true, false, false]);
    eventually_eq("it is full", &"full".into(), || ingestor.health()["wal"].clone());
    ingestor.stop();
}

#[test]
fn generations_that_are_gone_are_reported_and_cost_none_of_the_others() {
    let backlog = Backlog::make();
    let all = backlog.generations();
    let last = all.len() - 1;
    let offsets = |n: usize| all[n].0..all.get(n + 1).map_or(backlog.readings, |(first, _)| *first);
    for missing in [vec![0], vec![1], vec![0, 1, 3], vec![last], (0..=last).collect()] {
        eprintln!("without {missing:?} of {}", all.len());
        backlog.restore();
        for n in &missing {
            fs::remove_dir_all(&all[*n].1).unwrap();
        }
        backlog.must_lose_only(&missing.into_iter().flat_map(offsets).collect());
    }
}

#[test]
fn the_newest_and_the_oldest_generation_may_be_damaged_at_once() {
    let backlog = Backlog::make();
    let mut all = backlog.generations();
    // One that was begun and holds nothing yet does not count.
    all.retain(|(first, _)| *first < backlog.readings);
    let oldest = all[0].0..all[1].0;
    let newest = all[all.len() - 1].0..backlog.readings;
    for ((_, generation), intact) in [(&all[0], 4), (&all[all.len() - 1], usize::MAX)] {
        fs::write(generation.join("snap.0000000000000001.generating"), b"half").unwrap();
        let mut file = fs::read(generation.join("db")).unwrap();
        let length = file.len();
        file[length / intact..].fill(0);
        fs::write(generation.join("db"), file).unwrap();
    }
    let ingestor = backlog.drain();
    let lost = await_lost(&ingestor, &backlog.service.wal_dir());
    assert!(lost.iter().any(|offset| oldest.contains(offset)));
    assert!(lost.iter().any(|offset| newest.contains(offset)));
    assert!(lost.iter().all(|offset| oldest.contains(offset) || newest.contains(offset)));
    let kept: Vec<_> = (0..backlog.readings).filter(|n| !lost.contains(n)).map(reading).collect();
    backlog.postgres.await_exactly(&kept);
    ingestor.stop();
}

#[test]
fn neither_garbage_in_the_directory_nor_a_corrupt_note_of_positions_costs_anything() {
    let backlog = Backlog::make();
    for note in [vec![], b"short".to_vec(), vec![0xff; 20], vec![0; 20], vec![7; 4_096]] {
        backlog.restore();
        let wal_dir = backlog.service.wal_dir();
        fs::write(wal_dir.join("positions"), &note).unwrap();
        fs::write(wal_dir.join("core"), [0; 5_000]).unwrap();
        // Where the next generation goes, and what only looks like one.
        let next = wal_dir.join(format!("{:020}", backlog.readings));
        fs::remove_dir_all(&next).ok();
        fs::write(next, b"garbage").unwrap();
        fs::create_dir(wal_dir.join("+0000000000000000007")).unwrap();
        fs::create_dir(wal_dir.join("99999999999999999999")).unwrap();
        fs::create_dir(wal_dir.join("lost+found")).unwrap();
        fs::write(wal_dir.join("quarantine/notes.txt"), b"by hand").unwrap();
        fs::create_dir(wal_dir.join("quarantine/by hand")).unwrap();
        fs::write(wal_dir.join("dead-letters/README"), b"by hand").unwrap();
        for (_, generation) in backlog.generations() {
            if generation.is_dir() {
                fs::write(generation.join("snap.00000000.generating"), b"half").unwrap();
                fs::write(generation.join("snap.0000000000000002"), b"garbage").unwrap();
            }
        }
        backlog.must_lose_only(&BTreeSet::new());
        assert!(wal_dir.join("core").exists() && wal_dir.join("quarantine/by hand").exists());
    }
}

#[test]
fn a_damaged_line_of_the_dead_letter_store_takes_no_other_with_it() {
    const LETTERS: u64 = 40;
    let broker = Mosquitto::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port)
        .set("DEAD_LETTER_MAX_BYTES", 1 << 20)
        .set("ADMIN_TOKEN", TOKEN);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    (0..LETTERS)
        .for_each(|number| devices.publish("telemetry/bad", format!("bad {number:010000}")));
    devices.finish();
    ingestor.await_metric("ingestor_dead_letters", LETTERS);
    ingestor.stop();
    let store = service.wal_dir().join("dead-letters");
    let mut segments: Vec<_> = fs::read_dir(&store).unwrap().map(|e| e.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() >= 3, "{} segments", segments.len());
    // A letter in the first, the last line of the second, and all of the third.
    let mut first = fs::read(&segments[0]).unwrap();
    first[150] ^= 1;
    fs::write(&segments[0], first).unwrap();
    let second = fs::read(&segments[1]).unwrap();
    fs::write(&segments[1], &second[..second.len() - 3]).unwrap();
    let third = fs::read(&segments[2]).unwrap();
    let letters_in_third = third.split(|byte| *byte == b'\n').count() as u64 - 1;
    fs::write(&segments[2], vec![0xff; third.len()]).unwrap();

    let mut ingestor = service.start();
    ingestor.await_ready();
    assert_eq!(ingestor.metric("ingestor_dead_letters"), LETTERS - 2 - letters_in_third);
    assert_eq!(ingestor.await_log_of("a dead letter is damaged").len(), 1);
    eventually_eq("both are told", &2, || {
        ingestor.log_of("a dead-letter segment ends in the middle of a line").len()
    });
    Publisher::connect(broker.port).publish_one("telemetry/bad", "one more");
    ingestor.await_metric("ingestor_dead_letters", LETTERS - 1 - letters_in_third);
    let page = ingestor.admin("GET", "/admin/dead-letters?limit=1000", TOKEN).json();
    let payloads = page["dead_letters"].as_array().unwrap().iter();
    let payloads: Vec<_> = payloads.map(|letter| letter["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads.len() as u64, LETTERS - 1 - letters_in_third);
    assert_eq!(payloads.last(), Some(&"one more"));
    ingestor.stop();
}
