//! Writes that fail beside a flush: sled 0.34.7 wakes nobody who waits for some of them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use iot_ingestor::base::time::Timestamp;
use iot_ingestor::telemetry::{Reading, Record};
use iot_ingestor::wal::contract::{Active, Storage};
use iot_ingestor::wal::frame::encode;
use iot_ingestor::wal::{Offset, SledStorage};

use crate::harness::process::guarded;
use crate::harness::{PATIENCE, Scratch, random, reading, try_within};

/// Where it was measured, a flush that nobody wakes hangs after one to five seconds of this.
const AT_WORK: Duration = Duration::from_secs(10);

/// In blocks of 512 bytes. Beyond that the kernel refuses to write, as a full disk does.
const LARGEST_FILE: u32 = 64;

/// Where the child finds its directory.
const DIR: &str = "TEST_FAILING_WRITES_DIR";

#[test]
fn a_flush_ends_though_a_write_beside_it_has_failed() {
    if let Some(dir) = std::env::var_os(DIR) {
        fastrand::seed(crate::harness::random().u64(..));
        return fill_again_and_again(Path::new(&dir));
    }
    let scratch = Scratch::in_memory();
    // The limit is one of a process, and its signal is to be ignored.
    let mut child = guarded("sh")
        .args(["-c", r#"trap "" XFSZ; ulimit -f "$0"; exec "$@""#, &LARGEST_FILE.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "failing_writes::a_flush_ends_though_a_write_beside_it_has_failed"])
        .arg("--nocapture")
        .env(DIR, scratch.path())
        .spawn()
        .unwrap();
    let ended = try_within(PATIENCE, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
    }
    assert!(ended.expect("no flush hangs").success());
    let generations = std::fs::read_to_string(scratch.path().join("generations")).unwrap();
    assert!(generations.parse::<u32>().unwrap() > 0);
}

/// A generation after the other, each until nothing can be written to it any more.
fn fill_again_and_again(dir: &Path) {
    fastrand::seed(random().u64(..));
    let storage = SledStorage::open(&dir.join("wal")).unwrap();
    let mut longest = Duration::ZERO;
    let mut first = 0;
    let (began, mut generations) = (Instant::now(), 0);
    while began.elapsed() < AT_WORK {
        let generation = storage.create(first).unwrap();
        let next = fill(&*generation, first, &mut longest);
        drop(generation);
        storage.delete(first).unwrap();
        first = next;
        generations += 1;
    }
    println!("{generations} generations, the longest flush took {longest:?}");
    std::fs::write(dir.join("generations"), generations.to_string()).unwrap();
}

/// Blocks from offset `first` on are written, and given up by another thread as soon as they are
/// synced: much sooner than the log may, so that the end of a removal often begins a write for which a
/// flush then waits. Returns the next offset.
fn fill(generation: &dyn Active, first: Offset, longest: &mut Duration) -> Offset {
    let (synced, to_remove) = mpsc::channel();
    std::thread::scope(|scope| {
        scope
            .spawn(move || to_remove.iter().try_for_each(|synced| generation.remove_below(synced)));
        let mut next = first;
        while write(generation, &mut next).is_continue() {
            let began = Instant::now();
            let flushed = generation.sync();
            *longest = began.elapsed().max(*longest);
            if flushed.is_err() {
                break;
            }
            // Nobody is there to hear it once a removal has failed.
            synced.send(next).ok();
        }
        drop(synced);
        next
    })
}

/// A few blocks, unless that fails.
fn write(generation: &dyn Active, next: &mut Offset) -> ControlFlow<()> {
    for _ in 0..fastrand::u32(1..4) {
        let first = *next;
        let readings: Vec<Record> =
            (0..fastrand::u64(1..100)).map(|n| of_ours(first + n).into()).collect();
        let received_at = vec![Timestamp::now(); readings.len()];
        let mut written = Ok(());
        let mut insert = |block, _, frame: Vec<u8>| {
            if written.is_ok() {
                written = generation.insert(block, &frame);
            }
        };
        encode(first, 0, &received_at, &readings, &mut insert).unwrap();
        *next += readings.len() as u64;
        if written.is_err() {
            return ControlFlow::Break(());
        }
    }
    ControlFlow::Continue(())
}

fn of_ours(number: u64) -> Reading {
    let crate::harness::Reading { device_id, micros, temperature, humidity, battery } =
        reading(number);
    let timestamp = Timestamp::from_micros(micros).unwrap();
    Reading { device_id, timestamp, values: [temperature, humidity, battery] }
}
