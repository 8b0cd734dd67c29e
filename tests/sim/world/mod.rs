//! The whole: devices, broker, the process with its three deciders, disk, letters and database, in one
//! simulated time, driven by a list of decisions.

mod actors;
mod faults;
mod kinds;
mod lifecycle;
mod operator;
mod rest;
mod state;

use std::time::Duration;

use crate::ledger::{Stored, Violation};
use crate::mutants::Mutant;
use crate::schedule::{Decision, Dice};
use crate::trace::{Happened, Trace};

pub(crate) use state::Shared;

use state::World;

/// How a schedule went.
pub(crate) struct Run {
    pub(crate) trace: Trace,
    pub(crate) outcome: Result<(), Violation>,
}

/// Runs a schedule to its end, or to the first promise that is broken.
pub(crate) fn run(decisions: &[Decision], mutant: Option<Mutant>, shared: &Shared) -> Run {
    let (setup, steps) =
        decisions.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
    let mut world = World::new(setup, mutant, shared);
    let mut go = || {
        for step in steps {
            world.step(*step)?;
        }
        world.come_to_rest()
    };
    let outcome = go();
    Run { trace: world.trace, outcome }
}

impl World<'_> {
    fn step(&mut self, decision: Decision) -> Result<(), Violation> {
        let mut dice = Dice::of(decision);
        let pass = if dice.one_in(16) { dice.below(20_000) } else { dice.below(30) };
        self.let_pass(Duration::from_millis(pass as u64));
        self.trace.note(Happened::Step, u64::from(decision), self.now.as_millis() as u64);
        if dice.one_in(2) {
            self.hear_of_replays();
        }
        match dice.below(10) {
            0..2 => self.publish(&mut dice),
            2..8 => {
                for _ in 0..=dice.below(12) {
                    self.act(&mut dice)?;
                }
            }
            _ if self.faults.is_empty() => {}
            _ => {
                let fault = dice.pick(&self.faults);
                self.trace.note(Happened::Fault, fault as u64, 0);
                self.fail(fault, &mut dice)?;
            }
        }
        self.ledger.give_up(self.retained());
        self.check_order()?;
        self.check_books()?;
        self.ledger.check(&Stored { database: &self.database, letters: &self.letters })
    }
}
