//! SIGKILL, at any moment.

use std::time::Duration;

use crate::harness::{Load, Mosquitto, Postgres, Publisher, Service, eventually, random, readings};

const KILLS: u32 = 10;

#[test]
fn killed_again_and_again_under_load_it_loses_and_doubles_nothing() {
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port)
        // The smallest, so that kills also meet its beginning and its end.
        .set("WAL_GENERATION_BYTES", 1_048_576);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 4_000);
    let mut random = random();
    for kill in 0..KILLS {
        // For a third of the time there is no database, and the log grows.
        match kill {
            3 => postgres.stop(),
            6 => postgres.launch(),
            _ => {}
        }
        ingestor.await_metric("ingestor_acks_total", 400);
        // Not to wait for anything: to be killed in another moment every time.
        std::thread::sleep(Duration::from_micros(random.u64(..150_000)));
        ingestor.kill();
        ingestor = service.start();
    }
    ingestor.await_metric("ingestor_acks_total", 400);
    let published = load.stop();
    assert!(published.end > u64::from(KILLS) * 400);
    postgres.await_exactly(&readings(published));
}

#[test]
fn what_was_acknowledged_is_in_the_log_when_it_is_killed_right_after() {
    const MESSAGES: u64 = 20_000;
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("WAL_GENERATION_BYTES", 1_048_576);
    let mut ingestor = service.start();
    ingestor.await_ready();
    postgres.stop();
    Publisher::connect(broker.port).publish_readings(0..MESSAGES);
    ingestor.await_metric("ingestor_acks_total", MESSAGES);
    ingestor.kill();
    let ingestor = service.start();
    assert_eq!(ingestor.await_log_of("log opened")[0]["pending_records"], MESSAGES);
    // There may be more by now: PUBACKs that did not get out in time bring their messages again.
    assert!(ingestor.metric("ingestor_wal_pending_records") >= MESSAGES);
    postgres.launch();
    postgres.await_exactly(&readings(0..MESSAGES));
    eventually("the broker has nothing left to deliver, and nothing waits", || {
        (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
    });
    assert_eq!(ingestor.metric("ingestor_wal_salvaged_records_total"), 0);
    assert_eq!(ingestor.metric("ingestor_wal_lost_records_total"), 0);
}

#[test]
fn offsets_are_not_used_again_after_everything_was_flushed() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    publisher.publish_readings(0..100);
    postgres.await_count(100);
    ingestor.stop();
    let mut ingestor = service.start();
    ingestor.await_ready();
    assert_eq!(ingestor.await_log_of("log opened")[0]["next_offset"], 100);
    publisher.publish_readings(100..150);
    postgres.await_count(150);
    ingestor.kill();
    let ingestor = service.start();
    assert_eq!(ingestor.await_log_of("log opened")[0]["next_offset"], 150);
}
