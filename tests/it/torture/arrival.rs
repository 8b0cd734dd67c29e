//! Messages without a time of their own: each is one row, or as many as it has elements, whatever breaks
//! between broker, log and table.
//!
//! Most of them say the same, so that nothing but their receipts tells them apart, and it is their number
//! that has to be right. Others hold a number that no other has, so that one that is lost does not make
//! up for another that is there twice. The broker keeps some, and sends them again with each subscription.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::time::Instant;

use fastrand::Rng;
use rustix::process::Signal;
use sqlx::Row;

use super::arena::{Arena, Fault, RECOVERY, Traffic};
use super::disk::{self, Cut, Image, Recording};
use super::messages::Source;
use super::power_cut::{CUTS_A_RECORDING, Database, Laboratory, Run};
use super::tally::{Found, campaign};
use super::{broker, kills};
use crate::arrival::MAPPINGS;
use crate::harness::{
    Load, Mosquitto, Outgoing, Postgres, Publisher, ScriptedBroker, eventually_eq, within,
};

/// How many kinds of messages there are: that of a number is what remains of it.
const KINDS: u64 = 8;

/// Those with a number that no other has, as the humidity of the device `sequence`.
const UNIQUE: [u64; 2] = [0, 4];

/// The others: where their rows lie, which kinds they are, and how many rows each makes.
const ALIKE: [(&str, &[u64], usize); 4] = [
    ("telemetry where device_id = 'constant'", &[1, 2, 3], 1),
    ("list where device_id = 'constant'", &[5], 2),
    ("telemetry where device_id like 'kept-%'", &[6], 1),
    // With a time of its own, so that it is the same row whenever it comes.
    ("list where device_id like 'kept-%'", &[7], 1),
];

/// So many topics have a message that the broker keeps and that is no row when it comes again.
const KEPT: u64 = 50;

/// Unix seconds of the first message that has a time.
const EPOCH: u64 = 1_759_667_696;

/// What the session at the broker has subscribed to, as the service remembers it.
const FILTERS: &str = "mqtt-filters.json";

const TRAFFIC: Traffic = Traffic { message, settle };

const FAULTS: [(&str, Fault); 7] = [
    ("SIGKILL at a point", kills::at_a_point),
    ("SIGKILL at random moments", kills::at_random_moments),
    ("SIGKILL between commit and ack", kills::between_commit_and_ack),
    ("restart of the broker", broker_restarted),
    ("connections cut mid-batch", broker::cut),
    ("takeover of the client id", broker::taken_over),
    ("SIGKILL and a storm of retained messages", storm),
];

