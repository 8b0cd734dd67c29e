//! Several ingestors of one broker and one database, of which any may be killed at any moment.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Pid;

use super::key;
use super::tally::{Found, campaign};
use crate::harness::process::children_of;
use crate::harness::{Ingestor, Load, Mosquitto, Postgres, Publisher, Service, readings, within};

const PER_SECOND: u32 = 2_000;
const RECOVERY: Duration = Duration::from_secs(60);

/// Ingestors with a client id and a log each, and what each subscribes to.
struct Fleet {
    postgres: Postgres,
    broker: Mosquitto,
    members: Vec<Member>,
    next: u64,
}

struct Member {
    service: Service,
    ingestor: Option<Ingestor>,
}

impl Fleet {
    fn start(filters: &[String]) -> Self {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        let members = filters.iter().enumerate().map(|(number, filter)| {
            let service = Service::new(&postgres.url(), broker.port)
                .set("MQTT_CLIENT_ID", format!("ingestor-{number}"))
                .set("MQTT_TOPIC", filter);
            // One after the other: who comes first makes the table.
            let mut ingestor = service.start();
            ingestor.await_ready();
            Member { service, ingestor: Some(ingestor) }
        });
        let members = members.collect();
        Self { postgres, broker, members, next: 0 }
    }

    fn running(&self) -> impl Iterator<Item = &Ingestor> {
        self.members.iter().filter_map(|member| member.ingestor.as_ref())
    }

    fn sum(&self, name: &str) -> u64 {
        self.running().map(|ingestor| ingestor.metric(name)).sum()
    }

    /// Kills one, or two one after the other, while messages come, and compares once nothing waits.
    fn attempt(&mut self, seed: u64) -> Found {
        let mut random = Rng::with_seed(seed);
        let load = Load::start_from(self.broker.port, PER_SECOND, self.next);
        for _ in 0..random.u8(1..=2) {
            load.await_more(random.u64(200..2_000));
            let member = random.usize(..self.members.len());
            let member = &mut self.members[member];
            member.ingestor.take().expect("it runs").kill();
            load.await_more(random.u64(1..2_000));
            member.ingestor = Some(member.service.start());
        }
        self.finish(load)
    }

    fn finish(&mut self, load: Load) -> Found {
        let published = load.stop();
        self.next = published.end;
        let began = Instant::now();
        let published = readings(published);
        let mut rows = Vec::new();
        within(RECOVERY, "all is stored and nothing waits", || {
            rows = self.postgres.readings_since(published[0].micros);
            let is_over =
                rows.len() >= published.len() && self.sum("ingestor_wal_pending_records") == 0;
            is_over.then_some(())
        });
        let recovery = began.elapsed();
        let mut expected: HashMap<_, _> =
            published.iter().map(|reading| (key(reading), reading)).collect();
        let right =
            rows.iter().filter(|row| expected.remove(&key(row)).is_some_and(|sent| sent == *row));
        let right = right.count();
        Found { lost: expected.len(), wrong: rows.len() - right, recovery }
    }
}

/// Devices, shared out among so many.
fn shares(count: usize) -> Vec<String> {
    let share = |first: usize| {
        let topics =
            (first..100).step_by(count).map(|device| format!("telemetry/device-{device:03}"));
        topics.collect::<Vec<_>>().join(",")
    };
    (0..count).map(share).collect()
}

#[test]
fn three_with_filters_of_their_own_lose_nothing_whichever_is_killed() {
    let mut fleet = Fleet::start(&shares(3));
    campaign("three ingestors, filters of their own", 3, |seed| Some(fleet.attempt(seed)));
}

#[test]
fn two_that_both_take_everything_make_one_row_of_each_reading_whichever_is_killed() {
    let mut fleet = Fleet::start(&["telemetry/#".to_owned(), "telemetry/#".to_owned()]);
    campaign("two ingestors, both take everything", 3, |seed| Some(fleet.attempt(seed)));
    let (rows, duplicates) = (fleet.next, fleet.sum("ingestor_duplicates_total"));
    eprintln!("{duplicates} duplicates since the last starts, of {rows} rows in all");
    assert!(duplicates > 0, "one of them took nothing");
}

/// What one and what two that both take everything cost, for each reading: microseconds of the processor that
/// the ingestors and PostgreSQL take, and bytes of PostgreSQL's own log.
#[test]
#[ignore = "a measurement: scripts/torture.sh --cases ingestors"]
fn what_it_costs_that_two_take_everything() {
    const READINGS: u32 = 60_000;
    let measure = |filters: &[String]| {
        let fleet = Fleet::start(filters);
        let lsn = || fleet.postgres.value("select (pg_current_wal_lsn() - '0/0')::bigint");
        let cpu = || {
            [
                fleet.running().map(|ingestor| cpu(ingestor.pid())).sum(),
                cpu_of_tree(fleet.postgres.pid()),
            ]
        };
        let (written, [ours, database]) = (lsn(), cpu());
        Publisher::connect(fleet.broker.port).publish_readings(0..READINGS.into());
        within(RECOVERY, "all is stored and nothing waits", || {
            let stored =
                fleet.sum("ingestor_db_inserts_total") + fleet.sum("ingestor_duplicates_total");
            (stored == u64::from(READINGS) * filters.len() as u64).then_some(())
        });
        let [ours, database] =
            [cpu()[0] - ours, cpu()[1] - database].map(|time| time * 1e6 / f64::from(READINGS));
        (ours, database, (lsn() - written).cast_unsigned() / u64::from(READINGS))
    };
    let all = "telemetry/#".to_owned();
    for filters in [&[all.clone()][..], &[all.clone(), all]] {
        let (ours, database, written) = measure(filters);
        eprintln!(
            "{} of them: {ours:.1} us of the ingestors, {database:.1} us of PostgreSQL, {written} B of its log a reading",
            filters.len()
        );
    }
}

/// Seconds of the processor, those of children that have ended included.
fn cpu(pid: Pid) -> f64 {
    let stat =
        fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u32 = behind_name
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|ticks| ticks.parse::<u32>().ok())
        .sum();
    f64::from(ticks) / 100.0
}

fn cpu_of_tree(pid: Pid) -> f64 {
    cpu(pid) + children_of(pid).into_iter().map(cpu).sum::<f64>()
}
