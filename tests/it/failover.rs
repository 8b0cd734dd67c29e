//! A database that goes back in time, or is another one: what it had confirmed is sent again.

use crate::books;
use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, eventually_eq, reading, readings,
};

const TABLE: &str = "create table telemetry (device_id text not null, ts timestamptz not null,
    temperature float8 not null, humidity float8 not null, battery float8 not null,
    created_at timestamptz not null default now(), unique (device_id, ts))";
const RESENT: &str = "ingestor_resent_records_total";
const SENT_AGAIN: &str = "the database may have lost the rows that it confirmed last";

#[track_caller]
fn await_drained(ingestor: &Ingestor) {
    eventually_eq("nothing waits", &0, || ingestor.metric("ingestor_wal_pending_records"));
}

/// That it was noticed, once, and that all of it is in the books.
#[track_caller]
fn sent_again(ingestor: &Ingestor, lost: u64) {
    await_drained(ingestor);
    let metrics = ingestor.metrics();
    let resent = metrics.get(RESENT);
    assert!(resent >= lost, "{resent} were sent again");
    let lines = ingestor.log_of(SENT_AGAIN);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["records"], resent);
    let recovered = ingestor.await_log_of("log opened")[0]["pending_records"].as_u64().unwrap();
    books::must_balance(&metrics, recovered + resent);
    assert_eq!(metrics.get("ingestor_dead_letters"), 0);
}

#[test]
fn a_standby_that_lagged_and_is_promoted_lacks_nothing_in_the_end() {
    for restarts in [false, true] {
        let mut primary = Postgres::start();
        let (standby, broker) = (primary.start_standby(), Mosquitto::start());
        let url = format!(
            "postgres://iot:{}@127.0.0.1:{},127.0.0.1:{}/iotdb?target_session_attrs=read-write",
            primary.password(),
            primary.port,
            standby.port
        );
        let service = Service::new(&url, broker.port);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let mut devices = Publisher::connect(broker.port);
        devices.publish_readings(0..1_000);
        eventually_eq("the standby has followed", &1_000, || standby.count());
        standby.stop_following();
        devices.publish_readings(1_000..3_000);
        primary.await_exactly(&readings(0..3_000));
        await_drained(&ingestor);
        let mut fail_over = || {
            primary.kill();
            standby.promote();
            assert_eq!(standby.count(), 1_000);
        };
        // With readings that come meanwhile, and without.
        let published = if restarts {
            ingestor.kill();
            fail_over();
            ingestor = service.start();
            ingestor.await_ready();
            devices.publish_readings(3_000..3_500);
            3_500
        } else {
            fail_over();
            3_000
        };
        standby.await_exactly(&readings(0..published));
        sent_again(&ingestor, 2_000);
    }
}

#[test]
fn a_dump_that_is_restored_lacks_nothing_in_the_end() {
    for restarts in [false, true] {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        let service = Service::new(&postgres.url(), broker.port);
        let mut ingestor = service.start();
        ingestor.await_ready();
        let mut devices = Publisher::connect(broker.port);
        devices.publish_readings(0..1_000);
        postgres.await_count(1_000);
        let dump = postgres.dump();
        devices.publish_readings(1_000..3_000);
        postgres.await_exactly(&readings(0..3_000));
        await_drained(&ingestor);
        if restarts {
            ingestor.stop();
            postgres.restore(&dump);
            ingestor = service.start();
        } else {
            postgres.restore(&dump);
        }
        postgres.await_exactly(&readings(0..3_000));
        sent_again(&ingestor, 2_000);
    }
}

#[test]
fn another_server_with_an_older_dump_lacks_nothing_in_the_end() {
    let (mut old, new, broker) = (Postgres::start(), Postgres::start(), Mosquitto::start());
    let service = Service::new(&old.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..1_000);
    old.await_count(1_000);
    new.restore(&old.dump());
    devices.publish_readings(1_000..3_000);
    old.await_exactly(&readings(0..3_000));
    await_drained(&ingestor);
    ingestor.stop();
    old.kill();
    let ingestor = service.set("DATABASE_URL", new.url()).start();
    new.await_exactly(&readings(0..3_000));
    sent_again(&ingestor, 2_000);
}

#[test]
fn a_table_in_the_place_of_another_lacks_nothing_in_the_end() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..1_000);
    postgres.await_count(1_000);
    await_drained(&ingestor);
    postgres.execute(&format!(
        "alter table telemetry rename to older; {TABLE};
         insert into telemetry select device_id, ts, temperature, humidity, battery, created_at
             from older order by ts limit 300"
    ));
    postgres.await_exactly(&readings(0..1_000));
    sent_again(&ingestor, 700);
}

