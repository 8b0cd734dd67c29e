//! A publisher at full speed, everything at once on one machine, up to the table.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bare::Subscriber;
use crate::harness::postgres::Fsync;
use crate::harness::{Mosquitto, PATIENCE, Postgres, Service, eventually_eq};
use crate::plan::Plan;
use crate::report::{Bar, Findings, Row, figure, median};
use crate::{load, usage};

const MESSAGES: u64 = 400_000;

#[derive(Clone, Copy, serde::Serialize)]
struct Run {
    messages_per_second: f64,
    /// Processor time a message: of the broker, the subscriber and, if there is one, PostgreSQL.
    cpu_micros: [f64; 3],
}

pub(crate) fn run(plan: &Plan) -> Findings {
    let messages = plan.scaled(MESSAGES);
    let mut postgres = Postgres::prepare(Fsync::On);
    postgres.launch();
    let (ours, bare) = plan.alternate(|| ours(&postgres, messages), || bare(messages));
    let speeds = [&ours, &bare].map(|runs| median(runs.iter().map(|run| run.messages_per_second)));
    let costs = [0, 1, 2].map(|of| figure(median(ours.iter().map(|run| run.cpu_micros[of]))));
    let [broker, ingestor, database] = costs;
    let rows = vec![Row {
        what: "messages a second into the table, against a subscriber without a database"
            .to_owned(),
        value: speeds[0] / speeds[1],
        unit: "",
        bar: Some(Bar::AtLeast(0.80)),
        detail: format!(
            "{} / {} msg/s; a message takes {broker} µs of the broker, {ingestor} of the ingestor, \
             {database} of PostgreSQL",
            figure(speeds[0]),
            figure(speeds[1])
        ),
    }];
    Findings { rows, figures: json!({"messages": messages, "ours": ours, "bare": bare}) }
}

fn ours(postgres: &Postgres, messages: u64) -> Run {
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    eventually_eq("the database is up", &1, || ingestor.metric("ingestor_db_up"));
    postgres.execute("truncate telemetry");
    let pids = [broker.pid(), ingestor.pid(), postgres.pid()];
    let before = pids.map(usage::cpu_of_family);
    let started = Instant::now();
    let simulator = load::simulate(broker.port, messages);
    load::await_counter(&mut ingestor, "ingestor_db_inserts_total", messages);
    let elapsed = started.elapsed();
    let run = Run::new(messages, elapsed, before, pids.map(usage::cpu_of_family));
    assert_eq!(simulator.finish(PATIENCE).1, messages);
    assert_eq!(postgres.count() as u64, messages);
    run
}

fn bare(messages: u64) -> Run {
    let broker = Mosquitto::start();
    let mut subscriber = Subscriber::start(broker.port, messages);
    subscriber.await_subscribed();
    let pids = [broker.pid(), subscriber.process.pid()];
    let cpu = || {
        let [broker, subscriber] = pids.map(usage::cpu_of_family);
        [broker, subscriber, Duration::ZERO]
    };
    let before = cpu();
    let started = Instant::now();
    let simulator = load::simulate(broker.port, messages);
    subscriber.await_acked();
    let elapsed = started.elapsed();
    let run = Run::new(messages, elapsed, before, cpu());
    assert_eq!(simulator.finish(PATIENCE).1, messages);
    run
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
    fn new(messages: u64, elapsed: Duration, before: [Duration; 3], after: [Duration; 3]) -> Self {
        let micros =
            |of: usize| after[of].saturating_sub(before[of]).as_secs_f64() * 1e6 / messages as f64;
        Self {
            messages_per_second: messages as f64 / elapsed.as_secs_f64(),
            cpu_micros: [0, 1, 2].map(micros),
        }
    }
}
