//! Clients that publish and know what the broker has acknowledged.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire::{Packet, Stream};
use super::{PATIENCE, Reading, eventually, reading};

/// Messages sent and not yet acknowledged.
const WINDOW: usize = 500;

/// Publishes with QoS 1. What was not acknowledged when a connection broke is sent again on the next.
pub(crate) struct Publisher {
    port: u16,
    stream: Stream,
    next_id: u16,
    /// Each as it was sent, oldest first.
    in_flight: VecDeque<(u16, Packet)>,
    /// Messages that the broker has taken over.
    pub(crate) acked: u64,
}

impl Publisher {
    /// Connects to the broker on `port`.
    #[track_caller]
    pub(crate) fn connect(port: u16) -> Self {
        let stream = connect(port);
        Self { port, stream, next_id: 0, in_flight: VecDeque::new(), acked: 0 }
    }

    /// Sends a message, waiting for room in the window; returns at once otherwise.
    pub(crate) fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.send(Outgoing { topic: topic.to_owned(), payload: payload.into(), retain: false });
    }

    fn send(&mut self, message: Outgoing) {
        self.next_id = self.next_id % u16::MAX + 1;
        let id = self.next_id;
        let Outgoing { topic, payload, retain } = message;
        let packet = Packet::Publish { id: Some(id), dup: false, retain, topic, payload };
        self.stream.queue(&packet);
        self.in_flight.push_back((id, packet));
        if self.in_flight.len() >= WINDOW {
            self.drain_to(WINDOW * 3 / 4);
        }
    }

    /// Sends what was only queued and takes what has come in.
    pub(crate) fn flush(&mut self) {
        if self.stream.flush().is_err() {
            self.reconnect();
        }
        self.take_acks(Duration::from_micros(1));
    }

    /// Waits until everything is acknowledged.
    #[track_caller]
    pub(crate) fn finish(&mut self) {
        self.drain_to(0);
    }

    /// Publishes `payload` and waits for its acknowledgement.
    #[track_caller]
    pub(crate) fn publish_one(&mut self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.publish(topic, payload);
        self.finish();
    }

    /// Publishes these of the readings that [`reading`] numbers and waits for the acknowledgements.
    #[track_caller]
    pub(crate) fn publish_readings(&mut self, numbers: Range<u64>) {
        for number in numbers {
            let reading = reading(number);
            self.publish(&reading.topic(), reading.payload());
        }
        self.finish();
    }

    #[track_caller]
    fn drain_to(&mut self, in_flight: usize) {
        let mut progress_at = Instant::now();
        if self.stream.flush().is_err() {
            self.reconnect();
        }
        while self.in_flight.len() > in_flight {
            let before = self.in_flight.len();
            self.take_acks(Duration::from_secs(1));
            if self.in_flight.len() < before {
                progress_at = Instant::now();
            }
            assert!(progress_at.elapsed() < PATIENCE, "the broker does not acknowledge");
        }
    }

    fn take_acks(&mut self, patience: Duration) {
        let Ok(mut packet) = self.stream.next(patience) else { return self.reconnect() };
        while let Some(received) = packet {
            if let Packet::PubAck { id } = received {
                let place = self.in_flight.iter().position(|(sent, _)| *sent == id);
                self.in_flight.remove(place.expect("a PUBACK for what was not sent"));
                self.acked += 1;
            }
            packet = self.stream.received();
        }
    }

    fn reconnect(&mut self) {
        self.stream = connect(self.port);
        for (_, packet) in &self.in_flight {
            self.stream.queue(packet);
        }
        // Should that fail, the next read will.
        self.stream.flush().ok();
    }
}

/// A clean session on the broker that is, or soon will be, on `port`.
fn connect(port: u16) -> Stream {
    eventually("the publisher connects", || {
        let mut stream = Stream::new(TcpStream::connect(("127.0.0.1", port)).ok()?).ok()?;
        let client_id = format!("test-publisher-{:016x}", fastrand::u64(..));
        stream.send(&Packet::Connect { client_id, clean_session: true, keep_alive: 0 }).ok()?;
        match stream.next(Duration::from_secs(5)) {
            Ok(Some(Packet::ConnAck { .. })) => Some(stream),
            _ => None,
        }
    })
}

/// What is published.
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// Whether the broker is to keep it.
    pub(crate) retain: bool,
}

impl From<Reading> for Outgoing {
    fn from(reading: Reading) -> Self {
        Self { topic: reading.topic(), payload: reading.payload().into(), retain: false }
    }
}

/// Publishes readings in the background until told to stop.
pub(crate) struct Load {
    thread: JoinHandle<u64>,
    stop: Arc<AtomicBool>,
    publisher: Arc<Mutex<Publisher>>,
    acked: Arc<AtomicU64>,
    first: u64,
}

impl Load {
    /// The readings from number 0 on, so many a second.
    pub(crate) fn start(port: u16, per_second: u32) -> Self {
        Self::start_from(port, per_second, 0)
    }

    /// The readings from number `first` on, so many a second.
    pub(crate) fn start_from(port: u16, per_second: u32, first: u64) -> Self {
        Self::start_of(port, per_second, first, |number| reading(number).into())
    }

    /// What `message` makes of the numbers from `first` on, so many a second.
    pub(crate) fn start_of(
        port: u16,
        per_second: u32,
        first: u64,
        message: fn(u64) -> Outgoing,
    ) -> Self {
        let publisher = Arc::new(Mutex::new(Publisher::connect(port)));
        let shared = Arc::clone(&publisher);
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&acked));
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut number = first;
            while !stopped.load(Ordering::Relaxed) {
                let mut publisher = shared.lock().unwrap();
                let due = started.elapsed().as_micros() * u128::from(per_second) / 1_000_000;
                while u128::from(number - first) < due && !stopped.load(Ordering::Relaxed) {
                    publisher.send(message(number));
                    number += 1;
                }
                publisher.flush();
                count.store(publisher.acked, Ordering::Relaxed);
                drop(publisher);
                std::thread::sleep(Duration::from_millis(2));
            }
            shared.lock().unwrap().finish();
            number
        });
        Self { thread, stop, publisher, acked, first }
    }

    /// Waits until the broker has acknowledged `more` messages from now on.
    #[track_caller]
    pub(crate) fn await_more(&self, more: u64) {
        let goal = self.acked.load(Ordering::Relaxed) + more;
        eventually("the broker acknowledges", || {
            assert!(!self.thread.is_finished(), "the publisher has failed");
            (self.acked.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Does `this` while nothing is published and everything that was is acknowledged: what a connection
    /// takes with it would be published again.
    #[track_caller]
    pub(crate) fn hold(&self, this: impl FnOnce()) {
        let mut publisher = self.publisher.lock().unwrap();
        publisher.finish();
        this();
    }

    /// Stops; the numbers of the readings that were published, all of which the broker has
    /// acknowledged.
    #[track_caller]
    pub(crate) fn stop(self) -> Range<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.first..self.thread.join().expect("the publisher failed")
    }
}
