//! Orderly ends, and refusals to start.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Load, Mosquitto, PATIENCE, Postgres, Publisher, ScriptedBroker, Service, eventually, reading,
    readings,
};

/// The grace of the contract's default, and what it takes to notice the end.
const GRACE: Duration = Duration::from_secs(11);

#[test]
fn sigterm_and_sigint_under_load_are_an_orderly_end_that_loses_nothing() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let load = Load::start(broker.port, 5_000);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        ingestor.await_metric("ingestor_acks_total", 2_000);
        ingestor.signal(signal);
        assert_eq!(ingestor.await_exit(GRACE), 0, "{signal:?}");
        assert_eq!(ingestor.await_log_of("stopped").len(), 1);
        ingestor = service.start();
    }
    ingestor.await_metric("ingestor_acks_total", 100);
    let published = load.stop();
    postgres.await_exactly(&readings(published));
}

#[test]
fn what_it_had_taken_is_stored_and_acknowledged_before_it_says_goodbye() {
    let broker = ScriptedBroker::start();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port);
    // The signal comes while the first commit hangs, and the rest waits behind it.
    let mut ingestor = service.start_tampered("fdatasync:delay_enter=5000000:when=1");
    let mut link = broker.accept(false);
    for id in 1..=100 {
        assert!(link.deliver(id, "telemetry/stop", reading(id.into()).payload()));
    }
    ingestor.await_metric("ingestor_messages_total", 100);
    assert_eq!(ingestor.metric("ingestor_acks_total"), 0, "the commit hangs");
    ingestor.signal(Signal::TERM);
    assert_eq!(link.acks_until_closed(), (1..=100).collect::<Vec<_>>());
    assert!(link.has_said_goodbye);
    assert_eq!(ingestor.await_exit(GRACE), 0);
}

#[test]
fn with_the_database_down_the_end_is_as_orderly_and_what_waits_is_stored_after_the_next_start() {
    let mut postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    postgres.stop();
    Publisher::connect(broker.port).publish_readings(0..2_000);
    ingestor.await_metric("ingestor_acks_total", 2_000);
    ingestor.signal(Signal::TERM);
    assert_eq!(ingestor.await_exit(GRACE), 0);
    postgres.launch();
    let _ingestor = service.start();
    postgres.await_exactly(&readings(0..2_000));
}

#[test]
fn while_it_stops_it_is_not_ready_and_a_database_that_hangs_does_not_hold_it_beyond_the_grace() {
    const SECONDS: u64 = 3;
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("SHUTDOWN_GRACE_SECS", SECONDS);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let mut publisher = Publisher::connect(broker.port);
    publisher.publish_readings(0..100);
    postgres.await_count(100);
    // From now on a batch that is in flight gets no answer.
    postgres.freeze();
    publisher.publish_readings(100..2_100);
    ingestor.await_metric("ingestor_acks_total", 2_100);
    ingestor.signal(Signal::TERM);
    let asked = Instant::now();
    let seen = eventually("it says that it is not ready, or has ended", || {
        let answer = ingestor.try_get("/health/ready");
        match answer {
            Ok(answer) if answer.status == 503 => Some(Some(answer)),
            Ok(_) => None,
            Err(_) => (!ingestor.is_running()).then_some(None),
        }
    });
    let answer = seen.expect("it was never seen to be not ready");
    assert_eq!(answer.json()["status"], "not_ready");
    assert_eq!(ingestor.await_exit(GRACE), 0);
    // HTTP has two seconds of its own.
    assert!(asked.elapsed() < Duration::from_secs(SECONDS + 3), "{:?}", asked.elapsed());
    postgres.thaw();
    let _ingestor = service.start();
    postgres.await_exactly(&readings(0..2_100));
}

#[test]
fn without_a_broker_or_a_database_it_still_stops_in_order() {
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1);
    let ingestor = service.start();
    let started = Instant::now();
    ingestor.stop();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_log_that_another_ingestor_holds_is_refused_with_a_clear_line() {
    let first = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1);
    let mut holder = first.start();
    let second = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1)
        .set("WAL_DIR", first.wal_dir().display());
    let mut refused = second.launch();
    assert_eq!(refused.await_exit(PATIENCE), 1);
    let text = refused.log_text();
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(&first.wal_dir().display().to_string()), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    holder.must_run();
    assert_eq!(holder.get("/health/live").status, 200);
    // It is free again with its holder's end, however that came.
    holder.kill();
    second.start().stop();
}

#[test]
fn an_http_address_in_use_is_refused_with_a_clear_line() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let service = Service::new("postgres://iot:x@127.0.0.1:1/iotdb", 1).set("HTTP_ADDR", address);
    let mut refused = service.launch();
    assert_eq!(refused.await_exit(PATIENCE), 1);
    let text = refused.log_text();
    assert!(text.contains("HTTP_ADDR") && text.contains(&address.to_string()), "{text}");
}
