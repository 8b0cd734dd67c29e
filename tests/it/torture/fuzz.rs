//! The fuzz targets' bodies on the kept corpora and on mutations of them, other ones each time. The fuzzer
//! itself does more: see `tests/fuzz`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::tally::{Found, campaign, from_environment};

/// Of each target at least; as many as `TORTURE_COUNT` says, if it says so.
const MUTATIONS: u64 = 20_000;

/// For how long those of mappings are made: what they compile and read is much more than what the others
/// do. A minute for the two.
const OF_MAPPINGS: Duration = Duration::from_secs(30);

#[path = "../../fuzz/bodies.rs"]
mod bodies;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let entries = fs::read_dir(dir).unwrap();
    let mut all: Vec<Vec<u8>> =
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

/// Changes, doubles, drops and joins parts, as a fuzzer does.
fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    for _ in 0..random.u8(1..8) {
        let at = random.usize(..=data.len());
        match random.u8(..6) {
            0 if at < data.len() => data[at] ^= 1 << random.u8(..8),
            1 if at < data.len() => data[at] = random.u8(..),
            2 => data.insert(at, *random.choice(b"[]{},:\"\\0-9eE.\0\xff".as_slice()).unwrap()),
            3 => data.truncate(at),
            4 => drop(data.drain(at..random.usize(at..=data.len()))),
            _ => {
                let part = &other[random.usize(..=other.len())..];
                data.splice(at..at, part.iter().copied());
            }
        }
    }
}

fn smoke(name: &str, body: fn(&[u8])) {
    smoke_for(Duration::ZERO, name, body);
}

fn smoke_for(time: Duration, name: &str, body: fn(&[u8])) {
    let corpus = corpus(name);
    for data in &corpus {
        body(data);
    }
    let is_counted = from_environment("TORTURE_COUNT").is_some();
    let (began, mut done) = (Instant::now(), 0);
    campaign(&format!("fuzz-{name}"), u64::MAX, |seed| {
        if !is_counted && done >= MUTATIONS && began.elapsed() >= time {
            return None;
        }
        done += 1;
        let mut random = Rng::with_seed(seed);
        let mut data = random.choice(&corpus).unwrap().clone();
        let other = random.choice(&corpus).unwrap();
        mutate(&mut data, other, &mut random);
        body(&data);
        Some(Found::default())
    });
}

#[test]
fn no_payload_does_more_than_be_rejected() {
    smoke("payload", bodies::payload);
}

#[test]
fn no_message_under_a_mapping_does_more_than_be_rejected() {
    smoke_for(OF_MAPPINGS, "mapping_message", bodies::message);
}

#[test]
fn no_file_of_mappings_does_more_than_be_refused() {
    smoke_for(OF_MAPPINGS, "mapping_file", bodies::file);
}

#[test]
fn no_bytes_in_the_log_do_more_than_be_refused() {
    smoke("block", bodies::block);
}
