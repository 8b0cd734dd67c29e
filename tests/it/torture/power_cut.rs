//! A power cut, at any moment.
//!
//! The real binary runs below strace, which records what it does to its directory and what it sends
//! to the broker, in one order. Disks as a power cut could leave them are built from that, the binary
//! is started on each, and what it recovers is compared with what it had acknowledged before the cut.
//!
//! The database is part of the state: a reading that was in the table before the cut is safe.
//! PostgreSQL says when each row was committed, strace says when the cut was, by the same clock.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use sqlx::Row;

use super::disk::{self, Cut, Image, Recording, Style};
use super::letters::dead_letters;
use super::messages::{Message, Source};
use super::tally::{Found, campaign};
use super::trace::{self, Call, Moment, NEVER, Trace};
use super::{Key, key};
use crate::harness::scripted::Link;
use crate::harness::wire::Packet;
use crate::harness::{
    PATIENCE, Postgres, Reading, ScriptedBroker, Service, eventually, eventually_eq,
};

/// So many cuts are made of one recording.
pub(super) const CUTS_A_RECORDING: u64 = 20;

const CALLS: &str = "trace=openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,\
    symlink,symlinkat,unlink,unlinkat,rmdir,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,\
    fallocate,copy_file_range,fsync,fdatasync,sendto,sendmsg";

/// A process that was recorded from its start to its end.
pub(super) struct Run {
    trace: Trace,
    /// Its directory, as it was called.
    dir: PathBuf,
    /// What that held when the process started.
    base: Image,
    pub(super) messages: Vec<Message>,
    /// When each PUBACK began to leave, by the index of its message.
    pub(super) acks: HashMap<usize, Moment>,
    /// When each row was committed, in microseconds since the Unix epoch.
    rows: HashMap<Key, i64>,
}

/// What the service owes, and what it may show.
#[derive(Clone, Default)]
struct Books {
    /// Acknowledged, and not in the table for certain.
    readings: HashMap<Key, Reading>,
    /// Acknowledged, and to be found in the dead-letter store.
    rejected: HashSet<String>,
    /// All that was ever sent.
    sent: HashMap<Key, Reading>,
}

impl Books {
    /// As they are when the power is cut at `at`.
    fn at(&self, at: Moment, run: &Run) -> Self {
        let mut books = self.clone();
        for (index, message) in run.messages.iter().enumerate() {
            let sent = message.readings.iter().map(|reading| (key(reading), reading.clone()));
            if run.acks.get(&index).is_some_and(|began| *began < at) {
                books.readings.extend(sent.clone());
                books.rejected.extend(message.rejected.iter().cloned());
            }
            books.sent.extend(sent);
        }
        let clock = run.clock(at);
        let is_safe = |key: &Key| run.rows.get(key).is_some_and(|committed| *committed <= clock);
        books.readings.retain(|key, _| !is_safe(key));
        books
    }
}

/// Whether the database is there while the process is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Database {
    Down,
    /// Now and then a lock keeps rows from being stored, so that a backlog grows and shrinks.
    Halting,
}

/// What all recordings of a test share.
pub(super) struct Laboratory {
    pub(super) postgres: Postgres,
    /// Which is started on the images.
    pub(super) patient: Service,
    mappings: &'static str,
    /// Where rows lie, as SQL lists them.
    tables: &'static str,
}

impl Laboratory {
    /// With these mappings into these tables.
    pub(super) fn new(mappings: &'static str, tables: &'static str) -> Self {
        let mut postgres = Postgres::start();
        postgres.execute("alter system set track_commit_timestamp = on");
        postgres.stop();
        postgres.launch();
        // There is no broker: whatever it stores was on the disk.
        let patient = with_log_below(Service::new(&postgres.url(), 1))
            .set("RUST_LOG", "warn,iot_ingestor=info");
        fs::write(patient.dir().join("Rocket.toml"), mappings).unwrap();
        let laboratory = Self { postgres, patient, mappings, tables };
        let ingestor = laboratory.patient.start();
        eventually_eq("the schema is there", &1, || ingestor.metric("ingestor_db_up"));
        ingestor.kill();
        laboratory
    }

