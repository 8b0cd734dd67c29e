//! A table that is partitioned by time, and what makes one of a plain one.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use crate::harness::clock::UNSET;
use crate::harness::{
    Ingestor, Load, Mosquitto, Postgres, Publisher, Reading, Service, eventually, eventually_eq,
    reading, readings,
};

const FIRST_RELEASE: &str = include_str!("../../migrations/0001_telemetry.sql");
const PARTITIONED: &str = include_str!("../../deploy/postgres/partitioned.sql");
const LETTERS: &str = r#"ingestor_dead_letters_total{stage="database"}"#;

fn partitions(postgres: &Postgres) -> Vec<String> {
    postgres.session().texts(
        "select inhrelid::regclass::text from pg_inherits
         where inhparent = 'telemetry'::regclass order by 1",
    )
}

fn now(number: u64) -> Reading {
    let micros = chrono::Utc::now().timestamp_micros() + i64::try_from(number).unwrap();
    Reading { micros, ..reading(number) }
}

fn start(postgres: &Postgres, broker: &Mosquitto) -> Ingestor {
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    ingestor
}

#[test]
fn a_partitioned_table_gets_its_partitions_ahead_and_one_for_all_that_is_older() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(PARTITIONED);
    let ingestor = start(&postgres, &broker);
    eventually("they are there", || (partitions(&postgres).len() == 6).then_some(()));
    let mut expected: Vec<String> = (-1..4)
        .map(|day| chrono::Utc::now() + chrono::TimeDelta::days(day))
        .map(|day| format!("telemetry_p{}", day.format("%Y%m%d")))
        .collect();
    expected.insert(0, "telemetry_older".to_owned());
    assert_eq!(partitions(&postgres), expected);
    let ahead = ingestor.metrics().find("ingestor_partitions_ahead_seconds").unwrap();
    assert!((259_200.0..=345_600.0).contains(&ahead), "{ahead} s ahead");
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..500);
    let new: Vec<Reading> = (0..500).map(now).collect();
    for reading in &new {
        devices.publish(&reading.topic(), reading.payload());
    }
    devices.finish();
    postgres.await_exactly(&[readings(0..500), new].concat());
    assert_eq!(postgres.value("select count(*) from telemetry_older"), 500);
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
}

#[test]
fn the_indexes_of_a_closed_partition_are_built_anew_if_that_is_wanted_and_of_no_other() {
    const BROKEN_OFF: &str = "telemetry_p20240103_ccnew";
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(PARTITIONED);
    // Three days with rows, one that is not the ingestor's, and what an attempt has left that was broken off.
    postgres.execute(&format!(
        "create table telemetry_p20240101 partition of telemetry for values from ('2024-01-01Z') to ('2024-01-02Z');
         create table telemetry_p20240103 partition of telemetry for values from ('2024-01-03Z') to ('2024-01-04Z');
         create table archive partition of telemetry for values from ('2024-01-05Z') to ('2024-01-06Z');
         insert into telemetry (device_id, ts, temperature, humidity, battery)
         select md5(number::text), day + number * interval '1 s', 20, 50, 90
         from generate_series(1, 9000) as number,
             unnest(array['2024-01-01Z', '2024-01-03Z', '2024-01-05Z']::timestamptz[]) as day;
         create index {BROKEN_OFF} on telemetry_p20240103 (ts);
         update pg_index set indisvalid = false where indexrelid = '{BROKEN_OFF}'::regclass"
    ));
    let size = |part: &str| postgres.value(&format!("select pg_indexes_size('{part}')"));
    let parts = ["telemetry_p20240101", "telemetry_p20240103", "archive"];
    let before = parts.map(size);
    let service = Service::new(&postgres.url(), broker.port).set("REINDEX_CLOSED", "true");
    let mut ingestor = service.start();
    ingestor.await_ready();
    let lines = eventually("both are done", || {
        let lines = ingestor.log_of("the indexes of a closed partition are built anew");
        (lines.len() >= 2).then_some(lines)
    });
    let done: Vec<_> = lines.iter().map(|line| line["partition"].as_str().unwrap()).collect();
    assert_eq!(done, ["public.telemetry_p20240101", "public.telemetry_p20240103"]);
    let after = parts.map(size);
    assert!(after[0] < before[0] && after[1] < before[1], "{before:?} {after:?}");
    assert_eq!(after[2], before[2]);
    assert_eq!(postgres.value("select count(*) from pg_class where relname ~ '_cc(new|old)'"), 0);
    // What is late finds its place.
    let late = Reading { micros: 1_704_110_400_000_000, ..reading(1) };
    let mut devices = Publisher::connect(broker.port);
    devices.publish(&late.topic(), late.payload());
    devices.finish();
    eventually("it is stored", || (postgres.count() == 27_001).then_some(()));
    assert_eq!(ingestor.log_of("the indexes of a closed partition are built anew").len(), 2);
}

