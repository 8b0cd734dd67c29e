//! What letters say of what a message is refused for, and where it stands in it.

use std::ops::Range;

use crate::dead_letters::PAYLOAD_MAX_BYTES;
use crate::telemetry::Record;
use crate::telemetry::rejection::{Reason, Rejection, Tally};
use crate::wal::frame;

/// The record, if a block of the log has room for it by itself.
pub(crate) fn fitting(record: Record) -> Result<Record, Rejection> {
    if !frame::is_too_long(&record) {
        return Ok(record);
    }
    let what = format!(
        "the row of table \"{}\" does not fit into a block of the log, with the names of its columns",
        record.table()
    );
    Err(Rejection::new(Reason::ReadingTooLarge, what))
}

/// Where `part` stands in `payload`.
pub(super) fn place(payload: &[u8], part: &[u8]) -> Range<usize> {
    let from = part.as_ptr().addr().saturating_sub(payload.as_ptr().addr());
    from..from + part.len()
}

/// What the letter says; also what becomes of a payload that is too long for it.
pub(super) fn explain(rejection: Rejection, payload: &[u8]) -> String {
    match rejection.reason {
        Reason::PayloadTooLarge => {
            let kept = payload.len().min(PAYLOAD_MAX_BYTES);
            format!("{rejection}; its first {kept} are kept")
        }
        _ => rejection.message.into_owned(),
    }
}

/// What the letter says that stands for all the readings of a message beyond the first hundred.
pub(super) fn sum_up(rest: &Tally, payload: &[u8]) -> String {
    let count = rest.total();
    let kept = if payload.len() > PAYLOAD_MAX_BYTES {
        format!("the first {PAYLOAD_MAX_BYTES} bytes of the message are")
    } else {
        "the whole message is".to_owned()
    };
    format!("{count} more readings of this message were rejected ({rest}); {kept} kept here")
}