    /// Records a process that is started on `base`, given messages of `source`, and killed.
    pub(super) fn record(
        &self,
        base: &Image,
        database: Database,
        generation_bytes: u64,
        source: &mut Source,
    ) -> Run {
        self.empty_table();
        let broker = ScriptedBroker::start();
        let url = match database {
            Database::Down => "postgres://iot:x@127.0.0.1:1/iotdb".to_owned(),
            Database::Halting => self.postgres.url(),
        };
        let service = with_log_below(Service::new(&url, broker.port))
            .set("RUST_LOG", "warn,iot_ingestor=info")
            .set("WAL_GENERATION_BYTES", generation_bytes);
        fs::write(service.dir().join("Rocket.toml"), self.mappings).unwrap();
        let dir = service.wal_dir();
        disk::write(base, &dir);
        let ingestor = service.start_traced(&[
            "--seccomp-bpf",
            "-yy",
            "-xx",
            "-s",
            "99999999",
            "-e",
            "signal=none",
            "-e",
            CALLS,
        ]);
        let mut link = broker.accept(false);
        let messages = self.drive(&mut link, database, source);
        ingestor.kill();
        let trace = trace::read(&service.strace_log());
        let acks = acks(&trace, broker.port);
        assert!(acks.len() * 2 > messages.len(), "hardly any PUBACK was recorded: {}", acks.len());
        self.await_clients_gone();
        let run = Run { trace, dir, base: base.clone(), messages, acks, rows: self.commit_times() };
        run.must_be_complete();
        run
    }

    /// Sends messages in bursts, for some seconds.
    fn drive(&self, link: &mut Link, database: Database, source: &mut Source) -> Vec<Message> {
        const MESSAGES: usize = 5_000;
        const READINGS: u64 = 60_000;
        let deadline = Instant::now() + Duration::from_secs(4);
        let end = source.next + READINGS;
        let mut messages = Vec::new();
        let mut waiting = 0;
        let mut lock = None;
        while messages.len() < MESSAGES && source.next < end && Instant::now() < deadline {
            for message in source.burst() {
                let id = u16::try_from(messages.len() + 1).unwrap();
                assert!(link.deliver(id, &message.topic, message.payload.as_str()));
                messages.push(message);
                waiting += 1;
            }
            let left = if source.random.bool() { 0 } else { source.random.usize(..=waiting) };
            while waiting > left {
                assert!(link.ack(PATIENCE).is_some(), "no PUBACK");
                waiting -= 1;
            }
            if database == Database::Halting && source.random.u8(..20) == 0 {
                lock = match lock {
                    None => {
                        let mut session = self.postgres.session();
                        session.execute("begin; lock table telemetry in access exclusive mode");
                        Some(session)
                    }
                    Some(_) => None,
                };
            }
        }
        // On a slow disk most may still wait.
        while waiting * 2 >= messages.len() {
            assert!(link.ack(PATIENCE).is_some(), "no PUBACK");
            waiting -= 1;
        }
        messages
    }

    fn commit_times(&self) -> HashMap<Key, i64> {
        let sql = "select device_id, (extract(epoch from ts) * 1000000)::bigint, \
                   (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from telemetry";
        let rows = self.postgres.session().rows(sql);
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
    }

    fn await_clients_gone(&self) {
        eventually_eq("no statement is under way", &0, || {
            self.postgres.value(
                "select count(*) from pg_stat_activity \
                 where backend_type = 'client backend' and pid <> pg_backend_pid()",
            )
        });
    }

    pub(super) fn empty_table(&self) {
        self.await_clients_gone();
        self.postgres.execute(&format!("truncate {}", self.tables));
    }

