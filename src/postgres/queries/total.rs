//! How many there are of what is answered page by page.

/// Rows up to which a total is counted.
pub const TOTAL_EXACT_UP_TO: u32 = 100_000;

/// How many match, on this page or off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// At most [`TOTAL_EXACT_UP_TO`].
    pub rows: u64,
    /// Whether there are no more than `rows`.
    pub exact: bool,
}

impl Total {
    /// Of what was counted up to one more than [`TOTAL_EXACT_UP_TO`].
    #[must_use]
    pub fn of(counted: u64) -> Self {
        let most = u64::from(TOTAL_EXACT_UP_TO);
        Self { rows: counted.min(most), exact: counted <= most }
    }
}
