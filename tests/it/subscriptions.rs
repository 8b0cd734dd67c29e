//! Which filters are asked for, and what becomes of those that are not granted.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Mosquitto, Postgres, Publisher, ScriptedBroker, Service, eventually, eventually_eq, readings,
};

const REFUSED: u8 = 0x80;

fn on(broker: &ScriptedBroker) -> Service {
    Service::new("postgres://iot:x@127.0.0.1:1/iotdb", broker.port)
}

#[test]
fn a_filter_that_is_refused_makes_unready_and_is_asked_for_again_until_it_is_granted() {
    let broker = ScriptedBroker::start();
    let ingestor = on(&broker).set("MQTT_TOPIC", "a/#,b/#").start();
    let mut link = broker.accept_granting(false, &[1, REFUSED]);
    eventually_eq("it is unsubscribed", &json!("unsubscribed"), || {
        ingestor.health()["mqtt"].clone()
    });
    let answer = ingestor.get("/health/ready");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("not_ready")));
    assert_eq!(ingestor.metric("ingestor_mqtt_connected"), 1);
    let report = eventually("it says so", || ingestor.log_of("the broker refused").pop());
    assert_eq!(report["filter"], "b/#");
    link.grant(&[REFUSED]);
    link.serve_until("the second SUBSCRIBE", |link| link.filters.len() == 3);
    link.grant(&[1]);
    link.serve_until("the third SUBSCRIBE", |link| link.filters.len() == 4);
    assert_eq!(link.filters[2..], ["b/#", "b/#"]);
    eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
    assert_eq!(ingestor.await_log_of("the broker refused").len(), 1);
}

#[test]
fn a_session_that_is_known_is_asked_only_for_what_it_lacks_and_gives_up_what_is_not_wanted() {
    let broker = ScriptedBroker::start();
    let service = on(&broker);
    let ingestor = service.clone().set("MQTT_TOPIC", "a/#,b/#").start();
    let link = broker.accept(false);
    assert_eq!(link.filters, ["a/#", "b/#"]);
    eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
    drop(link);
    let mut link = broker.accept(true);
    eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
    assert!(!link.ping(Duration::from_millis(300)) && link.filters.is_empty());
    ingestor.stop();

    let ingestor = service.clone().set("MQTT_TOPIC", "a/#,c/#").start();
    let mut link = broker.accept(true);
    link.serve_until("UNSUBSCRIBE", |link| !link.dropped.is_empty());
    link.serve_until("SUBSCRIBE", |link| !link.filters.is_empty());
    assert_eq!((&link.dropped[..], &link.filters[..]), (&["b/#".into()][..], &["c/#".into()][..]));
    eventually("it says so", || ingestor.log_of("unsubscribed from").pop());
    eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
    ingestor.stop();

    // The session of another client id is another one.
    let _ingestor = service.set("MQTT_CLIENT_ID", "another").set("MQTT_TOPIC", "a/#").start();
    let mut link = broker.accept(true);
    link.serve_until("SUBSCRIBE", |link| !link.filters.is_empty());
    assert_eq!(link.filters, ["a/#"]);
}

#[test]
fn a_retained_message_that_is_bad_makes_one_letter_however_often_we_connect() {
    let postgres = Postgres::start();
    let broker = Mosquitto::start();
    let retained = std::process::Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1", "-r"])
        .args(["-t", "telemetry/x", "-m", "not a reading"])
        .status();
    assert!(retained.unwrap().success());
    let service = Service::new(&postgres.url(), broker.port);
    for _ in 0..3 {
        let mut ingestor = service.start();
        ingestor.await_ready();
        eventually_eq("there is a letter", &1, || service.dead_letters().len());
        Publisher::connect(broker.port).publish_readings(0..1);
        ingestor.await_metric("ingestor_valid_messages_total", 1);
        ingestor.stop();
    }
    assert_eq!(service.dead_letters().len(), 1);
}

/// While the ingestor is away the broker restarts, and devices publish before and after.
fn rows_after_a_restart_of_the_broker(filters: &str) -> usize {
    let postgres = Postgres::start();
    let mut broker = Mosquitto::start();
    let service = Service::new(&postgres.url(), broker.port).set("MQTT_TOPIC", filters);
    let mut ingestor = service.start();
    ingestor.await_ready();
    ingestor.stop();
    Publisher::connect(broker.port).publish_readings(0..50);
    broker.stop();
    broker.launch();
    Publisher::connect(broker.port).publish_readings(50..100);
    let mut ingestor = service.start();
    ingestor.await_ready();
    Publisher::connect(broker.port).publish_readings(100..101);
    ingestor.await_metric("ingestor_valid_messages_total", 1);
    eventually("the last reading is stored", || {
        (ingestor.metric("ingestor_wal_pending_records") == 0).then_some(())
    });
    if filters.contains("$share") {
        assert_eq!(ingestor.await_log_of("MQTT_TOPIC=$share").len(), 1);
    } else {
        postgres.await_exactly(&readings(0..101));
    }
    postgres.count()
}