    /// Starts the service on `image` and compares what it stores with what it owes. Also returns how
    /// many readings the service itself reports as lost.
    fn examine(&self, image: &Image, books: &Books) -> (Found, u64) {
        self.empty_table();
        let dir = self.patient.wal_dir();
        disk::write(image, &dir);
        let began = Instant::now();
        let mut ingestor = self.patient.start();
        eventually("nothing waits", || {
            ingestor.must_run();
            (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
        });
        let recovery = began.elapsed();
        let metrics = ingestor.metrics();
        let reported = metrics.get("ingestor_wal_lost_records_total");
        let log = ingestor.log_text();
        ingestor.kill();
        let rows = self.postgres.readings();
        let stored: HashMap<Key, &Reading> = rows.iter().map(|row| (key(row), row)).collect();
        let missing = books.readings.keys().filter(|key| !stored.contains_key(key)).count();
        let letters = dead_letters(&dir.join("log/dead-letters"));
        let unkept = books.rejected.iter().filter(|payload| !letters.contains(*payload)).count();
        let wrong = rows.iter().filter(|row| books.sent.get(&key(row)) != Some(row)).count();
        let found = Found { lost: missing + unkept, wrong, recovery };
        if reported > 0 || found.lost > 0 || found.wrong > 0 {
            eprintln!(
                "{missing} readings and {unkept} rejected messages are missing, {reported} reported as lost\n{log}"
            );
        }
        (found, reported)
    }
}

impl Run {
    pub(super) fn recording(&self, ignored: &dyn Fn(&Path) -> bool) -> Recording {
        Recording::of(&self.trace, &self.dir, &self.base, ignored)
    }

    /// With everything kept, the model of the disk has to hold what the disk holds.
    fn must_be_complete(&self) {
        let is_cut_off = |call: &Call| call.ended == NEVER && call.may_change(&self.dir);
        if self.trace.calls.iter().any(is_cut_off) {
            eprintln!(
                "the model was not compared: nobody knows what became of the call it was killed in"
            );
            return;
        }
        let at = self.trace.clock.len();
        let (contents, names) = (Style::Kept, Style::Kept);
        let cut = Cut { at, contents, names, unit: 4_096, keeps_sizes: true, seed: 0 };
        let (model, real) = (self.recording(&|_| false).after(&cut), disk::read(&self.dir));
        assert_eq!(model.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
        for (path, entry) in &real {
            assert!(model[path] == *entry, "the model of the disk differs in {}", path.display());
        }
    }

    /// What the time was then, in microseconds since the Unix epoch.
    pub(super) fn clock(&self, at: Moment) -> i64 {
        self.trace.clock[at.min(self.trace.clock.len() - 1)]
    }

    /// Some moment, preferably one at which something is at stake.
    pub(super) fn cut(&self, recording: &Recording, seed: u64) -> Cut {
        let mut random = Rng::with_seed(seed);
        let moments: Vec<Moment> = match random.u8(..4) {
            0 | 1 => self.acks.values().map(|began| began + 1).collect(),
            2 => recording.name_changes(),
            _ => recording.writes(),
        };
        Cut {
            at: moments[random.usize(..moments.len())] + random.usize(..3),
            contents: random.choice(Style::ALL).unwrap(),
            names: random.choice(Style::ALL).unwrap(),
            unit: *random.choice(&[512, 4_096]).unwrap(),
            keeps_sizes: random.bool(),
            seed,
        }
    }
}

fn with_log_below(service: Service) -> Service {
    // So that the making of the directory itself is recorded too.
    let log = service.wal_dir().join("log");
    service.set("WAL_DIR", log.display())
}

/// When each PUBACK began to leave.
fn acks(trace: &Trace, broker_port: u16) -> HashMap<usize, Moment> {
    let to_broker = format!("->127.0.0.1:{broker_port}]>");
    let mut acks = HashMap::new();
    let mut stream = Vec::new();
    for call in &trace.calls {
        if !call.arg(0).ends_with(&to_broker) {
            continue;
        }
        let Some(bytes) = call.sent() else { panic!("{} sends in a way unknown here", call.name) };
        stream.extend(bytes);
        let mut at = 0;
        while let Some((packet, length)) = Packet::decode(&stream[at..]) {
            if let Packet::PubAck { id } = packet {
                acks.insert(usize::from(id) - 1, call.began);
            }
            at += length;
        }
        stream.drain(..at);
    }
    acks
}

/// Goes from cut to cut; every so often with a new recording, which begins on an empty disk or on
/// one that an earlier cut has left.
struct Series<'i> {
    laboratory: Laboratory,
    /// Files whose syncs count as not done.
    ignored: &'i dyn Fn(&Path) -> bool,
    current: Option<(Run, Recording, Books)>,
    cuts: u64,
    source: Source,
}

impl<'i> Series<'i> {
    fn new(ignored: &'i dyn Fn(&Path) -> bool) -> Self {
        let source = Source::default();
        Self {
            laboratory: Laboratory::new("", "telemetry"),
            ignored,
            current: None,
            cuts: 0,
            source,
        }
    }

