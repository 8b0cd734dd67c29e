//! The API, over a table of five million rows.

use std::time::Instant;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::harness::postgres::Fsync;
use crate::harness::{Ingestor, Postgres, Service, eventually_eq, ports, reading};
use crate::plan::Plan;
use crate::report::{Bar, Findings, Row, figure, median, percentile, sorted};

const ROWS: u64 = 5_000_000;

/// Requests of each kind.
const REQUESTS: usize = 400;

const DEVICES: u64 = 1_000;

const MANY_DEVICES: u64 = 300_000;

pub(crate) fn run(plan: &Plan) -> Findings {
    let rows_there = plan.scaled(ROWS);
    let mut postgres = Postgres::prepare(Fsync::On);
    postgres.launch();
    fill(&postgres, rows_there);
    let service = Service::new(&postgres.url(), ports::free());
    let ingestor = service.start();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));

    // The same requests in every run, so that two runs differ by what they measure alone.
    fastrand::seed(1);
    let device = || format!("sensor-{:04}", fastrand::u64(..DEVICES));
    let telemetry = "/api/v1/telemetry";
    // Some time within which there are rows.
    let span = |seconds: u64| {
        let all = rows_there / DEVICES;
        let start = fastrand::u64(..=all.saturating_sub(seconds));
        format!("start={}&end={}", second(start), second(start + seconds))
    };
    let kinds: [(&str, &dyn Fn() -> String); 6] = [
        ("the newest 100", &|| telemetry.to_owned()),
        ("the newest 1,000", &|| format!("{telemetry}?limit=1000")),
        ("a device's newest 100", &|| format!("{telemetry}?device_id={}", device())),
        ("a device's quarter of an hour", &|| {
            format!("{telemetry}?device_id={}&{}&limit=1000", device(), span(900))
        }),
        ("a minute of all devices", &|| format!("{telemetry}?{}", span(60))),
        ("100 devices", &|| format!("/api/v1/devices?offset={}", fastrand::u64(..9) * 100)),
    ];
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for (what, path) in kinds {
        let (row, figure) = ask(&ingestor, what, path, 15.0);
        rows.push(row);
        figures.push(figure);
    }
    let (row, pages) = pages(&ingestor, rows_there);
    rows.push(row);
    add_devices(&postgres, plan.scaled(MANY_DEVICES));
    for (what, path) in [
        ("100 of 300,000 devices", "/api/v1/devices?limit=100"),
        ("the newest 100 of 300,000 devices", "/api/v1/devices?limit=100&newest_first=true"),
    ] {
        let (row, figure) = ask(&ingestor, what, &|| path.to_owned(), 20.0);
        rows.push(row);
        figures.push(figure);
    }
    Findings { rows, figures: json!({"rows": rows_there, "kinds": figures, "pages": pages}) }
}

/// Times [`REQUESTS`] requests, of which 99 of 100 should take `bar` milliseconds at most.
pub(crate) fn ask(
    ingestor: &Ingestor,
    what: &str,
    path: &dyn Fn() -> String,
    bar: f64,
) -> (Row, Value) {
    for _ in 0..20 {
        get(ingestor, &path());
    }
    let times = sorted((0..REQUESTS).map(|_| get(ingestor, &path()).0));
    let [p50, p95, p99] = [50.0, 95.0, 99.0].map(|percent| percentile(&times, percent));
    let row = Row {
        what: format!("{what}, p99"),
        value: p99,
        unit: " ms",
        bar: Some(Bar::AtMost(bar)),
        detail: format!("p50 {} ms, p95 {} ms", figure(p50), figure(p95)),
    };
    (row, json!({"what": what, "p50": p50, "p95": p95, "p99": p99}))
}

