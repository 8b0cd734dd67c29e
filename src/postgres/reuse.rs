//! Whether a connection that has been idle may be used again. Pure.

use std::time::Duration;

/// Firewalls forget connections that are idle for longer, without telling either end.
const MAX_IDLE: Duration = Duration::from_secs(5 * 60);
/// So that a failover, or a new address in DNS, reaches a connection that never idles.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// What is known of an idle connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    /// Since it was opened.
    pub(super) age: Duration,
    /// Since it was last used.
    pub(super) idle: Duration,
    /// The version of the login that it was opened with.
    pub(super) login: u64,
}

/// Whether it may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Without a question.
    AtOnce,
    /// If it answers one.
    IfItAnswers,
    /// Close it.
    No,
}

/// Decides it. `trust`: how long an idle connection is believed to work without a question. `login`: the version
/// of the login that it must have been opened with, or a later one.
pub(super) fn reuse(past: Past, trust: Duration, login: u64) -> Reuse {
    if past.login < login || past.idle >= MAX_IDLE || past.age >= MAX_AGE {
        Reuse::No
    } else if past.idle < trust {
        Reuse::AtOnce
    } else {
        Reuse::IfItAnswers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUST: Duration = Duration::from_secs(10);
    const LOGIN: u64 = 7;
    const GOOD: Past = Past { age: TRUST, idle: Duration::ZERO, login: LOGIN };

    fn just_under(limit: Duration) -> Duration {
        limit.saturating_sub(Duration::from_nanos(1))
    }

    #[test]
    fn a_connection_is_used_again_while_it_is_neither_old_nor_long_idle_nor_of_an_older_login() {
        for (past, expected) in [
            (GOOD, Reuse::AtOnce),
            (Past { idle: just_under(TRUST), ..GOOD }, Reuse::AtOnce),
            (Past { idle: TRUST, ..GOOD }, Reuse::IfItAnswers),
            (Past { idle: just_under(MAX_IDLE), age: MAX_IDLE, ..GOOD }, Reuse::IfItAnswers),
            (Past { idle: MAX_IDLE, age: MAX_IDLE, ..GOOD }, Reuse::No),
            (Past { age: just_under(MAX_AGE), ..GOOD }, Reuse::AtOnce),
            (Past { age: MAX_AGE, ..GOOD }, Reuse::No),
            (Past { login: LOGIN - 1, ..GOOD }, Reuse::No),
            (Past { login: LOGIN + 1, ..GOOD }, Reuse::AtOnce),
        ] {
            assert_eq!(reuse(past, TRUST, LOGIN), expected, "{past:?}");
        }
    }

    #[test]
    fn trust_makes_no_connection_usable_that_is_idle_for_too_long() {
        let past = Past { idle: MAX_IDLE, age: MAX_IDLE, ..GOOD };
        assert_eq!(reuse(past, Duration::MAX, LOGIN), Reuse::No);
    }

    #[test]
    fn without_trust_every_connection_is_asked() {
        assert_eq!(reuse(GOOD, Duration::ZERO, LOGIN), Reuse::IfItAnswers);
    }
}
