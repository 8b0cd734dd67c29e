//! Partitions of a table that is partitioned by `ts`: made ahead, and where a row lacks one.
//!
//! There is none for "everything else" (`default`): PostgreSQL would look through it whenever another is
//! made, and reads it in every scan by time. What is late, or dated 2000, has a range of its own,
//! `telemetry_older`. A new partition is made as a table and then attached, which holds up neither reader
//! nor writer.

mod bounds;
mod make;
mod outcome;
mod plan;
mod state;
mod statements;

pub(super) use bounds::{BOUNDS, FROM_MICROS, SETTINGS, TO_MICROS};
pub(super) use outcome::Help;
pub(super) use plan::{DAY, FIRST, Grid, LAST, Range};
pub(super) use state::Partitions;
pub(super) use statements::{bound, statements};
