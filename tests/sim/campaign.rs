//! Many schedules, over all processors, and what is printed of one that fails.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ledger::Violation;
use crate::mutants::Mutant;
use crate::schedule::{self, Decision, Listed};
use crate::world::{self, Run, Shared};

/// A schedule that broke a promise.
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) violation: Violation,
}

/// Runs the schedule; a panic of what is tested is a violation too.
pub(crate) fn run(decisions: &[Decision], mutant: Option<Mutant>, shared: &Shared) -> Run {
    let run = || world::run(decisions, mutant, shared);
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Violation(format!("panicked: {}", text.unwrap_or_default()));
        Run { trace: crate::trace::Trace::default(), outcome: Err(violation) }
    })
}

/// The failure with the lowest seed of those that were found when one was.
pub(crate) fn first_failure(seeds: Range<u64>, mutant: Option<Mutant>) -> Option<Failure> {
    let next = AtomicU64::new(seeds.start);
    let found: Mutex<Option<Failure>> = Mutex::new(None);
    let work = || {
        let shared = Shared::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let Run { outcome, .. } = run(&schedule::of_seed(seed), mutant, &shared);
            if let Err(violation) = outcome {
                next.store(seeds.end, Ordering::Relaxed);
                let mut found = found.lock().unwrap();
                if found.as_ref().is_none_or(|other| other.seed > seed) {
                    *found = Some(Failure { seed, violation });
                }
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap()
}

/// A failure, told so that it can be looked into.
pub(crate) struct Told {
    seed: u64,
    shortest: Vec<Decision>,
    run: Run,
}

/// Makes the schedule of a failure as short as it can be.
pub(crate) fn tell(failure: &Failure, mutant: Option<Mutant>) -> Told {
    let shared = Shared::new();
    let fails = |decisions: &[Decision]| run(decisions, mutant, &shared).outcome.is_err();
    let shortest = schedule::shrink(&schedule::of_seed(failure.seed), fails);
    let run = run(&shortest, mutant, &shared);
    Told { seed: failure.seed, shortest, run }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, shortest, run } = self;
        let violation = run.outcome.as_ref().err().map_or("", |violation| &violation.0);
        let steps = shortest.len() - 1;
        writeln!(f, "schedule {seed}; of its steps {steps} are enough:\n{}", run.trace.render())?;
        writeln!(f, "{violation}\nagain: SIM_SCHEDULE={}", Listed(shortest))
    }
}
