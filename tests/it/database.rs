//! A database that is down, dies, hangs, or does not take rows.

use crate::harness::backlog;
use crate::harness::postgres::Fsync;
use crate::harness::{
    Load, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq, reading, readings,
};

#[test]
fn without_a_database_at_the_start_it_is_ready_ingests_and_stores_all_of_it_later() {
    let mut postgres = Postgres::prepare(Fsync::Off);
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    assert_eq!(ingestor.health()["database"], "down");
    Publisher::connect(broker.port).publish_readings(0..5_000);
    ingestor.await_metric("ingestor_acks_total", 5_000);
    let health = ingestor.get("/health/ready");
    assert_eq!(health.status, 200);
    assert_eq!(
        health.json().to_string(),
        r#"{"database":"down","mqtt":"connected","status":"ready","wal":"ok"}"#
    );
    assert_eq!(ingestor.get("/health/live").status, 200);
    let metrics = ingestor.metrics();
    assert_eq!(metrics.get("ingestor_wal_pending_records"), 5_000);
    assert_eq!(metrics.get("ingestor_db_up"), 0);
    assert!(metrics.find("ingestor_wal_oldest_pending_seconds") > Some(0.0));
    postgres.launch();
    postgres.await_exactly(&readings(0..5_000));
    eventually_eq("the database is up", &serde_json::json!("up"), || {
        ingestor.health()["database"].clone()
    });
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    // An outage is news once, not once an attempt.
    let reports = ingestor.await_log_of("the database does not take rows");
    assert!((1..=3).contains(&reports.len()), "{reports:?}");
}

#[test]
fn a_database_killed_under_load_and_started_again_misses_and_doubles_nothing() {
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 4_000);
    for _ in 0..3 {
        load.await_more(3_000);
        postgres.kill();
        load.await_more(3_000);
        assert_eq!(ingestor.get("/health/ready").status, 200);
        postgres.launch();
    }
    load.await_more(1_000);
    let published = load.stop();
    postgres.await_exactly(&readings(published));
    ingestor.must_run();
}

#[test]
fn a_database_that_hangs_holds_rows_up_and_loses_none() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 2_000);
    load.await_more(2_000);
    postgres.freeze();
    load.await_more(6_000);
    assert_eq!(ingestor.get("/health/ready").status, 200);
    postgres.thaw();
    let published = load.stop();
    postgres.await_exactly(&readings(published));
}

#[test]
fn without_the_permission_to_insert_rows_wait_and_one_line_says_why() {
    let postgres = Postgres::start();
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    postgres.execute("create role writer login password 'secret'");
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url_of("writer", "secret"), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..3_000);
    ingestor.await_metric("ingestor_db_failures_total", 5);
    let metrics = ingestor.metrics();
    assert_eq!(metrics.get("ingestor_wal_pending_records"), 3_000);
    assert_eq!(metrics.get(r#"ingestor_dead_letters_total{stage="database"}"#), 0);
    assert_eq!(ingestor.get("/health/ready").status, 200);
    let refusals =
        ingestor.log().into_iter().filter(|line| line.to_string().contains("42501")).count();
    assert!((1..=3).contains(&refusals), "{refusals} lines about the permission");

    postgres.execute(
        "grant select, insert on telemetry to writer; \
         grant usage on sequence telemetry_id_seq to writer",
    );
    postgres.await_exactly(&readings(0..3_000));
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
}

#[test]
fn a_table_that_lacks_the_unique_key_gets_no_row_twice_and_the_log_says_why() {
    let postgres = Postgres::start();
    let migration = include_str!("../../migrations/0001_telemetry.sql");
    postgres.execute(migration);
    postgres.execute("alter table telemetry drop constraint telemetry_device_id_ts_key");
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("BATCH_SIZE", 10);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..3_000);
    devices.publish_readings(0..3_000);
    ingestor.await_metric("ingestor_db_failures_total", 3);
    assert_eq!(postgres.count(), 0);
    eventually("the log says what is missing", || {
        let refusals = ingestor.log_of("the database does not take rows");
        refusals.iter().any(|line| line.to_string().contains("42P10")).then_some(())
    });

    postgres.execute("alter table telemetry add unique (device_id, ts)");
    postgres.await_exactly(&readings(0..3_000));
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
}

#[test]
fn rows_with_ids_of_their_own_in_the_table_cost_no_reading() {
    let postgres = Postgres::start();
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    // Which keeps its id, because something refers to it.
    postgres.execute("create table theirs (id bigint references telemetry (id))");
    postgres.execute(
        "insert into telemetry (id, device_id, ts, temperature, humidity, battery) \
         select id, 'copied', now() + id * interval '1 s', 1, 1, 1 \
         from generate_series(1, 100000) as id",
    );
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..100);
    eventually("the log says what to do", || {
        let lines = ingestor.log_of("the database does not take rows");
        lines.iter().any(|line| line.to_string().contains("setval")).then_some(())
    });
    assert_eq!(ingestor.metric(r#"ingestor_dead_letters_total{stage="database"}"#), 0);
    postgres.execute("delete from telemetry where device_id = 'copied'");
    postgres.await_exactly(&readings(0..100));
}

#[test]
fn a_database_and_a_role_that_are_made_later_are_waited_for() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let url = postgres.url_of("latecomer", "secret").replace("/iotdb", "/later");
    let mut ingestor = Service::new(&url, broker.port).start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..500);
    ingestor.await_metric("ingestor_db_failures_total", 2);
    postgres.execute("create role latecomer login password 'secret'");
    postgres.execute("create database later owner latecomer");
    eventually_eq("all rows are inserted", &500, || ingestor.metric("ingestor_db_inserts_total"));
}