#[test]
fn a_row_without_a_partition_gets_one_and_no_failure_is_seen() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(PARTITIONED);
    postgres.execute(
        "create table early partition of telemetry
             for values from ('2025-05-01Z') to ('2025-06-01 00:00:00.0005Z');
         create table late partition of telemetry for values from ('2026-01-01Z') to (maxvalue)",
    );
    let ingestor = start(&postgres, &broker);
    let mut devices = Publisher::connect(broker.port);
    let long_ago = Reading { micros: 946_684_800_000_000, ..reading(7_000) };
    devices.publish(&long_ago.topic(), long_ago.payload());
    devices.publish_readings(0..1_500);
    postgres.await_exactly(&[readings(0..1_500), vec![long_ago]].concat());
    let made = ["telemetry_older", "telemetry_p20250601_000000"];
    assert!(made.iter().all(|made| partitions(&postgres).contains(&(*made).to_owned())));
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
    assert_eq!(ingestor.metric(LETTERS), 0);
}

#[test]
fn a_role_that_may_make_no_partitions_tells_how_long_those_that_are_there_last() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(PARTITIONED);
    postgres.execute(
        "create table early partition of telemetry
             for values from (minvalue) to (now() + interval '10 hours');
         create role app login password 'secret'; grant select, insert on telemetry to app",
    );
    let mut ingestor = Service::new(&postgres.url_of("app", "secret"), broker.port).start();
    ingestor.await_ready();
    let said = ingestor.await_log_of("no partitions are made");
    assert!(said[0]["reason"].as_str().unwrap().contains("telemetry"), "{said:?}");
    let ahead = ingestor.metrics().find("ingestor_partitions_ahead_seconds").unwrap();
    assert!((30_000.0..=36_000.0).contains(&ahead), "{ahead} s ahead");
}

#[test]
fn a_partition_that_somebody_else_has_made_meanwhile_helps_and_no_failure_is_seen() {
    // Of whoever makes partitions.
    const LOCK: i64 = 0x696f_742d_7061_7274;
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(PARTITIONED);
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.set("VALIDATE_MAX_FUTURE_SECS", 100 * 86_400).start();
    ingestor.await_ready();
    eventually("those ahead are there", || (partitions(&postgres).len() == 6).then_some(()));
    let in_days =
        |days: i64| Reading { micros: now(0).micros + days * 86_400_000_000, ..reading(1) };
    let mut devices = Publisher::connect(broker.port);
    let mut other = postgres.session();
    other.execute(&format!("begin; select pg_advisory_xact_lock({LOCK})"));
    let new = [in_days(40), in_days(50)];
    devices.publish(&new[0].topic(), new[0].payload());
    devices.flush();
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and waitstart < clock_timestamp() - interval '0.7 s'";
    eventually("a batch waits for its turn", || (postgres.value(waiting) > 0).then_some(()));
    other.execute(
        "create table early partition of telemetry
             for values from (now() + interval '39 days') to (now() + interval '42 days');
         commit",
    );
    postgres.await_exactly(&new[..1]);
    // On need they are made as before.
    devices.publish(&new[1].topic(), new[1].payload());
    devices.finish();
    postgres.await_exactly(&new);
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
    assert_eq!(ingestor.metric(LETTERS), 0);
}

