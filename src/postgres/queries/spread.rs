//! Tables whose rows are on several nodes (Citus): these are not asked for one look into the key for each of some
//! values that are sent along, which a node refuses that has not all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::postgres::failure::Failure;

/// PostgreSQL's "feature not supported".
const NOT_SUPPORTED: &str = "0A000";

/// Whether a table has refused that. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread(Arc<AtomicBool>);

impl Spread {
    pub(super) fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether that was refused for the first time, and the same is to be asked without.
    pub(super) fn learn_from<T>(&self, outcome: &Result<T, Failure>) -> bool {
        outcome.as_ref().is_err_and(is_refusal) && !self.0.swap(true, Ordering::Relaxed)
    }
}

/// Whether it is that.
pub(super) fn is_refusal(failure: &Failure) -> bool {
    failure.sqlstate() == Some(NOT_SUPPORTED)
}
