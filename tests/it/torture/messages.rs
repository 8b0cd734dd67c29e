//! Messages of all kinds, in bursts that become commit groups of all sizes.

use fastrand::Rng;

use crate::harness::{Reading, reading};

/// One message, and what has to become of it.
pub(super) struct Message {
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
}

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
        Message { payload: reading.payload(), readings: vec![reading], rejected: Vec::new() }
    }

    fn rejected(&mut self) -> Message {
        self.next += 1;
        let payload = format!(r#"{{"rejected":{}}}"#, self.next);
        Message { rejected: vec![payload.clone()], readings: Vec::new(), payload }
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
        Message { payload: format!("[{}]", all.join(",")), readings, rejected }
    }

    /// Messages that are sent at once, so that they are one group, or two.
    pub(super) fn burst(&mut self) -> Vec<Message> {
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
