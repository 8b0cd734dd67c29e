//! A log that is full.

use crate::harness::{
    Mosquitto, Postgres, Publisher, Reading, Service, eventually, eventually_eq, reading,
};

/// A reading that takes a lot of room, because no compression makes it shorter.
fn bulky(number: u64) -> Reading {
    let device_id = (0..124).map(|_| fastrand::alphanumeric()).collect();
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
    assert_eq!(ingestor.log_of("the log is full").len(), 1);
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
    assert_eq!(ingestor.metric("ingestor_wal_full"), 0);
}
