//! All of an answer as a file, however long: CSV or NDJSON, made while it is sent.
//!
//! | what | bound |
//! |---|---|
//! | files that are made at once | `FILES` (`turns`) |
//! | connections to the database that they take, all together | `QUERIES` (`turns`), each for a page at a time |
//! | memory of a file | two pages of rows, and two pieces of text |
//! | a client that takes nothing | as for every answer, see `server` |
//!
//! What goes wrong before the first row is answered like any other error. What goes wrong behind it is tried
//! again for a while, and then breaks the transfer off, so that nobody takes a part for the whole.

mod devices;
mod file;
mod format;
mod rows;
mod sending;
mod source;
mod telemetry;
mod turns;

pub(super) use devices::devices;
pub(super) use file::Answered;
pub(super) use format::{Accepted, Wanted};
pub(super) use telemetry::telemetry;
pub(super) use turns::Turns;
