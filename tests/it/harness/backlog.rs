//! Logs on disk, of which nothing is stored yet.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ingestor, Publisher, Service, array, readings};

/// Publishes the first readings until the log of a service without a database has so many
/// generations, and all of them wait in it; returns how many. How much a generation holds depends on
/// how the messages fall into groups.
#[track_caller]
pub(crate) fn fill(
    service: &Service,
    ingestor: &mut Ingestor,
    devices: &mut Publisher,
    count: usize,
) -> u64 {
    const A_MESSAGE: u64 = 10;
    let mut published = 0;
    let mut publish = |messages| {
        for _ in 0..messages {
            devices.publish("telemetry/batch", array(&readings(published..published + A_MESSAGE)));
            published += A_MESSAGE;
        }
        devices.finish();
        ingestor.await_metric("ingestor_wal_pending_records", published);
        published
    };
    while generations(&service.wal_dir()).len() < count {
        publish(500);
    }
    // The newest may just have been begun, and hold nothing yet.
    publish(1)
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

/// Copies a directory, or a file.
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}