#[test]
fn what_is_dated_beyond_the_year_9999_finds_a_place_and_holds_nothing_up() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(PARTITIONED);
    // Such times are told from right ones by a clock that is right.
    let service = Service::new(&postgres.url(), broker.port).with_clock();
    service.set_clock(UNSET);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    let far = [
        // The last day of the year, and what a device sends that takes microseconds for milliseconds.
        Reading { micros: 253_402_300_799_000_000, ..reading(1) },
        Reading { micros: 1_698_796_800_000_000_000, ..reading(2) },
        Reading { micros: 1_798_796_800_000_000_000, ..reading(3) },
    ];
    for reading in &far {
        let payload = reading.payload().replace(
            &format!("\"{}\"", reading.timestamp()),
            &(reading.micros / 1_000).to_string(),
        );
        devices.publish(&reading.topic(), payload);
    }
    devices.publish_readings(100..200);
    devices.finish();
    postgres.await_exactly(&[&far[..], &readings(100..200)].concat());
    assert!(partitions(&postgres).contains(&"telemetry_p99990101".to_owned()));
    assert_eq!(ingestor.metric("ingestor_db_failures_total"), 0);
    ingestor.stop();
    // It stands in the way of nothing.
    let ingestor = start(&postgres, &broker);
    let ahead = || ingestor.metrics().find("ingestor_partitions_ahead_seconds").unwrap();
    eventually("it is known until when there are partitions", || (!ahead().is_nan()).then_some(()));
    assert!((259_200.0..=345_600.0).contains(&ahead()), "{} s ahead", ahead());
    let new = now(7_000);
    devices.publish(&new.topic(), new.payload());
    devices.finish();
    postgres.await_count(104);
    assert!(ingestor.log_of("no partitions are made").is_empty());
}

#[test]
fn a_table_with_a_default_partition_is_left_to_its_owner() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(PARTITIONED);
    postgres.execute("create table rest partition of telemetry default");
    let ingestor = start(&postgres, &broker);
    Publisher::connect(broker.port).publish_readings(0..500);
    postgres.await_exactly(&readings(0..500));
    eventually("it is said", || {
        (ingestor.log_of("no partitions are made").len() == 1).then_some(())
    });
    assert_eq!(partitions(&postgres), ["rest"]);
}

fn partition(service: &Service, arguments: &[&str]) -> Output {
    let arguments = [&["schema", "partition"], arguments].concat();
    service.run(env!("CARGO_BIN_EXE_ingestor"), &arguments)
}

/// A table of the first release, with rows until now.
fn first_release(postgres: &Postgres) {
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'old-' || n % 7, now() - n * interval '1 min', n, 1, 2
         from generate_series(1, 5000) as n;
         create role reader; create role writer;
         grant select on telemetry to reader;
         grant select, insert on telemetry to writer with grant option;
         grant select (device_id) on telemetry to public;
         comment on table telemetry is 'it''s ours'; comment on column telemetry.ts is 'when';
         alter table telemetry enable row level security;
         create policy seen on telemetry for select to reader using (device_id <> 'secret')",
    );
}

/// A service that has migrated such a table.
fn migrated(postgres: &Postgres, broker: &Mosquitto) -> (Service, Ingestor) {
    first_release(postgres);
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually_eq("the migration is applied", &0, || {
        postgres.value("select count(*) from pg_constraint where conname = 'telemetry_pkey'")
    });
    (service, ingestor)
}

