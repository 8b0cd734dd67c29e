//! Tables whose rows are on several nodes (Citus): these are not asked for one look into the key for each of some
//! values that are sent along, which a node refuses that has not all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::Failure;

/// PostgreSQL's "feature not supported".
const NOT_SUPPORTED: &str = "0A000";

/// Whether a table has refused that. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread(Arc<AtomicBool>);

impl Spread {
    pub(super) fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// It has.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether that was refused, and the same is to be asked without; not if it `was_known` when it was asked.
    pub(super) fn learn_from<T>(&self, was_known: bool, outcome: &Result<T, Failure>) -> bool {
        let is_new = !was_known && outcome.as_ref().is_err_and(is_refusal);
        if is_new {
            self.note();
        }
        is_new
    }
}

/// Whether it is that.
pub(super) fn is_refusal(failure: &Failure) -> bool {
    failure.sqlstate() == Some(NOT_SUPPORTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_asked_before_it_was_known_asks_once_more_and_nobody_else() {
        let spread = Spread::default();
        let failed = |sqlstate: &str| {
            let sqlstate = Some(sqlstate.to_owned());
            Err::<(), _>(Failure::Unavailable { reason: String::new(), sqlstate })
        };
        assert!(!spread.learn_from(spread.is_known(), &failed("57014")));
        assert!(!spread.is_known());
        // Two at a time.
        let was_known = [spread.is_known(), spread.is_known()];
        assert!(was_known.iter().all(|was_known| spread.learn_from(*was_known, &failed("0A000"))));
        assert!(spread.is_known());
        assert!(!spread.learn_from(spread.is_known(), &failed("0A000")));
    }
}
