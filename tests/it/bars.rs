//! How fast and how small it has to be, on a machine with two cores and everything on it.
//!
//! These run alone (`.config/nextest.toml`), against a PostgreSQL that waits for the disk. Each
//! prints what it has measured.

use std::time::{Duration, Instant};

use crate::harness::postgres::Fsync;
use crate::harness::visible::{self, Seen};
use crate::harness::{
    Ingestor, Mosquitto, Postgres, Publisher, Service, Simulator, array, eventually_eq, readings,
    within,
};

const MIB: u64 = 1 << 20;

fn start() -> (Postgres, Mosquitto, Service, Ingestor) {
    let mut postgres = Postgres::prepare(Fsync::On);
    postgres.launch();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    (postgres, broker, service, ingestor)
}

#[test]
fn idle_it_takes_less_than_32_mib() {
    let (_postgres, _broker, _service, ingestor) = start();
    // It has been looked at, too.
    assert_eq!(ingestor.get("/api/v1/telemetry").status, 200);
    let peak = ingestor.peak_memory();
    println!("peak memory of an idle process: {:.1} MiB", mib(peak));
    assert!(peak < 32 * MIB, "{:.1} MiB", mib(peak));
}

#[test]
fn an_outage_of_100_000_messages_keeps_it_ready_and_small_and_leaves_a_small_log() {
    const MESSAGES: usize = 100_000;
    let (mut postgres, broker, service, mut ingestor) = start();
    postgres.stop();
    let settings = [
        ("MESSAGE_COUNT", "100000"),
        ("NUM_DEVICES", "1000"),
        ("PUBLISH_INTERVAL_MS", "0"),
        ("MAX_INFLIGHT", "1000"),
    ];
    let simulator = Simulator::start(broker.port, &settings);
    within(Duration::from_secs(60), "all of them are acknowledged", || {
        ingestor.must_run();
        let answer = ingestor.get("/health/ready");
        assert_eq!(answer.status, 200, "{answer:?}");
        (ingestor.metric("ingestor_acks_total") >= MESSAGES as u64).then_some(())
    });
    assert_eq!(simulator.finish(Duration::from_secs(10)).1, MESSAGES as u64);
    let backlog = service.wal_bytes();
    postgres.launch();
    let back = Instant::now();
    within(Duration::from_secs(60), "all of them are in the table", || {
        assert_eq!(ingestor.get("/health/ready").status, 200);
        (ingestor.metric("ingestor_db_inserts_total") >= MESSAGES as u64).then_some(())
    });
    let drained = back.elapsed();
    assert_eq!(postgres.count(), MESSAGES);
    let peak = ingestor.peak_memory();
    let shrunk = Instant::now();
    within(Duration::from_secs(60), "the log has shrunk below 16 MiB", || {
        (service.wal_bytes() < 16 * MIB).then_some(())
    });
    println!(
        "peak memory {:.1} MiB; log {:.1} MiB full, {:.1} MiB drained, {:.1} s later; stored in {:.1} s",
        mib(peak),
        mib(backlog),
        mib(service.wal_bytes()),
        shrunk.elapsed().as_secs_f64(),
        drained.as_secs_f64()
    );
    assert!(peak < 128 * MIB, "{:.1} MiB", mib(peak));
}

#[test]
fn at_full_speed_20_000_messages_a_second_reach_the_table() {
    const MESSAGES: u32 = 300_000;
    let (postgres, broker, _service, ingestor) = start();
    let count = MESSAGES.to_string();
    let settings = [
        ("MESSAGE_COUNT", count.as_str()),
        ("NUM_DEVICES", "1000"),
        ("PUBLISH_INTERVAL_MS", "0"),
        ("MAX_INFLIGHT", "1000"),
    ];
    let started = Instant::now();
    let simulator = Simulator::start(broker.port, &settings);
    within(Duration::from_secs(60), "all of them are in the table", || {
        (ingestor.metric("ingestor_db_inserts_total") >= u64::from(MESSAGES)).then_some(())
    });
    let elapsed = started.elapsed().as_secs_f64();
    assert_eq!(simulator.finish(Duration::from_secs(10)).1, u64::from(MESSAGES));
    assert_eq!(postgres.count(), MESSAGES as usize);
    let per_second = f64::from(MESSAGES) / elapsed;
    println!(
        "{per_second:.0} messages a second into the table; peak memory {:.1} MiB",
        mib(ingestor.peak_memory())
    );
    assert!(per_second >= 20_000.0, "{per_second:.0} messages a second");
}

