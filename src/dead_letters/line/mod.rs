//! One line of a segment: a CRC-32 in hex, a space, a JSON object, a line feed. The object is one of
//!
//! - a letter: `{"id","received_at_micros","topic","stage","reason","payload"}`;
//! - the letters of one message, where that is shorter: `{"first_id","received_at_micros","topic",
//!   "reasons":[[stage, reason]],"parts":[[start, end, reason]],"payload"}`, with the payload once, and
//!   behind the object a space and a dot for each part;
//! - `{"removed":id}`, which earlier versions wrote.
//!
//! A payload is base64, since it may be anything. A letter is removed by one byte that is written over,
//! which needs no space on a full disk: the dot of its part becomes an `x`; where a line is one letter,
//! the first digit of its checksum does.

mod entry;
mod object;
mod read;

pub(super) use entry::Entry;
pub(super) use object::REMOVED;
pub(super) use read::Line;