#[test]
fn a_plain_table_becomes_a_partitioned_one_while_rows_come_in() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let (service, ingestor) = migrated(&postgres, &broker);
    let rights = "select (array_agg(acl::text order by acl::text))::text from (
        select unnest(relacl) as acl from pg_class where oid = 'telemetry'::regclass union all
        select unnest(attacl) from pg_attribute where attrelid = 'telemetry'::regclass) as acls";
    let rights_before = postgres.session().text(rights);
    let load = Load::start(broker.port, 1_000);
    load.await_more(200);
    let planned = partition(&service, &["--dry-run"]);
    assert!(planned.status.success(), "{planned:?}");
    assert_eq!(partitions(&postgres).len(), 0);
    let done = partition(&service, &[]);
    assert!(done.status.success(), "{done:?}");
    load.await_more(500);
    let published = load.stop();
    let count = usize::try_from(published.end - published.start).unwrap();
    postgres.await_count(5_000 + count);
    assert_eq!(ingestor.metric(LETTERS), 0);
    assert!(partitions(&postgres).len() >= 3, "{:?}", partitions(&postgres));
    assert_eq!(postgres.session().text(rights), rights_before);
    assert_eq!(
        postgres.session().text("select obj_description('telemetry'::regclass)"),
        "it's ours"
    );
    let kept =
        "select count(*) from pg_policies where tablename = 'telemetry' and policyname = 'seen'";
    assert_eq!(postgres.value(kept), 1);
    let leftover = "select count(*) from pg_constraint where conname = 'telemetry_partition_bound'";
    assert_eq!(postgres.value(leftover), 0);
    // What lies beyond the boundary has a place, and what came before is known.
    let again = partition(&service, &[]);
    assert!(again.status.success(), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stdout).contains("partitioned already"), "{again:?}");
    let tomorrow = Reading { micros: now(0).micros + 80_000_000_000, ..reading(9) };
    let mut devices = Publisher::connect(broker.port);
    devices.publish(&tomorrow.topic(), tomorrow.payload());
    devices.finish();
    postgres.await_count(5_001 + count);
    assert_eq!(
        ingestor.get("/api/v1/telemetry?limit=1").json()["data"][0]["device_id"],
        tomorrow.device_id
    );
}

#[test]
fn a_check_that_a_broken_off_run_has_left_costs_no_row_and_the_next_run_goes_on() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    first_release(&postgres);
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let new: Vec<Reading> = (0..500).map(now).collect();
    postgres.execute(&format!(
        "alter table telemetry add constraint telemetry_partition_bound check (ts < 'epoch'::timestamptz \
         + {} * interval '1 us') not valid",
        new[250].micros
    ));
    let mut devices = Publisher::connect(broker.port);
    for reading in &new {
        devices.publish(&reading.topic(), reading.payload());
    }
    devices.finish();
    postgres.await_count(5_500);
    assert_eq!(ingestor.metric(LETTERS), 0);
    let left = "select count(*) from pg_constraint where conname = 'telemetry_partition_bound'";
    assert_eq!(postgres.value(left), 0);
    let done = partition(&service, &[]);
    assert!(done.status.success(), "{done:?}");
    postgres.await_count(5_500);
}

#[test]
fn a_run_that_is_killed_at_any_of_its_steps_loses_nothing_and_is_ended_by_the_next() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let (service, ingestor) = migrated(&postgres, &broker);
    let load = Load::start(broker.port, 500);
    // Each time a message to the database further.
    let mut killed = 0;
    loop {
        let inject = format!("inject=sendto:signal=KILL:when={}", killed + 1);
        let traced = ["-f", "-qqq", "-o", "/dev/null", "-e", "trace=sendto", "-e", &inject];
        let run = [&traced[..], &[env!("CARGO_BIN_EXE_ingestor"), "schema", "partition"]].concat();
        let outcome = service.run("strace", &run);
        if outcome.status.success() {
            break;
        }
        assert!(
            outcome.status.signal() == Some(9) || outcome.status.code() == Some(137),
            "{outcome:?}"
        );
        load.await_more(20);
        killed += 1;
    }
    assert!(killed >= 10, "killed {killed} times");
    load.await_more(500);
    let published = load.stop();
    let count = usize::try_from(published.end - published.start).unwrap();
    postgres.await_count(5_000 + count);
    assert_eq!(ingestor.metric(LETTERS), 0);
    assert!(partitions(&postgres).len() >= 3, "{:?}", partitions(&postgres));
    let leftover = "select count(*) from pg_constraint where conname = 'telemetry_partition_bound'";
    assert_eq!(postgres.value(leftover), 0);
}