    /// What one cut has cost, and how many readings the service reports as lost.
    fn next(&mut self, seed: u64) -> (Found, u64) {
        if self.cuts.is_multiple_of(CUTS_A_RECORDING) {
            self.record(seed);
        }
        self.cuts += 1;
        let (run, recording, books) = self.current.as_ref().unwrap();
        let cut = run.cut(recording, seed);
        let image = recording.after(&cut);
        let (found, reported) = self.laboratory.examine(&image, &books.at(cut.at, run));
        if found.lost + found.wrong > 0 {
            eprintln!("{cut:?}");
        }
        (found, reported)
    }

    fn record(&mut self, seed: u64) {
        let mut random = Rng::with_seed(seed);
        let before = self.current.take().filter(|_| random.bool());
        let (base, books) = before.map_or_else(Default::default, |(run, recording, books)| {
            let cut = run.cut(&recording, !seed);
            (recording.after(&cut), books.at(cut.at, &run))
        });
        let database =
            *random.choice(&[Database::Down, Database::Halting, Database::Halting]).unwrap();
        let generation_bytes = *random.choice(&[1 << 20, 64 << 20]).unwrap();
        self.source.random = random;
        let source = &mut self.source;
        let run = self.laboratory.record(&base, database, generation_bytes, source);
        let recording = run.recording(self.ignored);
        eprintln!(
            "recorded: {database:?}, generations of {generation_bytes}, on {} files; {} messages, {} PUBACKs, {} rows, {} names changed, {} writes, {} moments",
            base.len(),
            run.messages.len(),
            run.acks.len(),
            run.rows.len(),
            recording.name_changes().len(),
            recording.writes().len(),
            run.trace.clock.len()
        );
        self.current = Some((run, recording, books));
    }
}

#[test]
fn a_power_cut_at_any_moment_takes_nothing_that_was_acknowledged() {
    let mut series = Series::new(&|_| false);
    campaign("power-cut", 20, |seed| {
        let (found, reported) = series.next(seed);
        assert!(
            found.lost > 0 || reported == 0,
            "{reported} readings were reported as lost, and were not"
        );
        Some(found)
    });
}

/// The negative control: it is the sync of the log that the promise rests on. What the service then
/// reports as lost may be in the table: that it was flushed is forgotten as well.
#[test]
fn without_the_syncs_of_the_log_the_same_power_cuts_lose_readings() {
    let is_log = |path: &Path| path.ends_with("db");
    let mut series = Series::new(&is_log);
    let lost = (0..20).filter(|seed| series.next(*seed).0.lost > 0).count();
    assert!(lost > 5, "only {lost} of 20 cuts have lost anything");
}
