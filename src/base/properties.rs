//! How property tests are configured: they try the same cases in every run, unless the environment says otherwise.

use std::env;

use proptest::test_runner::{Config, RngSeed};

/// The usual number of cases.
pub(crate) fn seeded() -> Config {
    seeded_cases(Config::default().cases)
}

/// So many cases, unless `PROPTEST_CASES` says how many: that is a campaign, whose seed is another each time,
/// and is printed. `PROPTEST_RNG_SEED` repeats it.
pub(crate) fn seeded_cases(cases: u32) -> Config {
    let usual = Config { failure_persistence: None, ..Config::default() };
    let is_campaign = env::var_os("PROPTEST_CASES").is_some();
    Config {
        cases: if is_campaign { usual.cases } else { cases },
        rng_seed: seed(usual.rng_seed, is_campaign),
        ..usual
    }
}

fn seed(given: RngSeed, is_campaign: bool) -> RngSeed {
    match given {
        RngSeed::Random if is_campaign => {
            let seed = fastrand::u64(..);
            eprintln!("PROPTEST_RNG_SEED={seed}");
            RngSeed::Fixed(seed)
        }
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    }
}

#[test]
fn cases_are_the_same_in_every_run_but_for_those_of_a_campaign() {
    let again = || seed(RngSeed::Random, false);
    assert!(matches!((again(), again()), (RngSeed::Fixed(a), RngSeed::Fixed(b)) if a == b));
    let campaign = || seed(RngSeed::Random, true);
    assert!(matches!((campaign(), campaign()), (RngSeed::Fixed(a), RngSeed::Fixed(b)) if a != b));
    assert!(matches!(seed(RngSeed::Fixed(7), true), RngSeed::Fixed(7)));
}