fn message(number: u64) -> Outgoing {
    let kept = number / KINDS % KEPT;
    let (topic, payload) = match number % KINDS {
        0 | 4 => ("value/sequence/humidity".to_owned(), number.to_string()),
        1..=3 => ("value/constant/temperature".to_owned(), "21.5".to_owned()),
        5 => ("list/constant".to_owned(), r#"[{"a":1},{"a":1}]"#.to_owned()),
        6 => (format!("value/kept-{kept}/temperature"), "21.5".to_owned()),
        _ => (format!("list/kept-{kept}"), format!(r#"[{{"a":1,"t":{}}}]"#, EPOCH + number)),
    };
    Outgoing { topic, payload: payload.into(), retain: number % KINDS >= 6 }
}

/// Not while a message is under way to the broker: its publisher would send it again, as another one.
fn broker_restarted(arena: &mut Arena, load: &Load, random: &mut Rng) {
    // So that it writes down what it has sent and what it has not.
    arena.ingestor().signal(Signal::STOP);
    load.await_more(random.u64(1..4_000));
    load.hold(|| {
        arena.broker.stop();
        arena.broker.launch();
    });
    if random.bool() {
        arena.kill();
        arena.restart();
    } else {
        arena.ingestor().signal(Signal::CONT);
    }
    load.await_more(random.u64(1..2_000));
}

/// A process that does not know what was subscribed to does so again, and gets all that is kept.
fn storm(arena: &mut Arena, load: &Load, random: &mut Rng) {
    for _ in 0..random.u8(1..4) {
        load.await_more(random.u64(1..1_000));
        arena.kill();
        fs::remove_file(arena.service.wal_dir().join(FILTERS)).unwrap();
        arena.restart();
        let ignored = r#"ingestor_mapping_total{mapping="value",outcome="ignored"}"#;
        arena.ingestor().await_metric(ignored, KEPT);
    }
}

fn settle(arena: &mut Arena, Range { end, .. }: Range<u64>) -> Found {
    // Messages come in their order: what was sent before this one is acknowledged when it is.
    let last = format!("{end}.25");
    Publisher::connect(arena.broker.port).publish_one("value/last/humidity", last.as_str());
    within(RECOVERY, "the last message is acknowledged", || {
        arena.proxy.has_acked(&last).then_some(())
    });
    arena.await_flushed();
    let found = compare(&arena.postgres, 0..end);
    let before = std::mem::replace(&mut arena.found_before, found);
    Found {
        lost: found.lost.saturating_sub(before.lost),
        wrong: found.wrong.saturating_sub(before.wrong),
        ..found
    }
}

/// Compares the tables with the messages of these numbers.
fn compare(postgres: &Postgres, numbers: Range<u64>) -> Found {
    let mut found = Found::default();
    for (rows, kinds, each) in ALIKE {
        let messages = numbers.clone().filter(|number| kinds.contains(&(number % KINDS))).count();
        let expected = messages * each;
        let rows_found = postgres.value(&format!("select count(*) from {rows}"));
        let rows_found = usize::try_from(rows_found).unwrap();
        if rows_found != expected {
            eprintln!("{rows}: {rows_found} rows, {expected} expected");
        }
        found.lost += expected.saturating_sub(rows_found);
        found.wrong += rows_found.saturating_sub(expected);
    }
    let sql =
        "select humidity::bigint, count(*) from telemetry where device_id = 'sequence' group by 1";
    let rows = postgres.session().rows(sql);
    let mut rows: HashMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for number in numbers.filter(|number| UNIQUE.contains(&(number % KINDS))) {
        match rows.remove(&number.cast_signed()) {
            Some(1) => {}
            Some(rows) => {
                eprintln!("message {number} is {rows} rows");
                found.wrong += 1;
            }
            None => {
                eprintln!("message {number} is no row");
                found.lost += 1;
            }
        }
    }
    found.wrong += rows.len();
    found
}

#[test]
fn whatever_breaks_each_message_without_a_time_is_one_row() {
    let arena = Arena::with(Mosquitto::start(), |service| {
        fs::write(service.dir().join("Rocket.toml"), MAPPINGS).unwrap();
        service
    });
    arena.carrying(TRAFFIC).campaign("arrival", FAULTS.len(), &FAULTS);
}

/// Power cuts of one recording: the disk is what the cut has left, the tables hold what was committed by
/// then, and the broker delivers again all of which it has not heard.
struct Cuts {
    laboratory: Laboratory,
    broker: ScriptedBroker,
    current: Option<(Run, Recording, Range<u64>)>,
    /// How many were made.
    made: u64,
    source: Source,
}

impl Cuts {
    fn new() -> Self {
        let broker = ScriptedBroker::start();
        let mut laboratory = Laboratory::new(MAPPINGS, "telemetry, list");
        laboratory.patient = laboratory.patient.clone().set("MQTT_PORT", broker.port);
        let source = Source { other: Some(message), ..Source::default() };
        Self { laboratory, broker, current: None, made: 0, source }
    }

    fn next(&mut self, seed: u64) -> Found {
        if self.made.is_multiple_of(CUTS_A_RECORDING) {
            self.record(seed);
        }
        self.made += 1;
        let (run, recording, numbers) = self.current.as_ref().unwrap();
        let cut = run.cut(recording, seed);
        let image = recording.after(&cut);
        let found = self.examine(run, numbers.clone(), &cut, &image);
        if found.lost + found.wrong > 0 {
            eprintln!("{cut:?}");
        }
        found
    }

    fn record(&mut self, seed: u64) {
        let mut random = Rng::with_seed(seed);
        let database =
            *random.choice(&[Database::Down, Database::Halting, Database::Halting]).unwrap();
        let generation_bytes = *random.choice(&[1 << 20, 64 << 20]).unwrap();
        self.source.random = random;
        let first = self.source.next;
        let (base, source) = (Image::default(), &mut self.source);
        let run = self.laboratory.record(&base, database, generation_bytes, source);
        let recording = run.recording(&|_| false);
        self.laboratory.postgres.execute(
            "drop table if exists telemetry_then, list_then;
             create table telemetry_then as
                 select *, pg_xact_commit_timestamp(xmin) as committed from telemetry;
             create table list_then as
                 select *, pg_xact_commit_timestamp(xmin) as committed from list",
        );
        eprintln!(
            "recorded: {database:?}, generations of {generation_bytes}; {} messages, {} PUBACKs",
            run.messages.len(),
            run.acks.len()
        );
        self.current = Some((run, recording, first..self.source.next));
    }

    /// The tables hold what was committed when the power was cut.
    fn restore(&self, cut: i64) {
        self.laboratory.empty_table();
        for (table, columns) in
            [("telemetry", "device_id, ts, temperature, humidity"), ("list", "device_id, ts, a")]
        {
            self.laboratory.postgres.execute(&format!(
                "insert into {table} ({columns}) select {columns} from {table}_then
                 where committed <= 'epoch'::timestamptz + {cut} * interval '1 us'"
            ));
        }
    }

    /// Starts the service on `image`, delivers to it what the broker owes it, and compares.
    fn examine(&self, run: &Run, numbers: Range<u64>, cut: &Cut, image: &Image) -> Found {
        self.restore(run.clock(cut.at));
        let patient = &self.laboratory.patient;
        disk::write(image, &patient.wal_dir());
        let began = Instant::now();
        let mut ingestor = patient.start();
        let mut link = self.broker.accept(true);
        // What it has heard, it has heard in order; the last that left may not have come to it.
        let acked = run.acks.values().filter(|began| **began < cut.at).count();
        let mut random = Rng::with_seed(cut.seed);
        let most = *random.choice(&[0, 10, 5_000]).unwrap();
        let unheard = random.usize(..=acked.min(most));
        let owed = &run.messages[acked - unheard..];
        for (id, message) in (acked - unheard + 1..).zip(owed) {
            let id = u16::try_from(id).unwrap();
            assert!(link.send(Some(id), true, &message.topic, message.payload.as_str()));
        }
        assert_eq!(link.acks(owed.len()).len(), owed.len());
        eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
        let recovery = began.elapsed();
        ingestor.must_run();
        ingestor.kill();
        Found { recovery, ..compare(&self.laboratory.postgres, numbers) }
    }
}

#[test]
fn after_a_power_cut_what_is_delivered_again_is_the_row_that_it_was() {
    let mut cuts = Cuts::new();
    campaign("arrival-power-cut", 10, |seed| Some(cuts.next(seed)));
}
