//! How often a case was tried, and what came of it.

use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// What one try has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// Readings and rejected messages that were acknowledged and are nowhere.
    pub(super) lost: usize,
    /// Rows that are there twice, or differ from what was sent, or were never sent.
    pub(super) wrong: usize,
    /// From the end of the fault until nothing waits any more.
    pub(super) recovery: Duration,
}

/// Runs `attempt` with one seed after the other and reports.
///
/// How often is `count`, or `TORTURE_COUNT`; the first seed is at random, or `TORTURE_SEED`. Any of
/// them can be run alone by `TORTURE_COUNT=1 TORTURE_SEED=<seed>`.
///
/// `attempt` may end the campaign with `None`.
pub(super) fn campaign(case: &str, count: u64, mut attempt: impl FnMut(u64) -> Option<Found>) {
    let count = from_environment("TORTURE_COUNT").unwrap_or(count);
    let first = from_environment("TORTURE_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let began = Instant::now();
    let (mut done, mut lost, mut wrong, mut longest) = (0, 0, 0, Duration::ZERO);
    let mut failed = Vec::new();
    for seed in first..first.saturating_add(count) {
        let outcome = catch_unwind(AssertUnwindSafe(|| attempt(seed)));
        let found = outcome.unwrap_or_else(|panic| {
            eprintln!("case {case}: failed with TORTURE_SEED={seed} TORTURE_COUNT=1");
            resume_unwind(panic)
        });
        let Some(found) = found else { break };
        done += 1;
        lost += found.lost;
        wrong += found.wrong;
        longest = longest.max(found.recovery);
        if found.lost + found.wrong > 0 {
            eprintln!("case {case}, TORTURE_SEED={seed}: {found:?}");
            failed.push(seed);
        }
    }
    let line = format!("{case}\t{done}\t{lost}\t{wrong}\t{:.1}", longest.as_secs_f64());
    eprintln!("{line}\t({:.0} s)", began.elapsed().as_secs_f64());
    if let Ok(path) = std::env::var("TORTURE_RESULTS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
    assert!(failed.is_empty(), "case {case}: lost or doubled with TORTURE_SEED in {failed:?}");
}

pub(super) fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
