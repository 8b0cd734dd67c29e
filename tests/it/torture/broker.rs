//! A broker that restarts, forgets, breaks off, or is narrow.

use std::net::TcpStream;
use std::time::Duration;

use fastrand::Rng;

use super::arena::{Arena, Fault};
use crate::harness::wire::{Packet, Stream};
use crate::harness::{Load, Mosquitto, PATIENCE, Publisher, eventually};

pub(super) const FAULTS: [(&str, Fault); 5] = [
    ("restart with persistence", restarted),
    ("SIGKILL, what it held is forgotten", killed),
    ("connections cut mid-batch", cut),
    ("payload too large", oversize),
    ("takeover of the client id", taken_over),
];

fn restarted(arena: &mut Arena, load: &Load, random: &mut Rng) {
    arena.broker.stop();
    std::thread::sleep(Duration::from_millis(random.u64(..1_000)));
    arena.broker.launch();
    load.await_more(2_000);
}

fn killed(arena: &mut Arena, load: &Load, random: &mut Rng) {
    arena.broker_forgot = true;
    arena.broker.kill();
    std::thread::sleep(Duration::from_millis(random.u64(..1_000)));
    arena.broker.launch();
    load.await_more(2_000);
}

pub(super) fn cut(arena: &mut Arena, load: &Load, random: &mut Rng) {
    for _ in 0..random.u8(3..12) {
        load.await_more(random.u64(1..800));
        arena.proxy.cut();
    }
}

fn oversize(arena: &mut Arena, _: &Load, random: &mut Rng) {
    let before = arena.ingestor().metric("ingestor_dead_letters");
    let messages = random.u64(1..5);
    let mut publisher = Publisher::connect(arena.broker.port);
    for _ in 0..messages {
        publisher.publish_one("telemetry/large", vec![b'x'; random.usize(65_537..400_000)]);
    }
    arena.ingestor().await_metric("ingestor_dead_letters", before + messages);
}

pub(super) fn taken_over(arena: &mut Arena, load: &Load, random: &mut Rng) {
    for _ in 0..random.u8(1..5) {
        let tcp = TcpStream::connect(("127.0.0.1", arena.broker.port)).unwrap();
        let mut stream = Stream::new(tcp).unwrap();
        // The same session; what it is sent, it does not acknowledge.
        let client_id = "test-ingestor".to_owned();
        stream.send(&Packet::Connect { client_id, clean_session: false, keep_alive: 0 }).unwrap();
        eventually("it is let in", || match stream.next(PATIENCE) {
            Ok(Some(Packet::ConnAck { session_present })) => Some(session_present),
            _ => None,
        });
        std::thread::sleep(Duration::from_millis(random.u64(..300)));
        drop(stream);
        load.await_more(random.u64(500..2_000));
    }
}

#[test]
fn a_broker_that_fails_in_any_way_is_owed_nothing() {
    Arena::new().campaign("broker", FAULTS.len(), &FAULTS);
}

#[test]
fn a_broker_that_keeps_few_messages_in_flight_changes_nothing() {
    for window in [1, 20] {
        let broker = Mosquitto::configured(|port, _| {
            format!(
                "max_inflight_messages {window}\nlistener {port} 127.0.0.1\nallow_anonymous true\n"
            )
        });
        let mut arena = Arena::with(broker, |service| service);
        let faults: [(&str, Fault); 2] =
            [("connections cut mid-batch", cut), ("restart", restarted)];
        arena.campaign(&format!("broker-window-{window}"), 2, &faults);
    }
}
