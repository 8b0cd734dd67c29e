//! A table as a file, and that file put into an empty database: CSV and NDJSON, and the same rows in the end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;

use crate::answers::{figure_of, memory};
use crate::harness::postgres::Fsync;
use crate::harness::{
    Ingestor, PATIENCE, Postgres, Service, eventually, eventually_eq, ports, within,
};
use crate::plan::Plan;
use crate::report::{Bar, Findings, Row, median};

const ROWS: u64 = 1_000_000;
const TOKEN: &str = "token-of-the-benchmark";
const SUM: &str = "select coalesce(sum(hashtextextended(concat_ws(' ', device_id, ts, temperature,
    humidity, battery), 0)), 0)::text from telemetry";

#[derive(serde::Serialize)]
struct Round {
    out: f64,
    /// Memory that the service has taken for it, at most.
    mib: f64,
    back: f64,
}

pub(crate) fn run(plan: &Plan) -> Findings {
    let count = plan.scaled(ROWS);
    let mut postgres = Postgres::prepare(Fsync::On);
    postgres.launch();
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for (name, format) in [("CSV", "csv"), ("NDJSON", "ndjson")] {
        let rounds: Vec<Round> =
            (0..plan.rounds).map(|_| round(&postgres, count, format, &mut rows)).collect();
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        let row = |what: &str, value, unit, bar| Row {
            what: format!("{} rows {what}, {name}", figure_of(count)),
            value,
            unit,
            bar: Some(bar),
            detail: String::new(),
        };
        rows.push(row("out", of(|round| round.out), " rows/s", Bar::AtLeast(300_000.0)));
        rows.push(row("out, memory for it", of(|round| round.mib), " MiB", Bar::AtMost(32.0)));
        rows.push(row("in", of(|round| round.back), " rows/s", Bar::AtLeast(50_000.0)));
        figures.push(json!({"format": format, "rounds": rounds}));
    }
    Findings { rows, figures: json!({"rows": count, "formats": figures}) }
}

/// Takes a table out into a file, and the file into an empty database.
fn round(postgres: &Postgres, count: u64, format: &str, rows: &mut Vec<Row>) -> Round {
    fill(postgres, count);
    let service = Service::new(&postgres.url(), ports::free()).set("ADMIN_TOKEN", TOKEN);
    let ingestor = service.start();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    eventually("the table is there", || {
        (ingestor.get("/api/v1/telemetry?limit=1").status == 200).then_some(())
    });
    let path = service.dir().join(format!("telemetry.{format}"));
    let mut file = File::create(&path).unwrap();
    let (before, started) = (ingestor.peak_memory(), Instant::now());
    take_out(&ingestor, &format!("/api/v1/telemetry?format={format}&limit={count}"), &mut file);
    let out = started.elapsed();
    let taken = ingestor.peak_memory() - before;
    let sum = postgres.session().text(SUM);
    // Otherwise what the log still has counts as well.
    drop(ingestor);
    postgres.execute("truncate telemetry, telemetry_devices");
    let service = Service::new(&postgres.url(), ports::free()).set("ADMIN_TOKEN", TOKEN);
    let ingestor = service.start();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    let here = service.clone().set("HTTP_ADDR", ingestor.address());
    let started = Instant::now();
    let import = here.run(env!("CARGO_BIN_EXE_ingestor"), &["import", &path.display().to_string()]);
    let back = started.elapsed();
    assert!(import.status.success(), "{import:?}");
    within(PATIENCE * 4, "nothing waits", || {
        (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
    });
    assert_eq!(postgres.session().text(SUM), sum, "the same rows");
    if rows.is_empty() {
        rows.push(memory(&ingestor, "peak memory of an import"));
    }
    ingestor.stop();
    #[expect(clippy::cast_precision_loss, reason = "counts of rows and bytes")]
    let (count, mib) = (count as f64, taken as f64 / f64::from(1 << 20));
    Round { out: count / out.as_secs_f64(), mib, back: count / back.as_secs_f64() }
}

/// A thousand devices, in the order of time.
fn fill(postgres: &Postgres, count: u64) {
    postgres.execute("drop table if exists telemetry, telemetry_devices, _iot_ingestor_progress, _iot_ingestor_migrations");
    postgres.make_table();
    postgres.execute(&format!(
        "insert into telemetry (device_id, ts, temperature, humidity, battery)
         select 'sensor-' || lpad((n % 1000)::text, 4, '0'),
             '2025-06-01T00:00:00Z'::timestamptz + n * interval '997 microseconds',
             10 + n % 2000 / 100.0, 30 + n % 5000 / 100.0, 10 + n % 8500 / 100.0
         from generate_series(0, {count} - 1) as n;
         insert into telemetry_devices
         select 'sensor-' || lpad(n::text, 4, '0') from generate_series(0, 999) as n"
    ));
    postgres.execute("vacuum analyze telemetry, telemetry_devices");
    postgres.execute("checkpoint");
}

/// Writes the body of the answer into the file.
fn take_out(ingestor: &Ingestor, path: &str, file: &mut File) {
    // Of HTTP 1.0 as nothing else, the body is all that comes, until the connection ends.
    let head = format!("GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n");
    let mut stream = TcpStream::connect(ingestor.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains(" 200 "), "{head}");
    let mut block = vec![0; 1 << 16];
    loop {
        match stream.read(&mut block).unwrap() {
            0 => break,
            read => file.write_all(&block[..read]).unwrap(),
        }
    }
}
