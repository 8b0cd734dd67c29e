//! What the log answers while the database is away: ten million readings that wait, and then a minute in which two
//! thousand come in each second, are asked for as soon as they are sent, and are read page by page while they drain.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::postgres::Fsync;
use crate::harness::{
    Ingestor, Mosquitto, PATIENCE, Postgres, Publisher, Reading, Service, eventually, reading,
    within,
};
use crate::plan::Plan;
use crate::query::{ask, get};
use crate::report::{Bar, Findings, Row, figure, percentile, sorted};
use crate::{drain, load};

const PENDING: u64 = 10_000_000;
const PER_SECOND: u64 = 2_000;
const SECONDS: u64 = 60;
/// Between two readings that are asked for.
const GLANCE: Duration = Duration::from_millis(20);

pub(crate) fn run(plan: &Plan) -> Findings {
    let (mut rows, deep) = deep(plan.scaled(PENDING));
    let (row, fresh) = fresh(plan.scaled(PER_SECOND * SECONDS));
    rows.push(row);
    Findings { rows, figures: json!({"deep": deep, "fresh": fresh}) }
}

/// What each kind of request takes in front of so many pending readings.
fn deep(pending: u64) -> (Vec<Row>, Value) {
    let publish = |port| load::publish_arrays(port, 0..pending);
    let service = drain::fill(pending, |service| service, publish);
    let mut ingestor = service.start();
    ingestor.await_listening();
    let newest = "/api/v1/telemetry";
    let at_once = get(&ingestor, newest).0;
    // Until it has been read back once, what is newest may be anywhere in it.
    let started = Instant::now();
    within(PATIENCE * 4, "the log is read back", || {
        (get(&ingestor, newest).0 < 20.0).then_some(())
    });
    let read_back = started.elapsed();
    fastrand::seed(1);
    let last = load::sample(pending - 1).micros;
    let device = || {
        format!("/api/v1/telemetry?device_id={}", load::sample(fastrand::u64(..1_000)).device_id)
    };
    let kinds: [(&str, &dyn Fn() -> String); 4] = [
        ("the newest 100", &|| newest.to_owned()),
        ("a device's newest 100", &device),
        ("a device's newest 1,000", &|| format!("{}&limit=1000", device())),
        ("a device's last minute", &|| format!("{}&start={}", device(), time(last - 60_000_000))),
    ];
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for (what, path) in kinds {
        let what = format!("{what}, of {} pending, without a database", figure_of(pending));
        let (row, figure) = ask(&ingestor, &what, path, 50.0);
        // Fewer than asked for, where the time was at an end.
        let found = get(&ingestor, &path()).1["data"].as_array().map_or(0, Vec::len);
        rows.push(Row { detail: format!("{}; {found} rows", row.detail), ..row });
        figures.push(figure);
    }
    rows.push(Row {
        what: "the newest 100, right after the start".to_owned(),
        value: at_once,
        unit: " ms",
        bar: None,
        detail: format!("the log was read back after {:.0} s", read_back.as_secs_f64()),
    });
    rows.push(memory(&ingestor, "peak memory meanwhile"));
    ingestor.stop();
    let start = json!({"at_once_ms": at_once, "read_back_s": read_back.as_secs_f64()});
    (rows, json!({"pending": pending, "kinds": figures, "start": start}))
}

/// How long it takes at most from sending a reading until it is answered, in an outage; and then each of them,
/// once, page by page while they drain.
fn fresh(count: u64) -> (Row, Value) {
    let mut postgres = Postgres::prepare(Fsync::On);
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    let (sending, sent) = send(broker.port, count);
    let mut times = Vec::new();
    while let Some((number, at)) = newest(&sent) {
        let reading = reading(number);
        let path = format!(
            "/api/v1/telemetry?device_id={}&start={}",
            reading.device_id,
            time(reading.micros)
        );
        eventually("it is answered", || {
            let page = ingestor.get(&path);
            (page.status == 200 && !page.json()["data"].as_array().unwrap().is_empty())
                .then_some(())
        });
        times.push(at.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(GLANCE);
    }
    sending.join().expect("the publisher failed");
    load::await_counter(&mut ingestor, "ingestor_valid_messages_total", count);
    postgres.launch();
    let pages = pages_while_it_drains(&ingestor, count);
    within(PATIENCE * 4, "nothing waits", || {
        (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
    });
    assert_eq!(postgres.count() as u64, count);
    ingestor.stop();
    let times = sorted(times);
    let [p50, p99, most] = [50.0, 99.0, 100.0].map(|percent| percentile(&times, percent));
    let row = Row {
        what: format!(
            "from sending to answered in an outage, at {} a second, most",
            figure_of(PER_SECOND)
        ),
        value: most,
        unit: " ms",
        bar: Some(Bar::AtMost(1_000.0)),
        detail: format!(
            "p50 {} ms, p99 {} ms of {} asked for; then {pages} pages while they drained: each of {} once",
            figure(p50),
            figure(p99),
            times.len(),
            figure_of(count)
        ),
    };
    (
        row,
        json!({"messages": count, "asked_for": times.len(), "p50": p50, "p99": p99, "most": most}),
    )
}

/// Sends them at the rate, and tells which was sent when.
fn send(port: u16, count: u64) -> (std::thread::JoinHandle<()>, Receiver<(u64, Instant)>) {
    let (sender, sent) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut publisher = Publisher::connect(port);
        let (started, mut number) = (Instant::now(), 0);
        while number < count {
            let due = started.elapsed().as_micros() * u128::from(PER_SECOND) / 1_000_000;
            while u128::from(number) < due && number < count {
                let reading = reading(number);
                publisher.publish(&reading.topic(), reading.payload());
                sender.send((number, Instant::now())).unwrap();
                number += 1;
            }
            publisher.flush();
            std::thread::sleep(Duration::from_micros(500));
        }
        publisher.finish();
    });
    (thread, sent)
}

/// The last that was sent, once one was; nothing once all were.
fn newest(sent: &Receiver<(u64, Instant)>) -> Option<(u64, Instant)> {
    let first = sent.recv().ok()?;
    Some(sent.try_iter().last().unwrap_or(first))
}

/// Follows the cursor from page to page; returns how many there were.
fn pages_while_it_drains(ingestor: &Ingestor, count: u64) -> usize {
    let first = "/api/v1/telemetry?limit=1000";
    let (mut all, mut pages, mut path) = (HashSet::new(), 0, first.to_owned());
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE * 10, "{} of {count} in {pages} pages", all.len());
        let page = ingestor.get(&path);
        if page.status == 503 {
            // The database is there and has not been heard of.
            continue;
        }
        let page = page.json();
        for row in page["data"].as_array().unwrap() {
            let one = format!("{} {}", row["device_id"], row["timestamp"]);
            assert!(all.insert(one.clone()), "{one} is there twice, at page {pages}");
        }
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => path = format!("{first}&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(all.len() as u64, count, "readings in {pages} pages");
    pages
}

pub(crate) fn memory(ingestor: &Ingestor, what: &str) -> Row {
    #[expect(clippy::cast_precision_loss, reason = "a count of bytes")]
    let peak = ingestor.peak_memory() as f64 / f64::from(1 << 20);
    Row {
        what: what.to_owned(),
        value: peak,
        unit: " MiB",
        bar: Some(Bar::AtMost(128.0)),
        detail: String::new(),
    }
}

/// RFC 3339, as a part of a query.
fn time(micros: i64) -> String {
    Reading { micros, ..reading(0) }.timestamp()
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
pub(crate) fn figure_of(count: u64) -> String {
    figure(count as f64)
}
