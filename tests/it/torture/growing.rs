//! Large tables, and what is done to them while rows come in: the removal of old ones, and the way from the first
//! release's table to a partitioned one. Measured is when each row was committed, by PostgreSQL's own word.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::tally::from_environment;
use crate::harness::{Ingestor, Mosquitto, Postgres, Publisher, Reading, Service, reading, within};

const FIRST_RELEASE: &str = include_str!("../../../migrations/0001_telemetry.sql");
const PARTITIONED: &str = include_str!("../../../deploy/postgres/partitioned.sql");
const TOKEN: &str = "7f3a-admin-token";
const PER_SECOND: u64 = 1_000;
/// Between two of the few that are sent at once.
const PACE: Duration = Duration::from_millis(2);
/// As long as a slow machine takes for all of it.
const PATIENCE: Duration = Duration::from_secs(90 * 60);
/// What is compared are so many readings at least.
const COMPARED: u64 = 30 * PER_SECOND;
/// And so many come in before something is done.
const BEFORE: u64 = 10 * PER_SECOND;
const RECOVERY: Duration = Duration::from_secs(60);

/// Readings of now, at a steady rate.
struct Steady {
    thread: JoinHandle<Vec<i64>>,
    stop: Sender<()>,
}

impl Steady {
    fn start(port: u16) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut publisher = Publisher::connect(port);
            let (started, mut all) = (Instant::now(), Vec::new());
            while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                let due = started.elapsed().as_millis() * u128::from(PER_SECOND) / 1_000;
                while (all.len() as u128) < due {
                    let micros = micros_now().max(all.last().map_or(0, |last| last + 1));
                    let reading = Reading { micros, ..reading(all.len() as u64) };
                    publisher.publish(&reading.topic(), reading.payload());
                    all.push(micros);
                }
                publisher.flush();
            }
            publisher.finish();
            all
        });
        Self { thread, stop }
    }

    /// When each was sent, all of them acknowledged by the broker.
    fn stop(self) -> Vec<i64> {
        drop(self.stop);
        self.thread.join().expect("the publisher failed")
    }
}

fn micros_now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// One that notes when each transaction was committed.
fn postgres() -> Postgres {
    let mut postgres = Postgres::start_durable();
    postgres.execute("alter system set track_commit_timestamp = on");
    postgres.stop();
    postgres.launch();
    postgres
}

/// Inserts `rows` from so many days ago on, up to `until` days ago, in the order of time.
fn fill(postgres: &Postgres, rows: u64, days: f64, until: f64) {
    postgres.execute(&format!(
        "insert into telemetry (device_id, ts, temperature, humidity, battery, created_at)
         select 'old-' || n % 1000, at, 20, 50, 90, at
         from generate_series(0, {rows} - 1) as n,
             lateral (select now() - interval '1 day' * ({days} - n * ({days} - {until})::float8 / {rows}) as at) as time"
    ));
    postgres.execute("vacuum (analyze) telemetry");
}

/// Milliseconds that 95 of 100 of the rows took, and the longest, of those sent after `from` and not after `to`:
/// from being sent until committed, and within PostgreSQL alone.
struct Took {
    rows: f64,
    whole_p95: f64,
    batch_p95: f64,
    batch_longest: f64,
}

fn figures(postgres: &Postgres, from: i64, to: i64) -> Took {
    let since = |time: &str| {
        format!("extract(epoch from pg_xact_commit_timestamp(xmin) - {time})::float8 * 1000")
    };
    let (whole, batch) = (since("ts"), since("created_at"));
    let at = |micros: i64| format!("'epoch'::timestamptz + {micros} * interval '1 us'");
    // One text, so that no type has to be told.
    let text = postgres.session().text(&format!(
        "select concat_ws(' ', count(*), percentile_cont(0.95) within group (order by {whole}),
             percentile_cont(0.95) within group (order by {batch}), max({batch}))
         from telemetry where ts > {} and ts <= {} and device_id like 'device-%'",
        at(from),
        at(to)
    ));
    let all: Vec<f64> = text.split(' ').map(|figure| figure.parse().unwrap()).collect();
    let &[rows, whole_p95, batch_p95, batch_longest] = all.as_slice() else {
        panic!("no rows: {text}")
    };
    Took { rows, whole_p95, batch_p95, batch_longest }
}

/// Waits until so many more readings have come in.
#[track_caller]
fn await_more(ingestor: &Ingestor, readings: u64) {
    let valid = || ingestor.metric("ingestor_valid_messages_total");
    let until = valid() + readings;
    within(PATIENCE, "they come in", || (valid() >= until).then_some(()));
}

