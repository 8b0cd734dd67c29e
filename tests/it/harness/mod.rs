//! What tests and benchmarks are made of: servers, the service, publishers, and a broker that follows
//! a script.
//!
//! Everything here blocks, and processes are started by the test's own thread alone: the kernel
//! ends a child when the *thread* that started it ends.

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) mod backlog;
pub(crate) mod browser;
pub(crate) mod clock;
pub(crate) mod http;
pub(crate) mod mosquitto;
pub(crate) mod pgbouncer;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod publisher;
pub(crate) mod readings;
pub(crate) mod scratch;
pub(crate) mod scripted;
pub(crate) mod service;
pub(crate) mod silent;
pub(crate) mod simulator;
pub(crate) mod visible;
pub(crate) mod wire;

pub(crate) use browser::Browser;
pub(crate) use mosquitto::Mosquitto;
pub(crate) use pgbouncer::PgBouncer;
pub(crate) use postgres::Postgres;
pub(crate) use publisher::{Load, Outgoing, Publisher};
pub(crate) use readings::{Reading, array, reading, readings};
pub(crate) use scratch::Scratch;
pub(crate) use scripted::ScriptedBroker;
pub(crate) use service::{Ingestor, Service};
pub(crate) use silent::Silent;
pub(crate) use simulator::Simulator;

/// Chance that can be had again: a failure shows the seed, and `TEST_SEED` repeats it.
pub(crate) fn random() -> fastrand::Rng {
    let seed = std::env::var("TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Says that a test, or a part of one, cannot run on this machine, in the file that `TEST_SKIPPED` names:
/// `scripts/test.sh` lists at its end what was left out. Without that the test fails, so that none that did not
/// run is taken for one that passed.
#[track_caller]
pub(crate) fn skip(why: &str) {
    list_skipped(std::env::var_os("TEST_SKIPPED").as_deref().map(Path::new), why);
}

/// As [`skip`], in this list.
#[track_caller]
pub(crate) fn list_skipped(list: Option<&Path>, why: &str) {
    let Some(list) = list else {
        panic!("cannot run here: {why}; TEST_SKIPPED=FILE skips it, and says so in FILE");
    };
    eprintln!("SKIPPED: {why}");
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let test = std::env::var("NEXTEST_TEST_NAME").unwrap_or(name);
    let mut list = OpenOptions::new().create(true).append(true).open(list).unwrap();
    // In one write: tests run beside each other.
    list.write_all(format!("{test}: {why}\n").as_bytes()).unwrap();
}

/// As [`skip`], for want of a tool, which on CI is a failure.
#[track_caller]
pub(crate) fn skip_without(tool: &str) {
    assert!(std::env::var_os("CI").is_none(), "on CI a test needs its tools: {tool}");
    skip(tool);
}

/// Longer than anything here takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const GLANCE: Duration = Duration::from_millis(5);

/// Looks until `look` sees something, for [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// Looks until `look` sees something, for `patience`.
#[track_caller]
pub(crate) fn within<T>(patience: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    try_within(patience, look).unwrap_or_else(|| panic!("not within {patience:?}: {what}"))
}

/// Looks until `look` sees something, for `patience`.
pub(crate) fn try_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let began = Instant::now();
        let seen = look();
        if seen.is_some() || Instant::now() >= deadline {
            return seen;
        }
        // A look that costs something must not be what the others wait for.
        std::thread::sleep(GLANCE.max(began.elapsed() * 2));
    }
}

/// Looks until `look` gives `expected`, for [`PATIENCE`]; shows what it gave last if it does not.
#[track_caller]
pub(crate) fn eventually_eq<T: PartialEq + Debug>(
    what: &str,
    expected: &T,
    mut look: impl FnMut() -> T,
) {
    let mut last = None;
    let seen = try_within(PATIENCE, || {
        let seen = look();
        let is_it = seen == *expected;
        last = Some(seen);
        is_it.then_some(())
    });
    assert!(seen.is_some(), "{what}: expected {expected:?}, and last saw {last:?}");
}
