//! Mistakes that the simulation has to find: each breaks one promise of a decider in its shell.

use crate::campaign::{self, Failure};
use crate::schedule;
use crate::world::Shared;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A settlement of an earlier connection counts for the present one.
    NoEpochCheck,
    /// A group is acknowledged, and committed then.
    AckBeforeCommit,
    /// Two answers change places.
    AcksOutOfOrder,
    /// A batch that is stored is trimmed, although an earlier one is not.
    TrimPastAGap,
    /// A batch is trimmed when it is sent.
    TrimBeforeTheCommit,
    /// A row that the database refuses makes no letter.
    DroppedPoisonRow,
    /// After an answer that was lost the rows are sent by a statement that does not need the key.
    BatchTwiceWithoutTheKey,
    /// Letters of the database make room for others.
    EvictedLettersOfTheDatabase,
    /// A sync that failed is tried again, and believed.
    RetryOfAFailedSync,
    /// The session does not hear that the log is full.
    FullLogThatDoesNotLeave,
    /// A stop leaves the broker before the intake has settled all it was given.
    StopThatDoesNotWait,
}

const ALL: &[Mutant] = &[
    Mutant::NoEpochCheck,
    Mutant::AckBeforeCommit,
    Mutant::AcksOutOfOrder,
    Mutant::TrimPastAGap,
    Mutant::TrimBeforeTheCommit,
    Mutant::DroppedPoisonRow,
    Mutant::BatchTwiceWithoutTheKey,
    Mutant::EvictedLettersOfTheDatabase,
    Mutant::RetryOfAFailedSync,
    Mutant::FullLogThatDoesNotLeave,
    Mutant::StopThatDoesNotWait,
];

#[test]
fn every_mutant_is_found_in_under_ten_thousand_schedules() {
    let shared = Shared::new();
    let mut missed = Vec::new();
    for mutant in ALL {
        let Some(Failure { seed, violation }) = campaign::first_failure(0..10_000, Some(*mutant))
        else {
            missed.push(mutant);
            continue;
        };
        println!("{mutant:?}: schedule {seed}: {violation}");
        let without = campaign::run(&schedule::of_seed(seed), None, &shared);
        assert_eq!(without.outcome, Ok(()), "it is not the mutant that schedule {seed} finds");
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
