//! What PostgreSQL has made of a batch.

/// What became of the rows that were written; whatever is in none of these was there already.
#[derive(Default)]
pub(super) struct Written {
    pub(super) inserted: u64,
    /// Rows that were there and got a value that they lacked.
    pub(super) merged: u64,
    /// Numbers of the rows that are not in the table, from 1, in the order in which they go in.
    pub(super) swallowed: Vec<i64>,
}

impl Written {
    pub(super) fn all(inserted: u64) -> Self {
        Self { inserted, ..Self::default() }
    }
}
