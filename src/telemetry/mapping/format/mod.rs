//! Formats: from the bytes of a message to JSON text, along which all mappings read.
//!
//! JSON is read as it stands; everything else is written out as JSON first, value by value in the order
//! of the message and with what stands twice in it, so that one reader along the paths serves all:
//! duplicates, `extra` and what nothing looks at are the same for each. Lines, rows and records become
//! the elements of an array. One that cannot be read is set aside, with the reason, and costs none of
//! its neighbours.
//!
//! Payloads that begin with the magic bytes of gzip or zstd are unpacked before, in any format: neither
//! can be the beginning of a whole message of another. What they unpack to is bounded. Only mappings do
//! so; the built-in shape is taken as it always was.

mod binary;
mod cells;
mod document;
mod kind;
mod lines;
mod read;
mod recognize;
mod senml;
mod unpack;

pub(super) use document::{Document, Fault};
pub(super) use kind::{Format, MANY};
pub(super) use read::read;
pub(crate) use recognize::{recognize, recognize_time};
pub(crate) use unpack::is_packed;