#[test]
fn plain_filters_lose_nothing_when_the_broker_restarts_while_the_ingestor_is_away() {
    // The alternatives to a shared subscription: everything, or filters of one's own.
    assert_eq!(rows_after_a_restart_of_the_broker("telemetry/#"), 101);
    assert_eq!(rows_after_a_restart_of_the_broker("telemetry/+,other/#"), 101);
}

#[test]
fn a_shared_subscription_comes_back_after_a_restart_of_mosquitto_which_has_forgotten_it() {
    let rows = rows_after_a_restart_of_the_broker("$share/group/telemetry/#");
    assert!((1..=101).contains(&rows), "{rows}");
}

#[test]
fn what_a_shared_subscription_costs_is_said_before_the_start_as_well() {
    let warned = |filters: &str| {
        let service = Service::bare().set("MQTT_TOPIC", filters);
        let output = service.run(env!("CARGO_BIN_EXE_ingestor"), &["check-config"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stderr).matches("is a shared subscription").count()
    };
    assert_eq!(warned("telemetry/#,$share/a/b/#,$share/c/d"), 2);
    assert_eq!(warned("telemetry/#,share/a"), 0);
}

/// Two mappings, one of whose filters another one covers.
const MAPPINGS: &str = r#"
[[default.mapping]]
name   = "all"
topic  = ["house/{device...}", "$share/g/shared/{device}"]
device = "{device}"
time   = { path = "at" }
fields = ["power"]
[[default.mapping]]
name   = "one"
topic  = "house/kitchen/{x}"
device = "{x}"
time   = { path = "at" }
fields = ["power"]
"#;

#[test]
fn the_topics_of_mappings_are_asked_for_but_for_those_that_another_brings_and_given_up_with_them() {
    let broker = ScriptedBroker::start();
    let service = on(&broker);
    let file = service.dir().join("Mappings.toml");
    let service = service.set("ROCKET_CONFIG", file.display());
    std::fs::write(&file, MAPPINGS).unwrap();
    let ingestor = service.start();
    let link = broker.accept_granting(false, &[1, 1, 1]);
    assert_eq!(link.filters, ["telemetry/#", "house/#", "$share/g/shared/+"]);
    ingestor.await_log_of("mapping \"all\": topic $share/g/shared/+ is a shared subscription");
    eventually_eq("it is ready", &200, || ingestor.get("/health/ready").status);
    ingestor.stop();

    let wide =
        MAPPINGS.replace("house/{device...}\", \"$share/g/shared/{device}", "house/{device}");
    std::fs::write(&file, wide).unwrap();
    let ingestor = service.start();
    let mut link = broker.accept(true);
    link.serve_until("what has changed", |link| link.dropped.len() == 2 && link.filters.len() == 2);
    let mut dropped = link.dropped.clone();
    dropped.sort();
    assert_eq!(dropped, ["$share/g/shared/+", "house/#"]);
    assert_eq!(link.filters, ["house/+", "house/kitchen/+"]);
    ingestor.stop();
}

#[test]
fn what_comes_with_qos_0_is_stored_counted_and_shown() {
    let (postgres, broker) = (Postgres::start(), Mosquitto::start());
    let mut ingestor = Service::new(&postgres.url(), broker.port).start();
    ingestor.await_ready();
    let reading =
        r#"{"device_id":"a","timestamp":1759667696000,"temperature":1,"humidity":2,"battery":3}"#;
    let published = std::process::Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "0"])
        .args(["-t", "telemetry/x", "-m", reading])
        .status();
    assert!(published.unwrap().success());
    postgres.await_count(1);
    Publisher::connect(broker.port).publish_readings(0..1);
    postgres.await_count(2);
    assert_eq!(ingestor.metric("ingestor_qos0_messages_total"), 1);
    assert_eq!(ingestor.metric("ingestor_messages_total"), 2);
    assert_eq!(ingestor.get("/api/v1/status").json()["broker"]["qos0_messages"], 1);
}
