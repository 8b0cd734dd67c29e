//! What is sent once more, and whose turn it is, see `resend`.

use std::ops::Range;

use crate::wal::Offset;

/// What is to be sent again.
#[derive(Debug, Default)]
pub(super) struct Resend {
    /// Why, from when the sink said so until the log was rewound.
    pub(super) noticed: Option<String>,
    /// Not begun yet.
    pub(super) left: Range<Offset>,
    /// Everything below had been flushed; none once it is again.
    pub(super) until: Option<Offset>,
    /// Whether the last batch was of these, and not of newer rows.
    was_last: bool,
}

impl Resend {
    /// Of a batch that begins there, whether it had been flushed.
    pub(super) fn covers(&self, from: Offset) -> bool {
        self.until.is_some_and(|until| from < until)
    }

    /// The next so many, if it is their turn.
    pub(super) fn next(&mut self, size: u64, others_wait: bool) -> Option<Range<Offset>> {
        if self.left.is_empty() || (others_wait && self.was_last) {
            self.was_last = false;
            return None;
        }
        self.was_last = true;
        let from = self.left.start;
        self.left.start = self.left.end.min(from.saturating_add(size));
        Some(from..self.left.start)
    }
}
