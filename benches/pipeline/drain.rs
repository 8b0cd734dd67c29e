//! A backlog in the log, drained into PostgreSQL: into the table as this release makes it, against a bare loop
//! that fills that of the first.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::postgres::Fsync;
use crate::harness::scratch::copy;
use crate::harness::{Mosquitto, Postgres, Reading, Service, ports};
use crate::plan::Plan;
use crate::report::{Bar, Findings, Row, figure, median};
use crate::{bare, ingest, load};

const RECORDS: u64 = 1_000_000;
const FIRST_RELEASE: &str = include_str!("../../migrations/0001_telemetry.sql");

pub(crate) fn run(plan: &Plan) -> Findings {
    let records = plan.scaled(RECORDS);
    let publish = |port| load::publish_arrays(port, 0..records);
    let filled = fill(records, |service| service, publish);
    let readings: Vec<Reading> = (0..records).map(load::sample).collect();
    let mut postgres = Postgres::prepare(Fsync::On);
    postgres.launch();
    let clear = "drop table if exists telemetry, telemetry_devices, _iot_ingestor_progress, \
         _iot_ingestor_migrations";
    let empty = || {
        postgres.execute(clear);
        postgres.execute("checkpoint");
    };
    let (ours, bare) = plan.alternate(
        || {
            empty();
            drain(&postgres, &filled, records, "telemetry")
        },
        || {
            empty();
            postgres.execute(FIRST_RELEASE);
            per_second(records, bare::insert(&postgres.url(), &readings))
        },
    );
    let speeds = [&ours, &bare].map(|all| median(all.iter().copied()));
    let rows = vec![Row {
        what: "rows a second, against a loop of inserts of 2,000 into the first release's table"
            .to_owned(),
        value: speeds[0] / speeds[1],
        unit: "",
        bar: Some(Bar::AtLeast(1.8)),
        detail: format!("{} / {} rows/s", figure(speeds[0]), figure(speeds[1])),
    }];
    Findings { rows, figures: json!({"records": records, "ours": ours, "bare": bare}) }
}

/// A service that has so many records in its log, and does not run.
pub(crate) fn fill(
    records: u64,
    configure: impl FnOnce(Service) -> Service,
    publish: impl FnOnce(u16),
) -> Service {
    let broker = Mosquitto::start();
    let service = configure(Service::new(&ingest::no_database(), broker.port));
    let mut ingestor = service.start();
    ingestor.await_ready();
    publish(broker.port);
    load::await_counter(&mut ingestor, "ingestor_valid_messages_total", records);
    ingestor.stop();
    service
}

#[expect(clippy::cast_precision_loss, reason = "a count of records")]
fn per_second(records: u64, elapsed: Duration) -> f64 {
    records as f64 / elapsed.as_secs_f64()
}

/// Rows a second from the start of the process to the last row.
pub(crate) fn drain(postgres: &Postgres, filled: &Service, records: u64, table: &str) -> f64 {
    let service = Service::new(&postgres.url(), ports::free());
    copy(&filled.wal_dir(), &service.wal_dir());
    let started = Instant::now();
    let mut ingestor = service.start();
    load::await_counter(&mut ingestor, "ingestor_db_inserts_total", records);
    let elapsed = started.elapsed();
    let rows = postgres.value(&format!("select count(*) from {table}"));
    assert_eq!(rows, records.cast_signed());
    per_second(records, elapsed)
}
