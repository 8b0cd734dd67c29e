//! Stands between broker and ingestor, and notes when a message is acknowledged.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chrono::DateTime;

use crate::harness::wire::Packet;

/// The instants of PUBACKs, by the timestamp in the message, in microseconds.
pub(crate) type Acks = Arc<Mutex<HashMap<i64, Instant>>>;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) acks: Acks,
}

impl Proxy {
    /// One in front of the broker on `port`, for as long as this process runs.
    pub(crate) fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), acks: Acks::default() };
        let acks = Arc::clone(&proxy.acks);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(broker) = TcpStream::connect(("127.0.0.1", port)) else { return };
                join(client.unwrap(), broker, &acks);
            }
        });
        proxy
    }
}

/// Passes bytes on in both directions.
fn join(client: TcpStream, broker: TcpStream, acks: &Acks) {
    for end in [&client, &broker] {
        end.set_nodelay(true).unwrap();
    }
    // Packet id → the timestamp in the message that was delivered under it.
    let delivered = Arc::new(Mutex::new(HashMap::new()));
    let (client_too, broker_too) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
    let (on_delivery, acks) = (Arc::clone(&delivered), Arc::clone(acks));
    std::thread::spawn(move || {
        pump(broker_too, client_too, |packet| {
            if let Packet::Publish { id: Some(id), payload, .. } = packet {
                on_delivery.lock().unwrap().insert(id, timestamp(&payload));
            }
        });
    });
    std::thread::spawn(move || {
        pump(client, broker, |packet| {
            if let Packet::PubAck { id } = packet {
                let now = Instant::now();
                let micros = delivered.lock().unwrap().remove(&id);
                acks.lock().unwrap().insert(micros.expect("a PUBACK for what was delivered"), now);
            }
        });
    });
}

/// Lets `see` have every packet before it is passed on.
fn pump(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(Packet)) {
    let mut chunk = vec![0; 64 * 1024];
    let mut unseen = Vec::new();
    while let Ok(bytes) = from.read(&mut chunk) {
        if bytes == 0 {
            break;
        }
        unseen.extend_from_slice(&chunk[..bytes]);
        let mut at = 0;
        while let Some((packet, length)) = Packet::decode(&unseen[at..]) {
            see(packet);
            at += length;
        }
        unseen.drain(..at);
        if to.write_all(&chunk[..bytes]).is_err() {
            break;
        }
    }
    // Whichever end has gone, the other is to hear of it.
    to.shutdown(Shutdown::Both).ok();
}

fn timestamp(payload: &[u8]) -> i64 {
    let payload: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let text = payload["timestamp"].as_str().unwrap();
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}
