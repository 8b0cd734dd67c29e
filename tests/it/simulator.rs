//! The simulator: what it says it has published is what arrives.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::mosquitto::Certificates;
use crate::harness::{
    Ingestor, Mosquitto, PATIENCE, Postgres, Scratch, Service, Simulator, eventually, eventually_eq,
};

fn start() -> (Postgres, Mosquitto, Service, Ingestor) {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port);
    let mut ingestor = service.start();
    ingestor.await_ready();
    (postgres, broker, service, ingestor)
}

#[test]
fn it_publishes_exactly_as_many_messages_as_it_was_told() {
    let (postgres, broker, _service, ingestor) = start();
    let settings = [("MESSAGE_COUNT", "5003"), ("NUM_DEVICES", "50"), ("PUBLISH_INTERVAL_MS", "0")];
    let simulator = Simulator::start(broker.port, &settings);
    assert_eq!(simulator.finish(PATIENCE), (5_003, 5_003));
    postgres.await_count(5_003);
    assert_eq!(postgres.value("select count(distinct device_id) from telemetry"), 50);
    assert_eq!(ingestor.metric("ingestor_invalid_messages_total"), 0);
    assert_eq!(ingestor.metric("ingestor_duplicates_total"), 0);
}

#[test]
fn invalid_messages_are_as_frequent_as_asked_for_and_cost_no_good_one() {
    let (postgres, broker, _service, ingestor) = start();
    let settings = [
        ("MESSAGE_COUNT", "4000"),
        ("NUM_DEVICES", "40"),
        ("PUBLISH_INTERVAL_MS", "0"),
        ("INVALID_RATIO", "0.25"),
    ];
    let simulator = Simulator::start(broker.port, &settings);
    assert_eq!(simulator.finish(PATIENCE), (4_000, 4_000));
    eventually_eq("all of them are acknowledged", &4_000, || {
        ingestor.metric("ingestor_acks_total")
    });
    let metrics = ingestor.metrics();
    let invalid = metrics.get("ingestor_invalid_messages_total");
    assert!((800..=1_200).contains(&invalid), "{invalid} of 4000");
    assert_eq!(metrics.get("ingestor_valid_messages_total"), 4_000 - invalid);
    assert_eq!(metrics.get("ingestor_dead_letters"), invalid);
    postgres.await_count(usize::try_from(4_000 - invalid).unwrap());
    let reasons =
        metrics.with_prefix("ingestor_rejections_total{").filter(|(_, count)| *count > 0.0).count();
    assert!(reasons >= 10, "only {reasons} kinds of invalid messages");
}

#[test]
fn each_device_publishes_once_an_interval() {
    let (postgres, broker, _service, _ingestor) = start();
    let settings =
        [("MESSAGE_COUNT", "200"), ("NUM_DEVICES", "20"), ("PUBLISH_INTERVAL_MS", "100")];
    let started = Instant::now();
    let simulator = Simulator::start(broker.port, &settings);
    assert_eq!(simulator.finish(PATIENCE), (200, 200));
    // Ten rounds of 100 ms, the first of which may begin at once.
    assert!(started.elapsed() >= Duration::from_millis(850), "{:?}", started.elapsed());
    postgres.await_count(200);
    let most = "select max(n) from (select count(*) as n from telemetry group by device_id) as x";
    assert_eq!(postgres.value(most), 10);
}

#[test]
fn stopped_by_a_signal_it_waits_for_acknowledgements_and_sums_up() {
    let (postgres, broker, _service, mut ingestor) = start();
    for signal in [Signal::TERM, Signal::INT] {
        let before = ingestor.metric("ingestor_messages_total");
        let rows = postgres.count();
        let settings = [("NUM_DEVICES", "100"), ("PUBLISH_INTERVAL_MS", "20")];
        let simulator = Simulator::start(broker.port, &settings);
        ingestor.await_metric("ingestor_messages_total", before + 1_000);
        simulator.process.signal(signal);
        let (published, acked) = simulator.finish(PATIENCE);
        assert_eq!(published, acked);
        postgres.await_count(rows + usize::try_from(published).unwrap());
    }
}

#[test]
fn it_waits_for_a_broker_that_is_down_and_goes_on_when_one_restarts() {
    let (postgres, mut broker, _service, mut ingestor) = start();
    broker.stop();
    let settings =
        [("MESSAGE_COUNT", "6000"), ("NUM_DEVICES", "100"), ("PUBLISH_INTERVAL_MS", "50")];
    let mut simulator = Simulator::start(broker.port, &settings);
    eventually("it says that there is no broker", || {
        simulator.process.log().contains("no connection").then_some(())
    });
    broker.launch();
    ingestor.await_metric("ingestor_messages_total", 1_000);
    broker.stop();
    simulator.process.must_run();
    broker.launch();
    assert_eq!(simulator.finish(PATIENCE), (6_000, 6_000));
    postgres.await_count(6_000);
}

#[test]
fn it_trusts_the_authority_it_was_given() {
    let files = Scratch::new();
    let certificates = Certificates::make(files.path());
    let broker = Mosquitto::configured(|port, _| {
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\ncertfile {}\nkeyfile {}\n",
            certificates.server.display(),
            certificates.server_key.display()
        )
    });
    let ca = certificates.ca.to_str().unwrap();
    let settings = [("MQTT_CA_FILE", ca), ("MESSAGE_COUNT", "1000"), ("PUBLISH_INTERVAL_MS", "0")];
    assert_eq!(Simulator::start(broker.port, &settings).finish(PATIENCE), (1_000, 1_000));
}
