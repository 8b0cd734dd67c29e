//! Private servers with the service between them, and the oracle that compares at the end.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::DateTime;
use fastrand::Rng;
use serde_json::Value;

use super::disk;
use super::forgetful::Disk;
use super::gate::Gate;
use super::letters::dead_letters;
use super::proxy::Proxy;
use super::tally::{Found, campaign};
use super::{Key, key};
use crate::disasters::SmallFilesystem;
use crate::harness::{
    Ingestor, Load, Mosquitto, Outgoing, Postgres, Reading, Service, eventually_eq, reading,
    readings, try_within, within,
};

/// Without one more row for so long, none comes any more: longer than the service's longest pause.
pub(super) const RECOVERY: Duration = Duration::from_secs(60);

/// Something that is done to the service or around it while messages come. When it is over, the
/// service has to recover without help.
pub(super) type Fault = fn(&mut Arena, &Load, &mut Rng);

/// What is published, and what has to become of it.
#[derive(Clone, Copy)]
pub(super) struct Traffic {
    /// The message of a number.
    pub(super) message: fn(u64) -> Outgoing,
    /// Waits until what was published is where it belongs, or is not coming any more, and compares.
    pub(super) settle: fn(&mut Arena, Range<u64>) -> Found,
}

/// Readings that bring their time.
const READINGS: Traffic = Traffic {
    message: |number| reading(number).into(),
    settle: |arena, published| arena.drain(&readings(published)),
};

