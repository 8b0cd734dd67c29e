//! A backlog in the broker, drained into the log while the database is down.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bare::Subscriber;
use crate::harness::{Mosquitto, PATIENCE, Service, ports};
use crate::load;
use crate::plan::Plan;
use crate::report::{Bar, Findings, Row, figure, median};
use crate::usage;

const MESSAGES: u64 = 400_000;

/// How one of the two did, from the start of its process to its last acknowledgement.
#[derive(Clone, Copy, serde::Serialize)]
struct Run {
    messages_per_second: f64,
    cpu_micros_per_message: f64,
    /// Of the broker, which has one thread.
    broker_busy: f64,
}

pub(crate) fn run(plan: &Plan) -> Findings {
    let messages = plan.scaled(MESSAGES);
    let (ours, bare) = plan.alternate(|| ours(messages), || bare(messages));
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value));
    let speeds = [&ours, &bare].map(|runs| of(runs, |run| run.messages_per_second));
    let costs = [&ours, &bare].map(|runs| of(runs, |run| run.cpu_micros_per_message));
    let busy = [&ours, &bare].map(|runs| of(runs, |run| run.broker_busy) * 100.0);
    let rows = vec![
        Row {
            what: "messages a second, against a subscriber that only counts".to_owned(),
            value: speeds[0] / speeds[1],
            unit: "",
            bar: Some(Bar::AtLeast(0.80)),
            detail: format!(
                "{} / {} msg/s; the broker was busy for {:.0} / {:.0} % of that time",
                figure(speeds[0]),
                figure(speeds[1]),
                busy[0],
                busy[1]
            ),
        },
        Row {
            what: "processor time a message, against the same".to_owned(),
            value: costs[0] / costs[1],
            unit: "",
            bar: Some(Bar::AtMost(1.6)),
            detail: format!("{} / {} µs", figure(costs[0]), figure(costs[1])),
        },
    ];
    Findings { rows, figures: json!({"messages": messages, "ours": ours, "bare": bare}) }
}

/// A database that is not there.
pub(crate) fn no_database() -> String {
    format!("postgres://iot@127.0.0.1:{}/iotdb", ports::free())
}

fn ours(messages: u64) -> Run {
    let broker = Mosquitto::start();
    let service = Service::new(&no_database(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    ingestor.stop();
    fill(&broker, messages);
    let (started, before) = (Instant::now(), usage::cpu(broker.pid()));
    let mut ingestor = service.start();
    load::await_counter(&mut ingestor, "ingestor_acks_total", messages);
    let elapsed = started.elapsed();
    let broker_cpu = usage::cpu(broker.pid()).saturating_sub(before);
    Run::new(messages, elapsed, usage::cpu(ingestor.pid()), broker_cpu)
}

fn bare(messages: u64) -> Run {
    let broker = Mosquitto::start();
    Subscriber::start(broker.port, messages).await_subscribed();
    fill(&broker, messages);
    let (started, before) = (Instant::now(), usage::cpu(broker.pid()));
    let mut subscriber = Subscriber::start(broker.port, messages);
    subscriber.await_acked();
    let elapsed = started.elapsed();
    let broker_cpu = usage::cpu(broker.pid()).saturating_sub(before);
    Run::new(messages, elapsed, usage::cpu(subscriber.process.pid()), broker_cpu)
}

fn fill(broker: &Mosquitto, messages: u64) {
    let (_, acked) = load::simulate(broker.port, messages).finish(PATIENCE * 4);
    assert_eq!(acked, messages);
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "a count of messages")]
    fn new(messages: u64, elapsed: Duration, cpu: Duration, broker_cpu: Duration) -> Self {
        Self {
            messages_per_second: messages as f64 / elapsed.as_secs_f64(),
            cpu_micros_per_message: cpu.as_secs_f64() * 1e6 / messages as f64,
            broker_busy: broker_cpu.as_secs_f64() / elapsed.as_secs_f64(),
        }
    }
}
