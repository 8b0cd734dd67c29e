//! Blocks: what the log stores, as self-describing frames.
//!
//! A frame is found and checked without anything around it, so that it can be picked out of the
//! raw file of a damaged database:
//!
//! | bytes | what (little-endian) |
//! |---|---|
//! | 0–3 | magic |
//! | 4–5 | format version |
//! | 6–7 | length of the body |
//! | 8–15 | offset of the first record |
//! | 16–23 | committed: every record below was durable when this block was written |
//! | 24–31 | flushed: every record below was in PostgreSQL when this block was written |
//! | 32–39 | receipt of the first record, µs since the Unix epoch |
//! | 40–43 | number of records |
//! | 44–47 | length of the body before compression |
//! | 48–51 | CRC-32 of all of the above and the body |
//! | 52– | body, compressed with zstd |
//!
//! What stands before the body is the same in every version, so that one that does not know a body
//! still knows which offsets are in it. The bodies are in [`body`](super::body): version 2 of readings
//! of the built-in shape, version 3 of rows of one table that mappings fill.
//!
//! A frame stays under [`MAX_FRAME_BYTES`], because sled moves pages that outgrow a quarter of a
//! segment (17 values each) to blob files, which it never syncs.

mod decode;
mod encode;
mod header;

pub use decode::{Block, decode};
pub use encode::encode;
pub(crate) use encode::is_too_long;
pub(super) use encode::{MOST_RECORDS, encode_with_receipts};
pub(super) use header::claim;
pub use header::{FrameError, HEADER_BYTES, check};
pub(crate) use header::{Header, MAGIC, MAX_FRAME_BYTES, envelope};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::decode::decompress;
    use super::header::{CHECKSUM_AT, RAW_MAX_BYTES, checksum};
    use super::{
        FrameError, HEADER_BYTES, MAX_FRAME_BYTES, check, claim, decode, encode_with_receipts,
        envelope, is_too_long,
    };
    use crate::base::properties::seeded;
    use crate::base::time::Timestamp;
    use crate::telemetry::mapping::{Cell, Column, Kind, MappedReading, SilentAfter, TableShape};
    use crate::telemetry::{Reading, Record};
    use crate::wal::offset::Offset;
    use crate::wal::receipt::Receipt;

    fn reading(device_id: &str, value: f64) -> Reading {
        let timestamp = Timestamp::from_millis(1_759_667_696_000).unwrap();
        let device_id = device_id.to_owned();
        Reading { device_id, timestamp, values: [value, 65.2, 87.3] }
    }

    fn encode(first: Offset, readings: &[Reading]) -> Vec<(Offset, usize, Vec<u8>)> {
        let received_at = vec![Timestamp::from_millis(1_759_667_697_000).unwrap(); readings.len()];
        let mut frames = Vec::new();
        let readings: Vec<Record> = readings.iter().cloned().map(Record::from).collect();
        super::encode(first, 3, &received_at, &readings, &mut |at, count, frame| {
            frames.push((at, count, frame));
        })
        .unwrap();
        frames
    }

    #[test]
    fn a_block_reads_back_as_it_was_written() {
        let readings = vec![reading("a", 1.5), reading("ü".repeat(128).as_str(), -0.0)];
        let frames = encode(17, &readings);
        let (at, count, frame) = &frames[0];
        let block = decode(frame).unwrap();
        assert_eq!((*at, *count, block.first, block.end()), (17, 2, 17, 19));
        assert_eq!(block.readings, readings);
        let header = check(frame).unwrap();
        assert_eq!((header.committed, header.flushed), (17, 3));
    }

    fn golden(hex: &str) -> Vec<u8> {
        let pairs = hex.trim().as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// One goes back in time.
    fn golden_readings_v2() -> Vec<Reading> {
        let mut readings =
            vec![reading("sensor-001", 23.5), reading("sensor-002", -7.25), reading("ü", -0.0)];
        readings[1].timestamp = Timestamp::from_micros(1_759_667_696_000_997).unwrap();
        readings[2].timestamp = Timestamp::from_micros(1_759_667_695_999_999).unwrap();
        readings
    }

    /// The bytes of each version for all time: a log written by an older binary must be readable.
    #[test]
    fn every_version_keeps_its_bytes() {
        let [v1, v2] = [include_str!("frame_v1.hex"), include_str!("frame_v2.hex")].map(golden);
        assert_eq!((v1[4], v2[4]), (1, 2));
        for bytes in [&v1, &v2] {
            let block = decode(bytes).unwrap();
            assert_eq!(block.first, 1_000_000);
            assert_eq!(block.received_at.to_string(), "2025-10-05T12:34:57Z");
            assert_eq!(check(bytes).unwrap().flushed, 3);
        }
        let readings = [reading("sensor-001", 23.5), reading("sensor-002", -7.25)];
        assert_eq!(decode(&v1).unwrap().readings, readings);
        assert_eq!(decode(&v2).unwrap().readings, golden_readings_v2());
        // Not the bytes of the body, nor how many: another zstd may pack it tighter.
        let written = &encode(1_000_000, &golden_readings_v2())[0].2;
        assert_eq!((&written[..6], &written[8..48]), (&v2[..6], &v2[8..48]));
        let raw = |frame: &[u8]| decompress(&frame[HEADER_BYTES..], RAW_MAX_BYTES).unwrap();
        assert_eq!(raw(written), raw(&v2));
    }

    /// A value of each kind, one that is not there, and times that go back.
    fn golden_records_v3() -> Vec<Record> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let table = Arc::new(TableShape {
            name: "climate".to_owned(),
            columns: vec![
                column("contact", Kind::Bool),
                column("extra", Kind::Json),
                column("level", Kind::Int),
                column("model", Kind::Text),
                column("temperature", Kind::Float),
            ],
        });
        let row = |device_id: &str, micros, cells| {
            let (table, device_id) = (Arc::clone(&table), device_id.to_owned());
            let timestamp = Timestamp::from_micros(micros).unwrap();
            let silent_after = SilentAfter::OfTable;
            Record::from(MappedReading { table, device_id, timestamp, cells, silent_after })
        };
        let all = vec![
            (0, Cell::Bool(true)),
            (1, Cell::Json("{\"a\":1.50}".to_owned())),
            (2, Cell::Int(-97)),
            (3, Cell::Text("ü".to_owned())),
            (4, Cell::Float(21.5)),
        ];
        vec![
            row("door", 1_759_667_696_000_997, all),
            row("d", 1_759_667_695_999_999, vec![(4, Cell::Float(-0.0))]),
        ]
    }

    #[test]
    fn version_3_keeps_its_bytes() {
        let v3 = golden(include_str!("frame_v3.hex"));
        let block = decode(&v3).unwrap();
        assert_eq!((v3[4], block.first), (3, 1_000_000));
        assert_eq!(block.readings, golden_records_v3());
        let received_at = [Timestamp::from_millis(1_759_667_697_000).unwrap(); 2];
        let mut written = Vec::new();
        let mut keep = |_, _, frame| written.push(frame);
        super::encode(1_000_000, 3, &received_at, &golden_records_v3(), &mut keep).unwrap();
        let raw = |frame: &[u8]| decompress(&frame[HEADER_BYTES..], RAW_MAX_BYTES).unwrap();
        assert_eq!((&written[0][..6], &written[0][8..48]), (&v3[..6], &v3[8..48]));
        assert_eq!(raw(&written[0]), raw(&v3));
    }

    #[test]
    fn a_block_has_the_receipts_of_its_records_and_is_one_of_version_3() {
        let at = |micros: i64| Timestamp::from_micros(1_759_667_696_000_000 + micros).unwrap();
        let receipt = |packet_id, hash, micros| Receipt { packet_id, hash, time: at(micros) };
        let receipts = [Some(receipt(65_535, u64::MAX, 997)), Some(receipt(1, 7, -1))];
        let received_at = [Timestamp::from_millis(1_759_667_697_000).unwrap(); 2];
        let mut written = Vec::new();
        let mut keep = |_, _, frame| written.push(frame);
        let records = golden_records_v3();
        encode_with_receipts(1_000_000, 3, &received_at, &records, &receipts, &mut keep).unwrap();
        let block = decode(&written[0]).unwrap();
        assert_eq!((written[0][4], block.readings), (3, records));
        assert_eq!(block.receipts, receipts.map(Option::unwrap));
        // The body as any version has it that knows this one: behind the columns, in bincode.
        let raw = |frame: &[u8]| decompress(&frame[HEADER_BYTES..], RAW_MAX_BYTES).unwrap();
        let without = raw(&golden(include_str!("frame_v3.hex")));
        let with = raw(&written[0]);
        let (columns, of_receipts) = with.split_at(without.len() - 1);
        assert_eq!((columns, without.last()), (&without[..without.len() - 1], Some(&0)));
        let micros = |micros: i64| ((1_759_667_696_000_000 + micros) * 2).to_le_bytes();
        let mut expected = vec![2, 251, 255, 255, 253];
        expected.extend([u64::MAX.to_le_bytes().as_slice(), &[253], &micros(997)].concat());
        expected.extend([[1, 7, 253].as_slice(), &micros(-1)].concat());
        assert_eq!(of_receipts, expected);
    }

    fn row(table: &Arc<TableShape>, at: i64, text: &str) -> Record {
        Record::from(MappedReading {
            table: Arc::clone(table),
            device_id: format!("d{at}"),
            timestamp: Timestamp::from_millis(1_759_667_696_000 + at).unwrap(),
            cells: vec![(0, Cell::Text(text.to_owned())), (1, Cell::Float(21.5))],
            silent_after: SilentAfter::OfTable,
        })
    }

    fn table(name: &str) -> Arc<TableShape> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let columns = vec![column("model", Kind::Text), column("temperature", Kind::Float)];
        Arc::new(TableShape { name: name.to_owned(), columns })
    }

    #[test]
    fn a_block_holds_rows_of_one_table_and_says_which() {
        let (a, b) = (table("a"), table("b"));
        let records = [
            Record::from(reading("x", 1.0)),
            row(&a, 1, "m"),
            row(&a, 2, "n"),
            row(&b, 3, "o"),
            Record::from(reading("y", 2.0)),
        ];
        let received_at = vec![Timestamp::from_millis(1_759_667_697_000).unwrap(); records.len()];
        let mut frames = Vec::new();
        super::encode(7, 3, &received_at, &records, &mut |at, count, frame| {
            frames.push((at, count, frame));
        })
        .unwrap();
        let cut: Vec<_> = frames.iter().map(|(at, count, frame)| (*at, *count, frame[4])).collect();
        assert_eq!(cut, [(7, 1, 2), (8, 2, 3), (10, 1, 3), (11, 1, 2)]);
        let back: Vec<Record> =
            frames.iter().flat_map(|(.., frame)| decode(frame).unwrap().readings).collect();
        assert_eq!(back, records);
    }

    #[test]
    fn a_long_row_is_cut_off_from_others_and_one_that_is_too_long_is_known_before() {
        let a = table("a");
        let noise = |seed: u64, bytes: usize| -> String {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..bytes).map(|_| random.alphanumeric()).collect()
        };
        let records: Vec<Record> =
            (0..20).map(|at| row(&a, at, &noise(at.cast_unsigned(), 5_900))).collect();
        assert!(!records.iter().any(is_too_long));
        let received_at = vec![Timestamp::UNIX_EPOCH; records.len()];
        let mut next = 0;
        super::encode(0, 0, &received_at, &records, &mut |at, count, frame| {
            assert!(frame.len() <= MAX_FRAME_BYTES && at == next);
            next += count as u64;
        })
        .unwrap();
        assert_eq!(next, 20);
        assert!(is_too_long(&row(&a, 0, &noise(1, 9_500))));
        // What shrinks is not too long.
        assert!(!is_too_long(&row(&a, 0, &"x".repeat(9_500))));
    }

    #[test]
    fn an_unknown_version_is_told_apart_from_damage() {
        let mut frame = encode(0, &[reading("a", 1.0)]).remove(0).2;
        frame[4] = 9;
        assert_eq!(check(&frame), Err(FrameError::UnknownVersion(9)));
        assert_eq!(envelope(&frame), Err(FrameError::Checksum));
        let (head, body) = frame.split_at(HEADER_BYTES);
        let checksum = checksum(&head[..CHECKSUM_AT], body);
        frame[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(check(&frame), Err(FrameError::UnknownVersion(9)));
        assert_eq!(envelope(&frame).unwrap().end(), 1);
    }

    #[test]
    fn a_damaged_frame_claims_its_offsets_unless_that_cannot_be() {
        let mut frame = encode(5, &[reading("a", 1.0), reading("b", 2.0)]).remove(0).2;
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(claim(&frame), Some(5..7));
        frame[43] = 1;
        assert_eq!(claim(&frame), None);
        assert_eq!(claim(&frame[..40]), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let frame = encode(5, &[reading("a", 1.0), reading("b", 2.0)]).remove(0).2;
        for at in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(decode(&damaged).is_err(), "bit {at}");
        }
    }

    fn any_reading() -> impl Strategy<Value = Reading> {
        ("\\PC{1,128}", any::<f64>(), any::<i32>()).prop_map(|(id, value, seconds)| Reading {
            timestamp: Timestamp::from_millis(i64::from(seconds) * 1_000).unwrap(),
            ..reading(&id, if value.is_nan() { 0.0 } else { value })
        })
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn blocks_are_short_and_continuous_whatever_they_hold(
            readings in proptest::collection::vec(any_reading(), 1..600),
        ) {
            let mut next = 40;
            let mut read = Vec::new();
            for (at, count, frame) in encode(40, &readings) {
                prop_assert!(frame.len() <= MAX_FRAME_BYTES);
                prop_assert_eq!(at, next);
                next += count as u64;
                read.extend(decode(&frame).unwrap().readings);
            }
            prop_assert_eq!(read, readings);
        }
    }
}
