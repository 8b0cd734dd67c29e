//! Messages of all kinds, in bursts that become commit groups of all sizes.

use fastrand::Rng;

use crate::harness::{Outgoing, Reading, reading};

/// One message, and what has to become of it.
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) readings: Vec<Reading>,
    pub(super) rejected: Vec<String>,
}

/// Makes messages; no two have a reading in common.
#[derive(Default)]
pub(super) struct Source {
    pub(super) random: Rng,
    /// How many readings and rejected payloads there were.
    pub(super) next: u64,
    /// If there is one, each number is the message that this makes of it instead.
    pub(super) other: Option<fn(u64) -> Outgoing>,
}

const TOPIC: &str = "telemetry/x";

impl Source {
    fn reading(&mut self, is_bulky: bool) -> Reading {
        self.next += 1;
        let mut reading = reading(self.next);
        if is_bulky {
            // No compression makes it shorter, so that a group becomes many blocks.
            reading.device_id = (0..100).map(|_| self.random.alphanumeric()).collect();
        }
        reading
    }

    fn single(&mut self) -> Message {
        let reading = self.reading(false);
        let (topic, payload) = (TOPIC.to_owned(), reading.payload());
        Message { topic, payload, readings: vec![reading], rejected: Vec::new() }
    }

    fn rejected(&mut self) -> Message {
        self.next += 1;
        let payload = format!(r#"{{"rejected":{}}}"#, self.next);
        let (topic, rejected) = (TOPIC.to_owned(), vec![payload.clone()]);
        Message { topic, payload, readings: Vec::new(), rejected }
    }

    /// An array, now and then with an element that is rejected.
    fn array(&mut self, elements: usize, is_bulky: bool) -> Message {
        let readings: Vec<Reading> = (0..elements).map(|_| self.reading(is_bulky)).collect();
        let mut all: Vec<String> = readings.iter().map(Reading::payload).collect();
        let mut rejected = Vec::new();
        if self.random.u8(..8) == 0 {
            self.next += 1;
            rejected.push(format!(r#"{{"rejected":{}}}"#, self.next));
            all.insert(self.random.usize(..=all.len()), rejected[0].clone());
        }
        let (topic, payload) = (TOPIC.to_owned(), format!("[{}]", all.join(",")));
        Message { topic, payload, readings, rejected }
    }

    fn numbered(&mut self, message: fn(u64) -> Outgoing) -> Message {
        let Outgoing { topic, payload, .. } = message(self.next);
        self.next += 1;
        let payload = String::from_utf8(payload).unwrap();
        Message { topic, payload, readings: Vec::new(), rejected: Vec::new() }
    }

    /// Messages that are sent at once, so that they are one group, or two.
    pub(super) fn burst(&mut self) -> Vec<Message> {
        if let Some(message) = self.other {
            return (0..self.random.usize(1..200)).map(|_| self.numbered(message)).collect();
        }
        match self.random.u8(..20) {
            0 => {
                // Some hundred blocks.
                let messages = self.random.usize(5..25);
                (0..messages).map(|_| self.array(250, true)).collect()
            }
            1..4 => {
                let messages = self.random.usize(1..15);
                (0..messages)
                    .map(|_| {
                        let elements = self.random.usize(1..300);
                        self.array(elements, false)
                    })
                    .collect()
            }
            4..7 => {
                let messages = self.random.usize(1..10);
                (0..messages).map(|_| self.rejected()).collect()
            }
            7..12 => (0..self.random.usize(2..100)).map(|_| self.single()).collect(),
            _ => vec![self.single()],
        }
    }
}
