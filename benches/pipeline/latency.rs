//! From publish to PUBACK and to visible row, at a steady 2,000 messages a second.

use serde_json::json;

use crate::harness::postgres::Fsync;
use crate::harness::{Mosquitto, Postgres, Service, eventually_eq, reading, visible};
use crate::plan::Plan;
use crate::plots;
use crate::proxy::Proxy;
use crate::report::{Bar, Findings, Row, figure, median, percentile, sorted};

const PER_SECOND: u64 = 2_000;
const WARM_UP: u64 = 2 * PER_SECOND;
const MEASURED: u64 = 10 * PER_SECOND;

/// Latencies of one round, in milliseconds, in order.
struct Round {
    acked: Vec<f64>,
    visible: Vec<f64>,
}

pub(crate) fn run(plan: &Plan) -> Findings {
    let mut postgres = Postgres::prepare(Fsync::On);
    postgres.launch();
    let count = plan.scaled(MEASURED);
    let (by_default, at_5_ms) =
        plan.alternate(|| round(&postgres, "50", count), || round(&postgres, "5", count));
    let rows = [("by default", &by_default, 65.0), ("with BATCH_TIMEOUT_MS=5", &at_5_ms, 20.0)]
        .into_iter()
        .flat_map(|(settings, rounds, bar)| {
            [
                row(format!("publish to PUBACK, p95, {settings}"), rounds, |r| &r.acked, None),
                row(
                    format!("publish to visible row, p95, {settings}"),
                    rounds,
                    |r| &r.visible,
                    Some(Bar::AtMost(bar)),
                ),
            ]
        })
        .collect();
    let all = |rounds: &[Round], of: fn(&Round) -> &Vec<f64>| {
        rounds.iter().flat_map(|round| of(round).iter().copied()).collect::<Vec<f64>>()
    };
    let series = [
        ("PUBACK", all(&by_default, |round| &round.acked)),
        ("row visible, by default", all(&by_default, |round| &round.visible)),
        ("row visible, BATCH_TIMEOUT_MS=5", all(&at_5_ms, |round| &round.visible)),
    ];
    plots::latency(&plan.out.join("latency.svg"), &series);
    let figures = |rounds: &[Round]| -> serde_json::Value {
        let four = |all: &Vec<f64>| [50.0, 95.0, 99.0, 100.0].map(|p| percentile(all, p));
        rounds
            .iter()
            .map(|round| json!({"acked": four(&round.acked), "visible": four(&round.visible)}))
            .collect()
    };
    let figures = json!({
        "percentiles": ["p50", "p95", "p99", "max"], "messages": count,
        "by_default": figures(&by_default), "at_5_ms": figures(&at_5_ms),
    });
    Findings { rows, figures }
}

fn row(what: String, rounds: &[Round], of: fn(&Round) -> &Vec<f64>, bar: Option<Bar>) -> Row {
    let at = |percent: f64| median(rounds.iter().map(|round| percentile(of(round), percent)));
    let [p50, p99, most] = [50.0, 99.0, 100.0].map(|percent| figure(at(percent)));
    let detail = format!("p50 {p50} ms, p99 {p99} ms, most {most} ms");
    Row { what, value: at(95.0), unit: " ms", bar, detail }
}

fn round(postgres: &Postgres, batch_timeout_ms: &str, count: u64) -> Round {
    let broker = Mosquitto::start();
    let proxy = Proxy::start(broker.port);
    let service =
        Service::new(&postgres.url(), proxy.port).set("BATCH_TIMEOUT_MS", batch_timeout_ms);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    postgres.execute("truncate telemetry");
    let seen = visible::watch(broker.port, postgres, PER_SECOND, WARM_UP + count);
    ingestor.stop();
    let acks = proxy.acks.lock().unwrap();
    let measured = || (0_u64..).zip(&seen).skip(usize::try_from(WARM_UP).unwrap());
    let acked = measured().map(|(number, seen)| acks[&reading(number).micros] - seen.published);
    Round {
        acked: sorted(acked.map(|latency| latency.as_secs_f64() * 1e3)),
        visible: sorted(measured().map(|(_, seen)| seen.latency().as_secs_f64() * 1e3)),
    }
}
