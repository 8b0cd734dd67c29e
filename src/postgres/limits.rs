//! How long answers of the database may take; batches and retention have limits of their own.

use std::time::Duration;

/// Longest wait for the answer to a query, connecting included. The contract's 3 s, less the
/// time to say so.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_millis(2_800);
/// What PostgreSQL is told of that, so that it gives up first and says why.
pub(super) const QUERY_LIMIT: Duration = Duration::from_millis(2_600);
/// What PostgreSQL is told of how long the answer to a look may take: what it is, and what is there.
pub(super) const LOOK_LIMIT: Duration = Duration::from_millis(2_600);
