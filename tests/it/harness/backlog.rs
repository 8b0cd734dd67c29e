//! Logs on disk, of which nothing is stored yet.

use std::path::{Path, PathBuf};

use super::{Ingestor, Publisher, Service, array, readings};

/// Publishes the first readings until the log of a service without a database has so many
/// generations, none of them empty; returns how many readings wait in it. How much a generation holds
/// depends on how the messages fall into groups.
#[track_caller]
pub(crate) fn fill(
    service: &Service,
    ingestor: &mut Ingestor,
    devices: &mut Publisher,
    count: usize,
) -> u64 {
    const A_MESSAGE: u64 = 10;
    let mut published = 0;
    let is_filled = |published| {
        let all = generations(&service.wal_dir());
        all.len() >= count && all.iter().all(|(first, _)| *first < published)
    };
    while !is_filled(published) {
        assert!(published < 1_000_000, "generations of a size for so many");
        for _ in 0..500 {
            devices.publish("telemetry/batch", array(&readings(published..published + A_MESSAGE)));
            published += A_MESSAGE;
        }
        devices.finish();
        ingestor.await_metric("ingestor_wal_pending_records", published);
    }
    published
}

/// First offset and directory of each generation in a directory, oldest first.
pub(crate) fn generations(wal_dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut all: Vec<(u64, PathBuf)> = std::fs::read_dir(wal_dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().len() == 20)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    all.sort();
    all
}