#[test]
fn a_row_that_postgresql_refuses_is_a_dead_letter_and_its_neighbours_are_stored() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    // Long enough for good and bad to meet in one batch.
    let service = Service::new(&postgres.url(), broker.port).set("BATCH_TIMEOUT_MS", 500);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually("the schema is there", || (ingestor.health()["database"] == "up").then_some(()));
    postgres.execute(
        "alter table telemetry add constraint no_poison check (device_id not like 'poison%')",
    );
    let mut publisher = Publisher::connect(broker.port);
    for number in 0..3_000 {
        let mut reading = reading(number);
        // The first, the last, two in a row, and one on its own.
        if [0, 1_111, 1_112, 2_000, 2_999].contains(&number) {
            reading.device_id = format!("poison-{number}");
        }
        publisher.publish(&reading.topic(), reading.payload());
    }
    publisher.finish();
    let good = [readings(1..1_111), readings(1_113..2_000), readings(2_001..2_999)].concat();
    postgres.await_exactly(&good);
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
    let metrics = ingestor.metrics();
    assert_eq!(metrics.get(r#"ingestor_dead_letters_total{stage="database"}"#), 5);
    assert_eq!(metrics.get("ingestor_dead_letters"), 5);
    assert_eq!(metrics.get("ingestor_db_inserts_total"), good.len() as u64);
    assert_eq!(metrics.get("ingestor_acks_total"), 3_000);
    let letters = service.dead_letters();
    assert_eq!(letters.len(), 5);
    for letter in &letters {
        assert_eq!(letter.stage, "database");
        assert!(letter.reason.contains("23514"), "{letter:?}");
        assert!(letter.payload_text().contains("poison-"), "{letter:?}");
    }
    // And it goes on.
    publisher.publish_readings(5_000..5_100);
    postgres.await_exactly(&[good, readings(5_000..5_100)].concat());
}

#[test]
fn a_batch_of_nothing_but_refused_rows_does_not_stop_those_behind_it() {
    let postgres = Postgres::start();
    postgres.execute(include_str!("../../migrations/0001_telemetry.sql"));
    postgres.execute("alter table telemetry add check (ts >= '2025-06-01 00:00:00.0003Z')");
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("BATCH_SIZE", 100);
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..1_000);
    postgres.await_exactly(&readings(300..1_000));
    ingestor.await_metric(r#"ingestor_dead_letters_total{stage="database"}"#, 300);
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
}

#[test]
fn a_table_that_is_dropped_and_made_again_misses_nothing_that_came_after() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    publisher.publish_readings(0..100);
    postgres.await_count(100);
    postgres.execute("alter table telemetry rename to elsewhere");
    publisher.publish_readings(100..300);
    ingestor.await_metric("ingestor_acks_total", 300);
    ingestor.await_metric("ingestor_db_failures_total", 2);
    assert_eq!(ingestor.metric("ingestor_wal_pending_records"), 200);
    postgres.execute("alter table elsewhere rename to telemetry");
    postgres.await_exactly(&readings(0..300));
}

#[test]
fn the_log_directory_shrinks_when_the_backlog_is_stored() {
    let mut postgres = Postgres::prepare(Fsync::Off);
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        .set("WAL_GENERATION_BYTES", 1_048_576)
        .set("WAL_RETAIN_SECS", 0);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    let published = backlog::fill(&service, &mut ingestor, &mut devices, 4);
    let full = ingestor.metric("ingestor_wal_disk_bytes");
    assert!(full > 3 << 20, "{full} bytes in three generations that are full");
    postgres.launch();
    postgres.await_exactly(&readings(0..published));
    eventually("the log has shrunk", || {
        (ingestor.metric("ingestor_wal_disk_bytes") < 2 << 20).then_some(())
    });
}

#[test]
fn as_many_batches_are_in_flight_as_flush_connections_says() {
    for connections in [1, 3] {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        let service = Service::new(&postgres.url(), broker.port)
            .set("FLUSH_CONNECTIONS", connections)
            .set("BATCH_SIZE", 10);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let mut devices = Publisher::connect(broker.port);
        // The first batch is sent alone.
        devices.publish_readings(0..10);
        postgres.await_count(10);
        let mut other = postgres.session();
        other.execute("begin; lock table telemetry in access exclusive mode");
        devices.publish_readings(10..200);
        // Who writes: readers wait for it too.
        let waiting = "select count(*) from pg_locks where relation = 'telemetry'::regclass \
                       and mode = 'RowExclusiveLock' and not granted";
        eventually_eq("batches wait for the table", &connections, || postgres.value(waiting));
        // One more would have come by then.
        for _ in 0..20 {
            assert_eq!(postgres.value(waiting), connections);
        }
        other.execute("commit");
        postgres.await_exactly(&readings(0..200));
    }
}
