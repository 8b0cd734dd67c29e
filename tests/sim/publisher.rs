//! The devices: messages with good readings, bad ones, ones that come twice, and nothing at all.

use bytes::Bytes;
use std::fmt::Write as _;
use std::sync::Arc;

use iot_ingestor::base::time::Timestamp;
use iot_ingestor::telemetry::mapping::{
    Cell, Column, Kind, MappedReading, SilentAfter, TableShape,
};
use iot_ingestor::telemetry::{Reading, Record};

use crate::ledger::{Ledger, Message};
use crate::schedule::Dice;

/// The time of reading 0, in milliseconds; that of each further one is one later.
pub(crate) const FIRST_MILLIS: i64 = 1_759_667_696_000;

/// Messages of these topics have no time of their own, and say in each element which reading it is.
pub(crate) const MAPPINGS: &str = r#"
[[default.mapping]]
name   = "arrival"
topic  = "arrival/+"
each   = "[*]"
device = "{.reading}"
time   = "received"
fields = ["a"]
"#;

/// The number of a reading that has come back from the log.
pub(crate) fn number(record: &Record) -> u64 {
    if let Some(row) = record.mapped() {
        return row.device_id.trim_start_matches('r').parse().unwrap();
    }
    (record.timestamp().as_micros() / 1_000 - FIRST_MILLIS).cast_unsigned()
}

/// The reading of this number, as a letter of it has it.
pub(crate) fn reading(number: u64) -> Reading {
    let timestamp = Timestamp::from_millis(FIRST_MILLIS + number.cast_signed()).unwrap();
    Reading { device_id: format!("d{}", number % 5), timestamp, values: [20.0, 50.0, 50.0] }
}

/// The same of one that has the time of its arrival.
pub(crate) fn arrived(number: u64, timestamp: Timestamp) -> MappedReading {
    let columns = vec![Column { name: "a".to_owned(), kind: Kind::Float }];
    let table = Arc::new(TableShape { name: "telemetry".to_owned(), columns });
    let cells = vec![(0, Cell::Float(1.0))];
    let (device_id, silent_after) = (format!("r{number}"), SilentAfter::OfTable);
    MappedReading { table, device_id, timestamp, cells, silent_after }
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
    let by_arrival = dice.one_in(4);
    if by_arrival {
        for at in 0..=dice.below(3) {
            let reading = ledger.new_reading();
            is_new(reading, dice);
            readings.push(reading);
            let comma = if at > 0 { "," } else { "[" };
            write!(payload, r#"{comma}{{"reading":"r{reading}","a":1}}"#).unwrap();
        }
        payload.push(']');
        ledger.arrivals.extend(&readings);
    } else if dice.one_in(12) {
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
            let again = (known > 0 && dice.one_in(10)).then(|| dice.below(known as usize) as u64);
            let reading = if let Some(again) = again.filter(|one| !ledger.arrivals.contains(one)) {
                again
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
    let payload = Bytes::from(payload);
    ledger.messages.push(Message { payload, by_arrival, readings, letters });
    ledger.messages.len() - 1
}

/// Where a message is published to: its topic names it, since a letter keeps that.
pub(crate) fn topic_of(message: usize, by_arrival: bool) -> String {
    format!("{}/{message}", if by_arrival { "arrival" } else { "telemetry" })
}

/// The message that was published to `topic`.
pub(crate) fn message_of(topic: &str) -> u64 {
    topic.rsplit('/').next().unwrap().parse().unwrap()
}