/// RFC 3339.
fn second(since_midnight: u64) -> String {
    let micros = reading(0).micros + i64::try_from(since_midnight).unwrap() * 1_000_000;
    DateTime::from_timestamp_micros(micros).unwrap().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// One reading a device every second, from midnight on.
fn fill(postgres: &Postgres, rows: u64) {
    postgres.make_table();
    // Row by row, the indexes would take most of the time.
    postgres.execute(&format!(
        "alter table telemetry drop constraint telemetry_device_id_ts_key;
         drop index telemetry_ts_idx;
         insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'sensor-' || lpad((n % {DEVICES})::text, 4, '0'),
             '2025-06-01T00:00:00Z'::timestamptz + n / {DEVICES} * interval '1 second'
                 + n % {DEVICES} * interval '997 microseconds',
             10 + n % 2000 / 100.0, 30 + n % 5000 / 100.0, 10 + n % 8500 / 100.0
         from generate_series(0, {rows} - 1) as n;
         alter table telemetry add unique (device_id, ts);
         create index telemetry_ts_idx on telemetry (ts);
         insert into telemetry_devices
         select 'sensor-' || lpad(n::text, 4, '0') from generate_series(0, {DEVICES} - 1) as n"
    ));
    // As autovacuum would have done by then; and nothing of it is left to be written meanwhile.
    postgres.execute("vacuum analyze telemetry, telemetry_devices");
    postgres.execute("checkpoint");
}

/// So many more, of three readings each.
fn add_devices(postgres: &Postgres, devices: u64) {
    postgres.execute(&format!(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'more-' || lpad((n % {devices})::text, 6, '0'),
             '2025-07-01T00:00:00Z'::timestamptz + n * interval '1 millisecond', 20, 50, 90
         from generate_series(0, 3 * {devices} - 1) as n;
         insert into telemetry_devices
         select 'more-' || lpad(n::text, 6, '0') from generate_series(0, {devices} - 1) as n"
    ));
    postgres.execute("vacuum analyze telemetry, telemetry_devices");
    postgres.execute("checkpoint");
}

/// Follows the cursor from page to page, and then asks again for the first hundred and the last
/// hundred, taking turns.
fn pages(ingestor: &Ingestor, rows: u64) -> (Row, Value) {
    const LIMIT: u64 = 1_000;
    let count = usize::try_from((rows / LIMIT).min(1_000)).unwrap();
    let first = format!("/api/v1/telemetry?limit={LIMIT}");
    let (mut paths, mut times) = (vec![first.clone()], Vec::new());
    while times.len() < count {
        let (elapsed, page) = get(ingestor, &paths[times.len()]);
        times.push(elapsed);
        match page["next_cursor"].as_str() {
            Some(next) => paths.push(format!("{first}&cursor={next}")),
            None => break,
        }
    }
    let count = times.len();
    let few = (count / 4).clamp(1, 100);
    let again = |page: usize| get(ingestor, &paths[page]).0;
    let pairs: Vec<[f64; 2]> = (0..few)
        .map(|at| {
            let (shallow, deep) = (at, count - few + at);
            if at % 2 == 0 {
                [again(shallow), again(deep)]
            } else {
                let deep = again(deep);
                [again(shallow), deep]
            }
        })
        .collect();
    let [first, last] = [0, 1].map(|which| median(pairs.iter().map(|pair| pair[which])));
    let row = Row {
        what: format!("pages of {LIMIT} by cursor, {count} deep, against the first"),
        value: last / first,
        unit: "",
        bar: Some(Bar::AtMost(1.15)),
        detail: format!("{} / {} ms", figure(last), figure(first)),
    };
    (row, json!({"in_a_row_ms": times, "first_and_last_ms": pairs}))
}

/// Milliseconds until the whole answer was there, connecting included, and the answer.
pub(crate) fn get(ingestor: &Ingestor, path: &str) -> (f64, Value) {
    let started = Instant::now();
    let answer = ingestor.get(path);
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    let json = answer.json();
    assert!(!json["data"].as_array().unwrap().is_empty(), "{path} finds nothing");
    (elapsed, json)
}
