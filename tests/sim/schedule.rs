//! A schedule: a list of decisions, one a step, and what makes a failing one short.
//!
//! A seed gives a list, and the list alone says what happens: each step draws all it needs from its own
//! decision. So a step can be left out, and those behind it still decide as they did, only in another
//! state of the world. That is how a failure is made short, and why a failure is printed as its list.

use std::fmt;

/// All that one step decides.
pub(crate) type Decision = u32;

/// Steps of a schedule, the fewest and the most.
const STEPS: std::ops::RangeInclusive<usize> = 60..=200;

/// The schedule of a seed. The first decision sets the world up.
pub(crate) fn of_seed(seed: u64) -> Vec<Decision> {
    let mut random = fastrand::Rng::with_seed(seed);
    let steps = random.usize(STEPS);
    (0..=steps).map(|_| random.u32(..)).collect()
}

/// What a step draws from its decision.
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    pub(crate) fn of(decision: Decision) -> Self {
        Self(fastrand::Rng::with_seed(u64::from(decision)))
    }

    /// What draws the numbers, for what draws by itself.
    pub(crate) fn random(&mut self) -> &mut fastrand::Rng {
        &mut self.0
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    /// Whether something happens that does so once in `times`.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The shortest list that still fails, as far as leaving steps out finds it. `fails` is asked at most
/// [`TRIES`] times.
pub(crate) fn shrink(
    decisions: &[Decision],
    mut fails: impl FnMut(&[Decision]) -> bool,
) -> Vec<Decision> {
    const TRIES: usize = 5_000;
    let mut shortest = decisions.to_vec();
    let mut tries = 0;
    let mut stretch = shortest.len() / 2;
    while stretch > 0 {
        let before = shortest.len();
        // From the end, since what comes last is most often what the failure does not need. The first
        // decision stays: it sets the world up.
        let mut end = shortest.len();
        while end > 1 && tries < TRIES {
            let from = end.saturating_sub(stretch).max(1);
            let mut shorter = shortest.clone();
            shorter.drain(from..end);
            tries += 1;
            if fails(&shorter) {
                shortest = shorter;
            }
            end = from;
        }
        if shortest.len() == before || stretch > 1 {
            stretch /= 2;
        }
    }
    shortest
}

/// As it is printed, and read by [`parse`].
pub(crate) struct Listed<'d>(pub &'d [Decision]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, decision) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{decision:x}")?;
        }
        Ok(())
    }
}

/// The list that [`Listed`] has printed.
pub(crate) fn parse(listed: &str) -> Vec<Decision> {
    let decision = |hex: &str| Decision::from_str_radix(hex.trim(), 16).unwrap();
    listed.split(',').map(decision).collect()
}

#[test]
fn a_schedule_is_made_as_short_as_its_failure_needs() {
    let decisions: Vec<Decision> = (0..150).collect();
    let fails = |list: &[Decision]| list.contains(&17) && list.contains(&130);
    assert_eq!(shrink(&decisions, fails), [0, 17, 130]);
}

#[test]
fn a_schedule_that_was_printed_can_be_read_again() {
    let decisions = of_seed(7);
    assert_eq!(parse(&Listed(&decisions).to_string()), decisions);
}
