//! A broker that is set up badly is said to be so, once and clearly; a good one never is.

use std::net::TcpStream;
use std::time::Duration;

use crate::harness::wire::{Packet, Stream};
use crate::harness::{
    Ingestor, Load, Mosquitto, Publisher, ScriptedBroker, Service, eventually, eventually_eq,
    reading,
};

const SESSION_LOST: &str = "the broker did not know our session";
const NARROW: &str = "the broker sends no more than";
const TAKEN_OVER: &str = "the broker has closed several sessions";
const QOS_0: &str = "the broker granted QoS 0 only";
const REFUSED: &str = "the broker refused the subscription";

/// Without a database, which has no part in this.
fn service(port: u16) -> Service {
    Service::new("postgres://iot:x@127.0.0.1:1/iotdb", port)
}

#[track_caller]
fn await_log(ingestor: &Ingestor, message: &str, lines: usize) {
    eventually_eq(message, &lines, || ingestor.log_of(message).len());
}

/// That nothing was found fault with.
#[track_caller]
fn must_be_content(ingestor: &Ingestor) {
    for complaint in [SESSION_LOST, NARROW, TAKEN_OVER, QOS_0, REFUSED] {
        assert!(ingestor.log_of(complaint).is_empty(), "{complaint}");
    }
}

#[test]
fn a_session_that_the_broker_should_know_and_does_not_is_a_warning() {
    let broker = ScriptedBroker::start();
    let service = service(broker.port);
    let ingestor = service.start();
    // The first of all: there is nothing that it could know.
    let mut link = broker.accept(false);
    assert!(link.deliver(1, "telemetry/x", reading(0).payload()));
    assert_eq!(link.acks(1), [1]);
    drop(link);
    drop(broker.accept(true));
    await_log(&ingestor, "connected to the broker", 2);
    must_be_content(&ingestor);
    // It forgets the session while we are away for a moment…
    let _link = broker.accept(false);
    await_log(&ingestor, SESSION_LOST, 1);
    assert_eq!(ingestor.await_log_of(SESSION_LOST)[0]["level"], "WARN");
    ingestor.stop();
    // … or between two processes.
    let ingestor = service.start();
    let _link = broker.accept(false);
    await_log(&ingestor, SESSION_LOST, 1);
    ingestor.stop();
}

#[test]
fn a_subscription_that_is_refused_or_granted_qos_0_is_an_error_that_names_it() {
    let broker = ScriptedBroker::start();
    let ingestor = service(broker.port).set("MQTT_TOPIC", "telemetry/#,other/+/x").start();
    let _link = broker.accept_granting(false, &[0, 0x80]);
    await_log(&ingestor, QOS_0, 1);
    await_log(&ingestor, REFUSED, 1);
    assert_eq!(ingestor.await_log_of(QOS_0)[0]["filter"], "telemetry/#");
    assert_eq!(ingestor.await_log_of(REFUSED)[0]["filter"], "other/+/x");
    assert!(ingestor.log_of("subscribed").is_empty());
    ingestor.stop();
}

/// By a broker that keeps to its limit, as Mosquitto 2.0.11 does not: PUBACKs make it send as many
/// more. It does so in one go, so that whoever looks at the window finds it full, or empty.
#[test]
fn a_window_of_20_or_fewer_that_is_always_full_is_a_warning() {
    const MESSAGES: u64 = 10_000;
    let id = |number: u64| u16::try_from(number % 60_000 + 1).unwrap();
    for window in [20, 10] {
        let broker = ScriptedBroker::start();
        let ingestor = service(broker.port).start();
        let mut link = broker.accept(false);
        let (mut sent, mut acked) = (0, 0);
        while acked < MESSAGES {
            let due = MESSAGES.min(acked + window);
            let messages = (sent..due).map(|number| (id(number), reading(number).payload()));
            assert!(link.deliver_at_once("telemetry/x", messages));
            sent = due;
            // Those that came along with the next one make room as well.
            for ack in link.acks(1).into_iter().chain(link.acks_so_far()) {
                assert_eq!(ack, id(acked));
                acked += 1;
            }
        }
        await_log(&ingestor, NARROW, 1);
        let warning = &ingestor.await_log_of(NARROW)[0];
        assert_eq!(
            (&warning["level"], &warning["messages_in_flight"]),
            (&"WARN".into(), &window.into())
        );
        ingestor.stop();
    }
}

#[test]
fn a_wide_window_is_no_warning_whether_much_comes_or_little() {
    for window in [100, 5_000] {
        let broker = Mosquitto::with_window(window);
        let mut ingestor = service(broker.port).start();
        ingestor.await_ready();
        // One at a time, all at once, a steady stream.
        let mut devices = Publisher::connect(broker.port);
        (0..300).for_each(|n| devices.publish_one("telemetry/x", reading(n).payload()));
        devices.publish_readings(300..20_000);
        ingestor.await_metric("ingestor_acks_total", 20_000);
        let load = Load::start(broker.port, 1_000);
        load.await_more(2_000);
        load.stop();
        must_be_content(&ingestor);
        ingestor.stop();
    }
}

#[test]
fn another_client_with_our_id_is_a_warning_once() {
    let broker = Mosquitto::start();
    let mut ingestor = service(broker.port).start();
    ingestor.await_ready();
    let throw_out = || {
        eventually_eq("it is connected", &1, || ingestor.metric("ingestor_mqtt_connected"));
        let mut rival =
            Stream::new(TcpStream::connect(("127.0.0.1", broker.port)).unwrap()).unwrap();
        let client_id = "test-ingestor".to_owned();
        rival.send(&Packet::Connect { client_id, clean_session: false, keep_alive: 0 }).unwrap();
        // Until it is thrown out itself.
        eventually("we come back", || rival.next(Duration::from_secs(1)).err());
    };
    throw_out();
    throw_out();
    assert!(ingestor.log_of(TAKEN_OVER).is_empty(), "two are an accident");
    (0..4).for_each(|_| throw_out());
    await_log(&ingestor, TAKEN_OVER, 1);
    let line = &ingestor.await_log_of(TAKEN_OVER)[0];
    assert_eq!((&line["level"], &line["client_id"]), (&"WARN".into(), &"test-ingestor".into()));
    ingestor.stop();
}

#[test]
fn a_broker_that_restarts_again_and_again_is_not_taken_for_another_client() {
    let mut broker = Mosquitto::start();
    let mut ingestor = service(broker.port).start();
    ingestor.await_ready();
    for restart in 1..=4 {
        // A session that works: the next attempt comes soon.
        Publisher::connect(broker.port).publish_one("telemetry/x", reading(restart).payload());
        ingestor.await_metric("ingestor_acks_total", restart);
        broker.stop();
        eventually_eq("it has noticed", &0, || ingestor.metric("ingestor_mqtt_connected"));
        await_log(&ingestor, "cannot reach the broker", usize::try_from(restart).unwrap());
        broker.launch();
        eventually_eq("it is back", &1, || ingestor.metric("ingestor_mqtt_connected"));
    }
    must_be_content(&ingestor);
    ingestor.stop();
}