/// A broker, a database, a proxy in front of each, and the service.
pub(super) struct Arena {
    pub(super) postgres: Postgres,
    pub(super) broker: Mosquitto,
    /// Between the service and the broker.
    pub(super) proxy: Proxy,
    /// Between the service and the database.
    pub(super) gate: Gate,
    pub(super) service: Service,
    /// The running one, if there is one.
    pub(super) ingestor: Option<Ingestor>,
    /// What the service's directory is, if not a part of the real disk. Unmounted after it ended.
    small: Option<SmallFilesystem>,
    /// The disk of the machine that the service runs on, if not this one.
    pub(super) disk: Option<Disk>,
    /// The broker has forgotten what it had taken over: only what was acknowledged to it counts.
    pub(super) broker_forgot: bool,
    traffic: Traffic,
    /// What was found wrong so far, where the tables are compared as a whole.
    pub(super) found_before: Found,
    /// The number of the next message.
    next: u64,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self::with(Mosquitto::start(), |service| service)
    }

    /// With this broker, and with settings of the service that are not the usual ones.
    pub(super) fn with(broker: Mosquitto, set_up: impl FnOnce(Service) -> Service) -> Self {
        let postgres = Postgres::start();
        // Not the owner of everything, so that permissions mean something.
        postgres.execute(
            "create role writer login password 'secret'; grant create on schema public to writer",
        );
        let gate = Gate::start(postgres.port);
        let proxy = Proxy::start(broker.port);
        let url = format!("postgres://writer:secret@127.0.0.1:{}/iotdb", gate.port);
        let service = Service::new(&url, proxy.port)
            // The smallest, so that there are many.
            .set("WAL_GENERATION_BYTES", 1 << 20)
            .set("WAL_MIN_FREE_BYTES", 0);
        let service = set_up(service);
        let mut arena = Self {
            postgres,
            broker,
            proxy,
            gate,
            service,
            ingestor: None,
            small: None,
            disk: None,
            broker_forgot: false,
            traffic: READINGS,
            found_before: Found::default(),
            next: 0,
        };
        arena.restart();
        let ingestor = arena.ingestor();
        ingestor.await_ready();
        eventually_eq("the schema is there", &1, || ingestor.metric("ingestor_db_up"));
        arena
    }

    /// With these messages in place of readings that bring their time.
    pub(super) fn carrying(self, traffic: Traffic) -> Self {
        Self { traffic, ..self }
    }

    /// One fault after the other, each as often as the others.
    pub(super) fn campaign(&mut self, case: &str, count: usize, faults: &[(&str, Fault)]) {
        campaign(case, count as u64, |seed| {
            let (name, fault) = faults[usize::try_from(seed).unwrap() % faults.len()];
            let began = Instant::now();
            let found = self.attempt(4_000, seed, fault);
            eprintln!("{seed} {name}: {:.1} s", began.elapsed().as_secs_f64());
            Some(found)
        });
    }

    /// How many messages were published so far.
    pub(super) fn published(&self) -> u64 {
        self.next
    }

    #[track_caller]
    pub(super) fn ingestor(&mut self) -> &mut Ingestor {
        self.ingestor.as_mut().expect("the service does not run")
    }

    /// Starts the service if it does not run.
    pub(super) fn restart(&mut self) {
        if self.ingestor.as_mut().is_none_or(|ingestor| !ingestor.is_running()) {
            self.ingestor = Some(self.service.start());
        }
    }

    pub(super) fn kill(&mut self) {
        self.cut_disk();
        if let Some(mut ingestor) = self.ingestor.take()
            && ingestor.is_running()
        {
            ingestor.kill();
        }
    }

    pub(super) fn cut_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.cut();
        }
    }

    /// Moves the directory of the service, which does not run, to the filesystem that `mount` mounts
    /// there; for this attempt. `None` if we may not.
    pub(super) fn enter_filesystem(
        &mut self,
        mount: impl FnOnce(&Path) -> Option<SmallFilesystem>,
    ) -> Option<&SmallFilesystem> {
        let (dir, aside) = (self.service.wal_dir(), self.service.dir().join("aside"));
        fs::rename(&dir, &aside).unwrap();
        self.small = mount(&dir);
        replace(&aside, &dir);
        self.small.as_ref()
    }

    pub(super) fn filesystem(&self) -> &SmallFilesystem {
        self.small.as_ref().expect("a filesystem of its own")
    }

    fn leave_filesystem(&mut self) {
        if self.small.is_some() {
            self.kill();
            let (dir, aside) = (self.service.wal_dir(), self.service.dir().join("aside"));
            replace(&dir, &aside);
            self.small = None;
            replace(&aside, &dir);
        }
    }

    /// Publishes while `fault` is done, waits until everything is stored, and compares. The books have
    /// to balance.
    #[track_caller]
    pub(super) fn attempt(&mut self, per_second: u32, seed: u64, fault: Fault) -> Found {
        let found = self.find(per_second, seed, fault);
        self.must_balance();
        self.proxy.must_be_in_order();
        self.leave_filesystem();
        found
    }

    /// As [`Self::attempt`], whatever the books say.
    #[track_caller]
    pub(super) fn find(&mut self, per_second: u32, seed: u64, fault: Fault) -> Found {
        self.restart();
        let load = Load::start_of(self.broker.port, per_second, self.next, self.traffic.message);
        // So that it happens to a service at work.
        load.await_more(u64::from(per_second) / 5);
        fault(self, &load, &mut Rng::with_seed(seed));
        let published = load.stop();
        self.next = published.end;
        let began = Instant::now();
        self.restart();
        let found = (self.traffic.settle)(self, published);
        Found { recovery: began.elapsed(), ..found }
    }

    /// Waits for what was published, for as long as more of it comes, and until nothing waits.
    #[track_caller]
    fn drain(&mut self, published: &[Reading]) -> Found {
        let forgot = std::mem::take(&mut self.broker_forgot);
        let acks = |proxy: &Proxy| {
            published.iter().filter(|reading| proxy.has_acked(&reading.payload())).count()
        };
        let mut seen = 0;
        // Behind a broker that has forgotten something, nobody knows how many are to come.
        let patience = if forgot { Duration::from_secs(3) } else { RECOVERY };
        while seen < published.len() {
            let more = || Some(acks(&self.proxy)).filter(|count| *count > seen);
            match try_within(patience, more) {
                Some(count) => seen = count,
                None => break,
            }
        }
        self.proxy.must_be_in_order();
        assert!(forgot || seen == published.len(), "{seen} of {} acknowledged", published.len());
        self.await_flushed();
        self.compare(published)
    }

    /// Waits until everything that was acknowledged is in the table.
    #[track_caller]
    pub(super) fn await_flushed(&mut self) {
        let ingestor = self.ingestor();
        within(RECOVERY, "nothing waits", || {
            (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
        });
    }

    /// Keys of the readings in the dead-letter store.
    fn letters(&self) -> HashSet<Key> {
        let payloads = dead_letters(&self.service.wal_dir().join("dead-letters"));
        let keys = payloads.iter().filter_map(|payload| {
            let json: Value = serde_json::from_str(payload).ok()?;
            let at = DateTime::parse_from_rfc3339(json["timestamp"].as_str()?).ok()?;
            Some((json["device_id"].as_str()?.to_owned(), at.timestamp_micros()))
        });
        keys.collect()
    }

    fn compare(&self, published: &[Reading]) -> Found {
        let rows = self.postgres.readings_since(published[0].micros);
        let stored: HashMap<Key, &Reading> = rows.iter().map(|row| (key(row), row)).collect();
        let letters = self.letters();
        let (mut lost, mut right) = (0, 0);
        for reading in published {
            let key = key(reading);
            match stored.get(&key) {
                Some(row) => right += usize::from(*row == reading),
                None if letters.contains(&key) => {}
                None => lost += usize::from(self.proxy.has_acked(&reading.payload())),
            }
        }
        Found { lost, wrong: rows.len() - right, ..Found::default() }
    }

    /// The books of the running process. What is delivered again just now is in some of them only.
    #[track_caller]
    fn must_balance(&mut self) {
        let ingestor = self.ingestor();
        let recovered = ingestor.await_log_of("log opened")[0]["pending_records"].as_u64().unwrap();
        eventually_eq("the books balance", &0, || {
            let metrics = ingestor.metrics();
            let get = |name: &str| metrics.get(&format!("ingestor_{name}")).cast_signed();
            assert_eq!(get("wal_lost_records_total"), 0);
            // A disk that takes no file may leave it unknown which database has what was confirmed.
            let again = get("resent_records_total");
            let taken = get("valid_messages_total") + recovered.cast_signed() + again;
            let stored = get("db_inserts_total") + get("duplicates_total") + get("merged_total");
            let refused = get("dead_letters_total{stage=\"database\"}");
            taken - stored - refused - get("wal_pending_records")
        });
    }
}

/// Moves what is in `from` into `to`.
fn replace(from: &Path, to: &Path) {
    disk::write(&disk::read(from), to);
    fs::remove_dir_all(from).ok();
}