/// Once nothing waits: each reading that was sent is there, once.
#[track_caller]
fn all_are_there(postgres: &Postgres, ingestor: &Ingestor, sent: &[i64]) {
    within(RECOVERY, "nothing waits", || {
        (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
    });
    let rows = postgres.readings_since(sent[0]);
    let mut stored: Vec<i64> = rows.iter().map(|row| row.micros).collect();
    stored.sort_unstable();
    assert!(stored == sent, "{} sent, {} stored", sent.len(), stored.len());
}

/// Removes as many rows as are wanted from a table that has no others, and compares.
fn remove(kind: &str, rows: u64, table: impl FnOnce(&Postgres)) {
    let (postgres, broker) = (postgres(), Mosquitto::start());
    table(&postgres);
    let mut ingestor = Service::new(&postgres.url(), broker.port)
        .set("RETENTION_DAYS", 30)
        .set("ADMIN_TOKEN", TOKEN)
        .start();
    ingestor.await_ready();
    let report = || ingestor.admin("GET", "/admin/retention", TOKEN).json();
    within(RECOVERY, "so much waits for an operator", || report()["held_up"].as_str().map(|_| ()));
    let steady = Steady::start(broker.port);
    await_more(&ingestor, BEFORE);
    let from = micros_now();
    await_more(&ingestor, COMPARED);
    let began = micros_now();
    let last_run = report()["last_run"].clone();
    assert_eq!(ingestor.admin("POST", "/admin/retention/run", TOKEN).status, 200);
    let (running, valid) = (Instant::now(), ingestor.metric("ingestor_valid_messages_total"));
    within(PATIENCE, "it has run", || {
        // It may be too busy to say.
        let last = &report()["last_run"];
        (last.is_string() && *last != last_run).then_some(())
    });
    let took = running.elapsed();
    // Of a run that is over in a moment nobody could tell what it did to 95 of 100.
    let come = ingestor.metric("ingestor_valid_messages_total") - valid;
    await_more(&ingestor, COMPARED.saturating_sub(come));
    let until = micros_now();
    let sent = steady.stop();
    all_are_there(&postgres, &ingestor, &sent);
    assert_eq!(postgres.count(), sent.len(), "all old rows are gone, and no other");
    let (before, during) = (figures(&postgres, from, began), figures(&postgres, began, until));
    let ratio = during.whole_p95 / before.whole_p95;
    eprintln!(
        "{rows} rows of a {kind} table removed in {:.1} s, beside {PER_SECOND} readings a second: from sent to committed, p95, {:.1} ms before and {:.1} ms meanwhile, {ratio:.2} times ({} and {} readings); batches, p95, {:.1} and {:.1} ms, the longest {:.0} and {:.0} ms",
        took.as_secs_f64(),
        before.whole_p95,
        during.whole_p95,
        before.rows,
        during.rows,
        before.batch_p95,
        during.batch_p95,
        before.batch_longest,
        during.batch_longest,
    );
    assert!(ratio <= 1.2, "{ratio:.2}");
}

#[test]
#[ignore = "takes minutes: scripts/torture.sh --cases growing"]
fn removing_old_rows_of_a_plain_table_hardly_holds_up_new_ones() {
    let rows = from_environment("TORTURE_ROWS").unwrap_or(5_000_000);
    remove("plain", rows, |postgres| {
        postgres.make_table();
        fill(postgres, rows, 50.0, 40.0);
    });
}

#[test]
#[ignore = "takes minutes: scripts/torture.sh --cases growing"]
fn removing_old_partitions_hardly_holds_up_new_rows() {
    let rows = from_environment("TORTURE_ROWS").unwrap_or(5_000_000);
    remove("partitioned", rows, |postgres| {
        postgres.execute(PARTITIONED);
        postgres.execute(
            "do $$ declare day date; begin
                 set local timezone = 'UTC';
                 for n in 35..55 loop
                     day := current_date - n;
                     execute format('create table telemetry_p%s partition of telemetry
                         for values from (%L) to (%L)', to_char(day, 'YYYYMMDD'), day, day + 1);
                 end loop;
             end $$",
        );
        fill(postgres, rows, 50.0, 40.0);
    });
}

/// Migrated behind a reader who holds it up first, then its indexes and its partitions are made, all of it while
/// rows come in.
#[test]
#[ignore = "takes minutes: scripts/torture.sh --cases growing"]
fn the_first_releases_table_becomes_a_partitioned_one_and_holds_up_no_batch_for_long() {
    let rows = from_environment("TORTURE_ROWS").map_or(20_000_000, |rows| rows * 4);
    let (postgres, broker) = (postgres(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "alter table telemetry drop constraint telemetry_device_id_ts_key, drop constraint telemetry_pkey;
         drop index telemetry_ts_idx",
    );
    fill(&postgres, rows, 60.0, 0.01);
    postgres.execute(
        "alter table telemetry add primary key (id), add unique (device_id, ts);
         create index telemetry_ts_idx on telemetry (ts desc)",
    );
    let mut reader = postgres.session();
    reader.execute("begin; select from telemetry limit 1");
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let steady = Steady::start(broker.port);
    ingestor.await_log_of("somebody reads or changes the table");
    await_more(&ingestor, BEFORE);
    reader.execute("commit");
    within(PATIENCE, "the migration is applied", || {
        let key = "select count(*) from pg_constraint where conname = 'telemetry_pkey'";
        (postgres.value(key) == 0).then_some(())
    });
    let began = Instant::now();
    for command in ["index", "partition"] {
        let done = service.run(env!("CARGO_BIN_EXE_ingestor"), &["schema", command]);
        assert!(done.status.success(), "{done:?}");
        eprintln!("schema {command} ended after {:.0} s", began.elapsed().as_secs_f64());
    }
    await_more(&ingestor, BEFORE);
    let sent = steady.stop();
    all_are_there(&postgres, &ingestor, &sent);
    let parts = "select count(*) from pg_inherits where inhparent = 'telemetry'::regclass";
    assert!(postgres.value(parts) > 1, "it is partitioned");
    let all = figures(&postgres, sent[0] - 1, micros_now());
    eprintln!(
        "{rows} rows of the first release, migrated and partitioned beside {PER_SECOND} readings a second: {} came in, 0 lost; batches, p95, {:.1} ms, the longest {:.0} ms",
        all.rows, all.batch_p95, all.batch_longest
    );
    assert!(all.batch_longest <= 1_000.0, "{:.0} ms", all.batch_longest);
}
