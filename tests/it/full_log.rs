//! A log that is full.

use std::time::Duration;

use crate::disasters::SmallFilesystem;
use crate::harness::postgres::Fsync;
use crate::harness::{
    Mosquitto, Postgres, Publisher, Reading, ScriptedBroker, Service, array, eventually,
    eventually_eq, reading, readings,
};

const TOKEN: &str = "token-of-full-log";

/// A reading that takes a lot of room, because no compression makes it shorter.
fn bulky(number: u64) -> Reading {
    let mut random = fastrand::Rng::with_seed(number);
    let device_id = (0..124).map(|_| random.alphanumeric()).collect();
    Reading { device_id, ..reading(number) }
}

#[test]
fn a_full_log_sends_the_ingestor_away_from_the_broker_and_loses_nothing() {
    const LIMIT: u64 = 4 << 20;
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        .set("WAL_MAX_BYTES", LIMIT)
        .set("WAL_GENERATION_BYTES", 1 << 20);
    let mut ingestor = service.start();
    ingestor.await_ready();
    postgres.stop();
    let mut devices = Publisher::connect(broker.port);
    let mut published = Vec::new();
    eventually("the log is full", || {
        for _ in 0..500 {
            let reading = bulky(published.len() as u64);
            devices.publish(&reading.topic(), reading.payload());
            published.push(reading);
        }
        devices.finish();
        let answer = ingestor.get("/health/ready");
        (answer.status == 503 && answer.json()["wal"] == "full").then_some(())
    });
    eventually_eq("it has left the broker", &0, || ingestor.metric("ingestor_mqtt_connected"));
    assert_eq!(ingestor.metric("ingestor_wal_full"), 1);
    assert_eq!(ingestor.metric("ingestor_wal_max_bytes"), LIMIT);
    eventually_eq("it says so", &1, || ingestor.log_of("the log is full").len());
    let full = ingestor.metric("ingestor_wal_disk_bytes");
    assert!(full < LIMIT * 3 / 2, "{full} bytes on disk");
    // Now the broker keeps what comes.
    for _ in 0..2_000 {
        let reading = bulky(published.len() as u64);
        devices.publish(&reading.topic(), reading.payload());
        published.push(reading);
    }
    devices.finish();
    let acked = ingestor.metric("ingestor_acks_total");
    assert!(acked < published.len() as u64);

    // A restart does not change that.
    ingestor.stop();
    let mut ingestor = service.start();
    eventually_eq("it is full after a restart too", &serde_json::json!("full"), || {
        ingestor.health()["wal"].clone()
    });
    assert_eq!(ingestor.metric("ingestor_messages_total"), 0);

    postgres.launch();
    ingestor.await_ready();
    postgres.await_exactly(&published);
    eventually_eq("it is no longer full", &0, || ingestor.metric("ingestor_wal_full"));
}

#[test]
fn at_the_limit_it_says_goodbye_to_the_broker_and_comes_back_below_90_percent_of_it() {
    const LIMIT: u64 = 4 << 20;
    let mut postgres = Postgres::prepare(Fsync::Off);
    let broker = ScriptedBroker::start();
    let service = Service::new(&postgres.url(), broker.port)
        .set("WAL_MAX_BYTES", LIMIT)
        .set("ADMIN_TOKEN", TOKEN);
    let mut ingestor = service.start();
    let mut link = broker.accept(false);
    let mut acked = Vec::new();
    while !link.is_closed {
        let readings: Vec<_> = (0..200).map(|n| bulky(acked.len() as u64 + n)).collect();
        let id = u16::try_from(acked.len() / 200 + 1).unwrap();
        link.deliver(id, "telemetry/x", array(&readings));
        if let Some(ack) = link.ack(Duration::from_secs(10)) {
            assert_eq!(ack, id);
            acked.extend(readings);
        }
        assert!(acked.len() < 1_000_000, "it is never full");
    }
    assert!(link.has_said_goodbye, "it left without a DISCONNECT");
    eventually_eq("it says so", &"full".into(), || ingestor.health()["wal"].clone());
    assert_eq!(ingestor.get("/health/ready").status, 503);
    assert_eq!(ingestor.metric("ingestor_wal_full"), 1);
    assert_eq!(ingestor.metric("ingestor_mqtt_connected"), 0);
    let state = || ingestor.admin("GET", "/admin/wal", TOKEN).json();
    let wal = state();
    assert_eq!(wal["full"], true, "{wal}");
    assert_eq!(wal["pending_records"], acked.len() as u64);
    assert!(wal["disk_bytes"].as_u64() >= Some(LIMIT), "{wal}");
    let report = &ingestor.await_log_of("the log is full")[0];
    assert!(report["reason"].as_str().unwrap().contains(&LIMIT.to_string()), "{report}");
    // It stays away, for much longer than a reconnect takes.
    std::thread::sleep(Duration::from_secs(2));
    assert!(!broker.has_caller());

    postgres.launch();
    let link = broker.accept(true);
    let wal = state();
    assert_eq!(wal["full"], false, "{wal}");
    assert!(wal["disk_bytes"].as_u64() < Some(LIMIT / 10 * 9), "{wal}");
    assert_eq!(ingestor.await_log_of("the log has room again").len(), 1);
    postgres.await_exactly(&acked);
    eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
    assert_eq!(ingestor.metric("ingestor_wal_full"), 0);
    assert!(!link.is_closed);
    ingestor.must_run();
}

#[test]
fn a_filesystem_that_somebody_else_fills_is_left_alone_until_there_is_room_again() {
    const MIN_FREE: u64 = 16 << 20;
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        .set("WAL_MIN_FREE_BYTES", MIN_FREE)
        .set("ADMIN_TOKEN", TOKEN);
    let wal_dir = service.wal_dir();
    let Some(_small) = SmallFilesystem::mount(&wal_dir, "size=48m") else { return };
    let mut ingestor = service.start();
    ingestor.await_ready();
    let room = ingestor.metric("ingestor_wal_left_bytes");
    assert!((1..=32 << 20).contains(&room), "{room}");
    let mut devices = Publisher::connect(broker.port);
    devices.publish_readings(0..1_000);
    postgres.await_count(1_000);

    let foreign = wal_dir.join("somebody-else");
    std::fs::write(&foreign, vec![0; 33 << 20]).unwrap();
    eventually_eq("it has left the broker", &0, || ingestor.metric("ingestor_mqtt_connected"));
    eventually_eq("it says so", &"full".into(), || ingestor.health()["wal"].clone());
    eventually_eq("no room is left", &0, || ingestor.metric("ingestor_wal_left_bytes"));
    assert_eq!(ingestor.admin("GET", "/admin/wal", TOKEN).json()["full"], true);
    let line = &ingestor.await_log_of("the log is full")[0];
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("free") && reason.contains(&MIN_FREE.to_string()), "{reason}");
    // The broker keeps what comes.
    devices.publish_readings(1_000..3_000);
    assert_eq!(ingestor.metric("ingestor_acks_total"), 1_000);

    std::fs::remove_file(&foreign).unwrap();
    postgres.await_exactly(&readings(0..3_000));
    eventually_eq("it says so", &"ok".into(), || ingestor.health()["wal"].clone());
    ingestor.must_run();
}