/// Of devices that no other reading has.
fn publish_late(broker: &Mosquitto) {
    let mut devices = Publisher::connect(broker.port);
    for number in 0..50 {
        let mut reading = reading(number);
        reading.device_id = format!("late-{number}");
        devices.publish(&reading.topic(), reading.payload());
    }
    devices.finish();
}

#[test]
fn devices_that_an_older_database_does_not_know_are_in_the_list_again_with_their_readings() {
    const NAMES: &str = "select count(*) from telemetry_devices where device_id like 'late-%'";
    for is_in_place in [false, true] {
        let (postgres, broker) = (Postgres::start(), Mosquitto::start());
        let mut ingestor = Service::new(&postgres.url(), broker.port).start();
        ingestor.await_ready();
        Publisher::connect(broker.port).publish_readings(0..1_000);
        postgres.await_count(1_000);
        let dump = postgres.dump();
        publish_late(&broker);
        postgres.await_count(1_050);
        await_drained(&ingestor);
        assert_eq!(postgres.value(NAMES), 50);
        if is_in_place {
            // No connection ends.
            postgres.execute(&format!(
                "begin;
                 alter table telemetry rename to older; {TABLE};
                 insert into telemetry select device_id, ts, temperature, humidity, battery, created_at
                     from older where device_id not like 'late-%';
                 delete from telemetry_devices where device_id like 'late-%';
                 commit"
            ));
        } else {
            postgres.restore(&dump);
        }
        postgres.await_count(1_050);
        sent_again(&ingestor, 50);
        assert_eq!(postgres.value(NAMES), 50, "{is_in_place}");
        let page = ingestor.get("/api/v1/devices?limit=1000&name_contains=late-").json();
        assert_eq!(page["total"], 50, "{page}");
    }
}

#[test]
fn a_server_that_is_only_started_again_gets_nothing_twice() {
    let (mut postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    let mut published = 0;
    for is_orderly in [true, false] {
        for restarts in [false, true] {
            devices.publish_readings(published..published + 1_000);
            published += 1_000;
            postgres.await_exactly(&readings(0..published));
            await_drained(&ingestor);
            let mut restart = || {
                if is_orderly {
                    postgres.stop();
                } else {
                    postgres.kill();
                }
                postgres.launch();
            };
            if restarts {
                ingestor.stop();
                restart();
                ingestor = service.start();
            } else {
                restart();
            }
            ingestor.await_ready();
            devices.publish_readings(published..published + 1_000);
            published += 1_000;
            postgres.await_exactly(&readings(0..published));
            await_drained(&ingestor);
            assert_eq!(ingestor.metric(RESENT), 0, "{is_orderly}, {restarts}");
            assert_eq!(ingestor.metric("ingestor_duplicates_total"), 0);
        }
    }
}

#[test]
fn a_server_that_forgot_in_a_crash_what_it_confirmed_lacks_nothing_in_the_end() {
    let (mut postgres, broker) = (Postgres::start(), Mosquitto::start());
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..1_000);
    postgres.await_count(1_000);
    devices.publish_readings(1_000..2_000);
    postgres.await_exactly(&readings(0..2_000));
    await_drained(&ingestor);
    // What a crash of a machine does to a server that does not sync, as far as its clients can see it.
    postgres.execute("delete from telemetry where ts >= (select ts from telemetry order by ts offset 1000 limit 1)");
    postgres.kill();
    postgres.launch();
    postgres.await_exactly(&readings(0..2_000));
    sent_again(&ingestor, 1_000);
}

#[test]
fn what_is_retained_is_not_pending_and_nothing_is_sent_again_without_a_time() {
    const TOKEN: &str = "correct horse battery staple";
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN);
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(0..1_000);
    postgres.await_count(1_000);
    await_drained(&ingestor);
    let wal = ingestor.admin("GET", "/admin/wal", TOKEN).json();
    assert_eq!((&wal["pending_records"], &wal["pending_bytes"]), (&0.into(), &0.into()));
    assert_eq!(wal["flushed_offset"], 1_000);
    let status = ingestor.get("/api/v1/status").json();
    assert_eq!(status["database"]["resending_records"], 0);
    let records = ingestor.admin("GET", "/admin/wal/records", TOKEN).json();
    assert_eq!(records["records"].as_array().unwrap().len(), 0);
    ingestor.stop();
    let mut ingestor = service.set("WAL_RETAIN_SECS", 0).start();
    ingestor.await_ready();
    postgres.execute(&format!("alter table telemetry rename to older; {TABLE}"));
    Publisher::connect(broker.port).publish_readings(1_000..1_100);
    postgres.await_exactly(&readings(1_000..1_100));
    await_drained(&ingestor);
    assert_eq!(ingestor.metric(RESENT), 0);
}
