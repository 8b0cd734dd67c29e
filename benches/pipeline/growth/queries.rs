//! How long the API takes to answer.

use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use super::table::{Grown, Spread};
use crate::harness::{Ingestor, Service, eventually_eq, ports};
use crate::query::get;
use crate::report::{percentile, sorted};

/// Of each kind, before any is measured.
const WARMING: usize = 10;

/// Of one table.
pub(super) struct Answers {
    pub(super) what: String,
    pub(super) kinds: Vec<Kind>,
}

#[derive(serde::Serialize)]
pub(super) struct Kind {
    pub(super) what: &'static str,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
}

impl Answers {
    pub(super) fn slowest(&self) -> &Kind {
        self.kinds.iter().max_by(|a, b| a.p99.total_cmp(&b.p99)).unwrap()
    }

    pub(super) fn figures(&self) -> Value {
        json!({"table": self.what, "kinds": self.kinds})
    }
}

/// Asks a service on this table, so often of each kind. It would change that of the first release.
pub(super) fn ask(grown: &Grown, what: String, requests: usize) -> Answers {
    eprintln!("growth: questions of {what}");
    let service = Service::new(&grown.postgres.url(), ports::free());
    let ingestor = service.start();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    // The same requests in every run.
    fastrand::seed(1);
    let Grown { spread, rows, .. } = grown;
    let telemetry = "/api/v1/telemetry";
    let number = || fastrand::u64(rows / 10..*rows);
    let device = || spread.device(number());
    let cursors: Vec<String> = (0..WARMING).map(|_| cursor(&ingestor, *spread, number())).collect();
    let kinds: [(&'static str, &dyn Fn() -> String); 9] = [
        ("the newest 100", &|| telemetry.to_owned()),
        ("the newest 1,000", &|| format!("{telemetry}?limit=1000")),
        ("a device's newest 100", &|| format!("{telemetry}?device_id={}", device())),
        ("a device's week", &|| {
            let number = number();
            let week = span(*spread, number, TimeDelta::days(7));
            format!("{telemetry}?device_id={}&{week}&limit=1000", spread.device(number))
        }),
        ("a minute of all devices", &|| {
            format!("{telemetry}?{}", span(*spread, number(), TimeDelta::minutes(1)))
        }),
        ("a page by cursor", &|| {
            format!("{telemetry}?cursor={}", fastrand::choice(&cursors).unwrap())
        }),
        ("100 devices", &|| {
            format!("/api/v1/devices?offset={}", fastrand::u64(..spread.devices / 100) * 100)
        }),
        ("the newest 100 devices", &|| "/api/v1/devices?newest_first=true".to_owned()),
        ("devices by a part of the name", &|| {
            format!("/api/v1/devices?name_contains={:04}", fastrand::u64(..1_000))
        }),
    ];
    let kinds = kinds.map(|(what, path)| {
        for _ in 0..WARMING {
            get(&ingestor, &path());
        }
        let times = sorted((0..requests).map(|_| get(&ingestor, &path()).0));
        let [p50, p95, p99] = [50.0, 95.0, 99.0].map(|percent| percentile(&times, percent));
        Kind { what, p50, p95, p99 }
    });
    Answers { what, kinds: kinds.into() }
}

/// What ends with this reading.
fn span(spread: Spread, number: u64, length: TimeDelta) -> String {
    let end = spread.at(number);
    let [start, end] =
        [end - length, end].map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true));
    format!("start={start}&end={end}")
}

/// That goes on behind this reading.
fn cursor(ingestor: &Ingestor, spread: Spread, number: u64) -> String {
    let span = span(spread, number, TimeDelta::days(1));
    let (_, page) = get(ingestor, &format!("/api/v1/telemetry?{span}&limit=1"));
    page["next_cursor"].as_str().unwrap().to_owned()
}
