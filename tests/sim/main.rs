//! The deciders, joined: session, group and plan with the real log over a disk in memory, a model of the
//! broker, of PostgreSQL and of the dead-letter store, in simulated time. A seed decides all that
//! happens; whatever it is, what was acknowledged is in the table, in a letter or in the log after each
//! step, and where it belongs in the end.
//!
//! What is modelled is what the other side may do, not what it usually does: [`broker`] and [`database`]
//! say what that is. [`mutants`] are mistakes that must be found, which is how it is known that the rest
//! would be.
//!
//! `SIM_SCHEDULES` says how many schedules are tried, `SIM_SEED` from which one on, and `SIM_SCHEDULE`
//! has one tried again that a failure has printed. `scripts/torture.sh --cases sim` sets them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::cast_possible_truncation, reason = "numbers of a schedule are small")]
#![expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]

mod broker;
mod campaign;
mod database;
mod disk;
mod flusher;
mod intake;
mod kept;
mod ledger;
mod letters;
mod listed;
mod mutants;
mod publisher;
mod request;
mod schedule;
mod sink;
mod source;
mod trace;
mod wire;
mod world;

use campaign::Failure;
use schedule::{of_seed, parse};
use world::Shared;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn whatever_happens_what_was_acknowledged_is_in_the_table_a_letter_or_the_log() {
    if let Ok(listed) = std::env::var("SIM_SCHEDULE") {
        let run = campaign::run(&parse(&listed), None, &Shared::new());
        println!("{}", run.trace.render());
        assert_eq!(run.outcome, Ok(()));
        return;
    }
    let first = setting("SIM_SEED", 0);
    let count = setting("SIM_SCHEDULES", 100_000);
    if let Some(failure) = campaign::first_failure(first..first + count, None) {
        panic!("{}", campaign::tell(&failure, None));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let shared = Shared::new();
    for seed in 0..200 {
        let decisions = of_seed(seed);
        let [one, other] = [(); 2].map(|()| campaign::run(&decisions, None, &shared));
        assert_eq!(one.outcome, other.outcome, "seed {seed}");
        assert_eq!(one.trace.bytes(), other.trace.bytes(), "seed {seed}");
    }
}

#[test]
fn every_mutant_is_found_in_under_ten_thousand_schedules() {
    let shared = Shared::new();
    let mut missed = Vec::new();
    for mutant in mutants::ALL {
        let Some(Failure { seed, violation }) = campaign::first_failure(0..10_000, Some(*mutant))
        else {
            missed.push(mutant);
            continue;
        };
        println!("{mutant:?}: schedule {seed}: {violation}");
        let without = campaign::run(&of_seed(seed), None, &shared);
        assert_eq!(without.outcome, Ok(()), "it is not the mutant that schedule {seed} finds");
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