#[test]
fn at_2_000_messages_a_second_95_of_100_are_visible_within_65_ms() {
    const PER_SECOND: u64 = 2_000;
    const WARM_UP: u64 = 2 * PER_SECOND;
    const MESSAGES: u64 = WARM_UP + 10 * PER_SECOND;
    let (postgres, broker, _service, _ingestor) = start();
    let seen = visible::watch(broker.port, &postgres, PER_SECOND, MESSAGES);
    let mut measured: Vec<Duration> =
        seen.iter().skip(usize::try_from(WARM_UP).unwrap()).map(Seen::latency).collect();
    measured.sort_unstable();
    let percentile = |percent: usize| measured[measured.len() * percent / 100].as_secs_f64() * 1e3;
    println!(
        "publish to visible: p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        percentile(50),
        percentile(95),
        percentile(99),
        measured[measured.len() - 1].as_secs_f64() * 1e3
    );
    assert!(percentile(95) <= 65.0, "p95 is {:.1} ms", percentile(95));
}

#[test]
fn a_look_at_the_900_000th_of_a_million_waiting_records_takes_less_than_50_ms_at_full_speed() {
    const RECORDS: u64 = 1_000_000;
    const A_MESSAGE: u64 = 400;
    const TOKEN: &str = "token-of-the-bars";
    let (_postgres, broker, service, ingestor) = start();
    ingestor.stop();
    let mut ingestor = service.set("ADMIN_TOKEN", TOKEN).start();
    ingestor.await_ready();
    assert_eq!(ingestor.admin("POST", "/admin/flusher/pause", TOKEN).status, 200);
    let mut devices = Publisher::connect(broker.port);
    for first in (0..RECORDS).step_by(usize::try_from(A_MESSAGE).unwrap()) {
        devices.publish("telemetry/batch", array(&readings(first..first + A_MESSAGE)));
    }
    devices.finish();
    within(Duration::from_secs(60), "all of them wait", || {
        (ingestor.metric("ingestor_wal_pending_records") >= RECORDS).then_some(())
    });
    let settings = [
        ("MESSAGE_COUNT", "0"),
        ("NUM_DEVICES", "1000"),
        ("PUBLISH_INTERVAL_MS", "0"),
        ("MAX_INFLIGHT", "1000"),
    ];
    let _simulator = Simulator::start(broker.port, &settings);
    let before = ingestor.metric("ingestor_acks_total");
    within(Duration::from_secs(20), "the intake runs", || {
        (ingestor.metric("ingestor_acks_total") > before + 10_000).then_some(())
    });
    let (began, acked) = (Instant::now(), ingestor.metric("ingestor_acks_total"));
    let mut looks: Vec<Duration> = (0..100)
        .map(|_| {
            let at = Instant::now();
            let answer = ingestor.admin("GET", "/admin/wal/records?from=900000", TOKEN);
            let took = at.elapsed();
            let page = answer.json();
            assert_eq!(page["records"][0]["offset"], 900_000);
            assert_eq!(page["records"].as_array().unwrap().len(), 100);
            assert_eq!(page["next"], 900_100);
            took
        })
        .collect();
    let acked = ingestor.metric("ingestor_acks_total") - acked;
    #[expect(clippy::cast_precision_loss, reason = "for a person")]
    let per_second = acked as f64 / began.elapsed().as_secs_f64();
    let first = looks[0];
    looks.sort_unstable();
    let ms = |look: Duration| look.as_secs_f64() * 1e3;
    println!(
        "a look: the first {:.1} ms, p50 {:.1} ms, most {:.1} ms, at {per_second:.0} messages a second; peak memory {:.1} MiB",
        ms(first),
        ms(looks[50]),
        ms(looks[99]),
        mib(ingestor.peak_memory())
    );
    assert!(looks[99] < Duration::from_millis(50), "{:.1} ms", ms(looks[99]));
    assert!(per_second > 5_000.0, "the intake stood still: {per_second:.0} messages a second");
    assert!(ingestor.peak_memory() < 128 * MIB);
}

#[expect(clippy::cast_precision_loss, reason = "for a person")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