#[test]
fn a_long_reader_makes_it_wait_and_nobody_else() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.make_table();
    let ingestor = start(&postgres, &broker);
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..100);
    postgres.await_count(100);
    let mut reader = postgres.session();
    reader.execute("begin; select * from telemetry");
    let run = std::thread::spawn({
        let url = postgres.url();
        let port = broker.port;
        move || partition(&Service::new(&url, port), &[])
    });
    for round in 1..6 {
        devices.publish_readings(round * 100..(round + 1) * 100);
        postgres.await_count(usize::try_from(round + 1).unwrap() * 100);
        assert_eq!(ingestor.get("/api/v1/telemetry").status, 200);
    }
    assert!(!run.is_finished());
    reader.execute("commit");
    let done = run.join().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(!partitions(&postgres).is_empty());
    postgres.await_exactly(&readings(0..600));
}

#[test]
fn an_autovacuum_gives_way_to_the_migration_and_to_the_exchange() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    postgres.execute(FIRST_RELEASE);
    postgres.execute(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'old-' || n % 7, now() - n * interval '1 s', n, 1, 2
         from generate_series(1, 50000) as n",
    );
    postgres.vacuum_slowly("telemetry");
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually_eq("the migration is applied", &0, || {
        postgres.value("select count(*) from pg_constraint where conname = 'telemetry_pkey'")
    });
    postgres.await_vacuum("telemetry");
    let run = std::thread::spawn({
        let (url, port) = (postgres.url(), broker.port);
        move || partition(&Service::new(&url, port), &[])
    });
    eventually("it ends", || run.is_finished().then_some(()));
    let done = run.join().unwrap();
    assert!(done.status.success(), "{done:?}");
    postgres.await_count(50_000);
}

#[test]
fn partitions_belong_to_whom_the_table_belongs() {
    let postgres = Postgres::start();
    postgres.make_table();
    postgres.execute(
        "insert into telemetry values ('a', now(), 1, 2, 3);
         create role keeper; alter table telemetry owner to keeper",
    );
    let done = partition(&Service::new(&postgres.url(), 1), &[]);
    assert!(done.status.success(), "{done:?}");
    let owners =
        "select distinct relowner::regrole::text from pg_class where relname ~ '^telemetry'
        and relname <> 'telemetry_devices' and relkind in ('r', 'p')";
    assert!(partitions(&postgres).len() >= 3);
    assert_eq!(postgres.session().texts(owners), ["keeper"]);
}

#[test]
fn a_table_whose_times_may_be_null_is_not_looked_through_in_the_exchange() {
    let postgres = Postgres::start();
    postgres.make_table();
    postgres.execute(
        "alter table telemetry alter ts drop not null;
         insert into telemetry values ('a', now(), 1, 2, 3);
         alter database iotdb set log_min_messages = debug1",
    );
    let done = partition(&Service::new(&postgres.url(), 1), &[]);
    assert!(done.status.success(), "{done:?}");
    let said =
        r#"partition constraint for table "telemetry_older" is implied by existing constraints"#;
    assert!(postgres.log_text().contains(said), "{}", postgres.log_text());
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_is_changed() {
    let postgres = Postgres::start();
    postgres.make_table();
    postgres.execute(
        "create view latest as select * from telemetry;
         create unique index odd on telemetry (temperature);
         insert into telemetry values ('a', now(), 1, 2, 3)",
    );
    let refused = partition(&Service::new(&postgres.url(), 1), &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("latest") && said.contains("odd"), "{said}");
    assert!(partitions(&postgres).is_empty());
    postgres.execute("drop view latest; drop index odd");
    let early =
        partition(&Service::new(&postgres.url(), 1), &["--boundary", "2025-01-01T00:00:00Z"]);
    assert_eq!(early.status.code(), Some(1), "{early:?}");
}
