//! A backlog of rows of a mapping, drained into their table, against one of readings of the built-in shape.

use std::fmt::Write as _;

use serde_json::json;

use crate::drain::{drain, fill};
use crate::harness::postgres::Fsync;
use crate::harness::{Mosquitto, Postgres, Publisher, Reading, Service, eventually_eq};
use crate::load;
use crate::plan::Plan;
use crate::report::{Bar, Findings, Row, figure, median};

const RECORDS: u64 = 1_000_000;

/// Readings in one message, just under the 64 KiB that are accepted.
const READINGS_A_MESSAGE: usize = 500;

/// Five floats.
const MAPPING: &str = r#"
[[default.mapping]]
name   = "five"
topic  = "five/#"
each   = "[*]"
device = "{.d}"
time   = { path = "t", format = "us" }
table  = "five"
fields = ["a", "b", "c", "d4", "e"]
"#;

pub(crate) fn run(plan: &Plan) -> Findings {
    let records = plan.scaled(RECORDS);
    let mut postgres = Postgres::prepare(Fsync::On);
    postgres.launch();
    make_tables(&postgres);
    let mapped = fill(records, configure, |port| publish_mapped(port, records));
    let built_in = fill(records, |service| service, |port| load::publish_arrays(port, 0..records));
    let empty = || postgres.execute("truncate telemetry, five; checkpoint");
    let (mapped, built_in) = plan.alternate(
        || {
            empty();
            drain(&postgres, &mapped, records, "five")
        },
        || {
            empty();
            drain(&postgres, &built_in, records, "telemetry")
        },
    );
    let speeds = [&mapped, &built_in].map(|all| median(all.iter().copied()));
    let rows = vec![Row {
        what: "rows of five floats a second, against readings of the built-in shape".to_owned(),
        value: speeds[0] / speeds[1],
        unit: "",
        bar: Some(Bar::AtLeast(0.8)),
        detail: format!("{} / {} rows/s", figure(speeds[0]), figure(speeds[1])),
    }];
    Findings { rows, figures: json!({"records": records, "mapped": mapped, "built_in": built_in}) }
}

fn configure(service: Service) -> Service {
    let file = service.dir().join("Five.toml");
    std::fs::write(&file, MAPPING).unwrap();
    service.set("ROCKET_CONFIG", file.display())
}

/// As the service makes them.
fn make_tables(postgres: &Postgres) {
    let broker = Mosquitto::start();
    let ingestor = configure(Service::new(&postgres.url(), broker.port)).start();
    eventually_eq("the tables are there", &1, || ingestor.metric("ingestor_db_up"));
    ingestor.stop();
}

/// The same devices, times and values, and two more.
fn publish_mapped(port: u16, records: u64) {
    let mut publisher = Publisher::connect(port);
    let numbers: Vec<u64> = (0..records).collect();
    for numbers in numbers.chunks(READINGS_A_MESSAGE) {
        let mut message = String::from("[");
        for number in numbers {
            let Reading { device_id, micros, temperature, humidity, battery } =
                load::sample(*number);
            let (fourth, fifth) = (temperature + 1.0, humidity + 1.0);
            let comma = if message.len() > 1 { "," } else { "" };
            write!(
                message,
                r#"{comma}{{"d":"{device_id}","t":{micros},"a":{temperature:.2},"b":{humidity:.2},"c":{battery:.2},"d4":{fourth:.2},"e":{fifth:.2}}}"#
            )
            .unwrap();
        }
        message.push(']');
        publisher.publish("five/gateway", message);
    }
    publisher.finish();
}
