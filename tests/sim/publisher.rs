//! The devices: messages with good readings, bad ones, ones that come twice, and nothing at all.

use bytes::Bytes;
use std::fmt::Write as _;

use iot_ingestor::base::time::Timestamp;
use iot_ingestor::telemetry::{Reading, Record};

use crate::ledger::{Ledger, Message};
use crate::schedule::Dice;

/// The time of reading 0, in milliseconds; that of each further one is one later.
pub(crate) const FIRST_MILLIS: i64 = 1_759_667_696_000;

/// The number of a reading that has come back from the log.
pub(crate) fn number(record: &Record) -> u64 {
    (record.timestamp().as_micros() / 1_000 - FIRST_MILLIS).cast_unsigned()
}

/// The reading of this number, as a letter of it has it.
pub(crate) fn reading(number: u64) -> Reading {
    let timestamp = Timestamp::from_millis(FIRST_MILLIS + number.cast_signed()).unwrap();
    Reading { device_id: format!("d{}", number % 5), timestamp, values: [20.0, 50.0, 50.0] }
}

/// The wall clock, so long after the start.
pub(crate) fn clock(now: std::time::Duration) -> Timestamp {
    Timestamp::from_millis(FIRST_MILLIS + now.as_millis() as i64).unwrap()
}

/// Makes a message; the readings in it that were never published before are told to `is_new`.
pub(crate) fn make(
    ledger: &mut Ledger,
    dice: &mut Dice,
    mut is_new: impl FnMut(u64, &mut Dice),
) -> usize {
    let (mut readings, mut letters) = (Vec::new(), 0);
    let mut payload = String::new();
    if dice.one_in(12) {
        // Not one reading can be made out in it.
        payload.push('{');
        letters = 1;
    } else {
        payload.push('[');
        for at in 0..=dice.below(3) {
            if at > 0 {
                payload.push(',');
            }
            let temperature = if dice.one_in(8) { 1_000 } else { 20 };
            let known = ledger.readings();
            let reading = if known > 0 && dice.one_in(10) {
                dice.below(known as usize) as u64
            } else {
                let reading = ledger.new_reading();
                is_new(reading, dice);
                reading
            };
            if temperature > 100 {
                letters += 1;
            } else {
                readings.push(reading);
            }
            write!(
                payload,
                r#"{{"device_id":"d{}","timestamp":{},"temperature":{temperature},"humidity":50,"battery":50}}"#,
                reading % 5,
                FIRST_MILLIS + reading.cast_signed(),
            )
            .unwrap();
        }
        payload.push(']');
    }
    ledger.messages.push(Message { payload: Bytes::from(payload), readings, letters });
    ledger.messages.len() - 1
}

/// Where a message is published to: its topic names it, since a letter keeps that.
pub(crate) fn topic_of(message: usize) -> String {
    format!("telemetry/{message}")
}

/// The message that was published to `topic`.
pub(crate) fn message_of(topic: &str) -> u64 {
    topic.trim_start_matches("telemetry/").parse().unwrap()
}
