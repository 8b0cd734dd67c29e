//! A time of day that is wrong, is set, and jumps; and a process that does not run for a while.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::clock::UNSET;
use crate::harness::postgres::Fsync;
use crate::harness::{
    Ingestor, Load, Mosquitto, Postgres, Publisher, Service, eventually, eventually_eq, readings,
};

const TOKEN: &str = "7f3a-admin-token";

/// Longer than anything here waits, and shorter than what a clock is set by.
const WHILE: f64 = 300.0;

/// Everywhere that it is told how long the oldest record has waited.
#[track_caller]
fn ages(ingestor: &Ingestor) -> [f64; 3] {
    let age = |path: &str| {
        let answer = ingestor.admin("GET", path, TOKEN).json();
        answer["oldest_pending_seconds"].as_f64().unwrap()
    };
    let metric = ingestor.metrics().find("ingestor_wal_oldest_pending_seconds").unwrap();
    [metric, age("/admin/wal"), age("/api/v1/status")]
}

/// They are those of a record that has waited for at least so many seconds, and not for years.
#[track_caller]
fn must_have_waited(ingestor: &Ingestor, at_least: f64) {
    for age in ages(ingestor) {
        assert!((at_least..WHILE).contains(&age), "{age}");
    }
}

fn publish(ingestor: &mut Ingestor, broker: &Mosquitto, numbers: std::ops::Range<u64>) {
    let before = ingestor.metric("ingestor_acks_total");
    let count = numbers.end - numbers.start;
    Publisher::connect(broker.port).publish_readings(numbers);
    ingestor.await_metric("ingestor_acks_total", before + count);
}

#[test]
fn a_start_in_1970_makes_nothing_half_a_century_old_once_the_clock_is_set() {
    let mut postgres = Postgres::prepare(Fsync::Off);
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN).with_clock();
    service.set_clock(UNSET);
    let mut ingestor = service.start();
    ingestor.await_ready();
    publish(&mut ingestor, &broker, 0..50);
    assert_eq!(ingestor.get("/api/v1/status").json()["clock_is_set"], false);
    must_have_waited(&ingestor, 0.0);
    let before = ages(&ingestor)[0];

    service.set_clock("+0");
    assert_eq!(ingestor.get("/api/v1/status").json()["clock_is_set"], true);
    must_have_waited(&ingestor, before);
    publish(&mut ingestor, &broker, 50..100);
    must_have_waited(&ingestor, before);
    let started = ingestor.metrics().find("process_start_time_seconds").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((now.as_secs_f64() - started).abs() < WHILE, "{started}");
    ingestor.stop();

    // The next process finds what was received in 1970 in its log.
    let stats = service.run(env!("CARGO_BIN_EXE_ingestor"), &["wal", "stats"]).stdout;
    let stats = String::from_utf8(stats).unwrap();
    assert!(stats.contains("by a clock that was wrong"), "{stats}");
    let ingestor = service.start();
    must_have_waited(&ingestor, 0.0);
    eventually("it waits", || (ages(&ingestor)[0] > 0.5).then_some(()));
    postgres.launch();
    postgres.await_exactly(&readings(0..100));
    eventually_eq("all is counted", &100, || {
        ingestor.metric("ingestor_end_to_end_latency_seconds_count")
    });
    let latency = ingestor.metrics().find("ingestor_end_to_end_latency_seconds_sum").unwrap();
    assert!((0.0..100.0 * WHILE).contains(&latency), "{latency}");
}

#[test]
fn a_clock_that_jumps_by_a_day_in_mid_run_changes_no_age_and_no_latency() {
    let mut postgres = Postgres::prepare(Fsync::Off);
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("ADMIN_TOKEN", TOKEN).with_clock();
    // What an earlier process has left.
    let mut ingestor = service.start();
    ingestor.await_ready();
    publish(&mut ingestor, &broker, 0..10);
    ingestor.stop();

    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut published = 10;
    for off_by in ["+1d", "+0", "-1d", "+0"] {
        service.set_clock(off_by);
        must_have_waited(&ingestor, 0.0);
        publish(&mut ingestor, &broker, published..published + 10);
        published += 10;
        must_have_waited(&ingestor, 0.0);
    }
    postgres.launch();
    postgres.await_exactly(&readings(0..published));
    eventually_eq("all is counted", &published, || {
        ingestor.metric("ingestor_end_to_end_latency_seconds_count")
    });
    let latency = ingestor.metrics().find("ingestor_end_to_end_latency_seconds_sum").unwrap();
    assert!((0.0..50.0 * WHILE).contains(&latency), "{latency}");
    assert!(ages(&ingestor).iter().all(|age| *age < 1e-9), "nothing waits");
}

#[test]
fn a_process_that_is_stopped_for_longer_than_a_disk_may_hang_goes_on_and_loses_nothing() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    // So slow that it is nearly always in the middle of a commit.
    let mut ingestor = service.start_tampered("fdatasync:delay_enter=300000");
    ingestor.await_ready();
    let load = Load::start(broker.port, 200);
    load.await_more(500);
    ingestor.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(63));
    ingestor.signal(Signal::CONT);
    load.await_more(500);
    let published = load.stop();
    postgres.await_exactly(&readings(published));
    assert!(ingestor.is_running());
    assert_eq!(ingestor.get("/health/ready").status, 200);
    assert!(ingestor.log_of("a part of the service").is_empty());
}
