//! Everything at random, for as long as one likes; what the service takes has to level off.

use std::time::{Duration, Instant};

use super::arena::{Arena, Fault};
use super::tally::{campaign, from_environment};
use super::{broker, database, io_errors, kills, process};
use crate::harness::Ingestor;

/// What the service takes.
const TAKEN: [&str; 3] =
    ["process_resident_memory_bytes", "process_open_fds", "ingestor_wal_disk_bytes"];

/// What it may take, in bytes and descriptors, after each recovery.
const MOST: [u64; 3] = [200 << 20, 64, 32 << 20];

#[test]
fn whatever_comes_at_random_nothing_is_lost_and_what_it_takes_levels_off() {
    let faults: Vec<(&str, Fault)> = [
        &kills::FAULTS[..],
        &io_errors::FAULTS,
        &database::FAULTS,
        &broker::FAULTS,
        &process::FAULTS,
    ]
    .concat();
    let seconds = from_environment("TORTURE_SOAK_SECONDS").unwrap_or(20);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut arena = Arena::new();
    let mut peak = [0; 3];
    campaign("soak", u64::MAX, |seed| {
        if Instant::now() >= deadline {
            return None;
        }
        let (name, fault) = faults[fastrand::Rng::with_seed(seed).usize(..faults.len())];
        let began = Instant::now();
        let found = arena.attempt(4_000, seed, fault);
        eprintln!("{seed} {name}: {:.1} s", began.elapsed().as_secs_f64());
        if let Some(metrics) = arena.ingestor.as_ref().map(Ingestor::metrics) {
            let now = TAKEN.map(|name| metrics.get(name));
            peak = std::array::from_fn(|index| now[index].max(peak[index]));
        }
        Some(found)
    });
    eprintln!("at most {peak:?} of {TAKEN:?} after recovery");
    assert!(peak.iter().zip(MOST).all(|(peak, most)| *peak <= most), "{peak:?}, {MOST:?} allowed");
}
