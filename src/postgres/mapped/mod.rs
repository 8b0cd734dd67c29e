//! Rows of the tables that mappings fill: what the tables need, and how rows get there.
//!
//! Several messages may fill one row, in any order and as often as they come: a value is stored if there
//! is none yet. A batch is one statement for each of its tables where its rows are new. Where they may not
//! be, they are inserted first and filled up then, which tells rows that are new from those that got a
//! value and from those that got none, on whatever kind of table.
//!
//! Rows of the built-in shape come here where they share a batch with others, or where rows of `telemetry`
//! may lack a value. Rows go in by table and key, so that no two batches wait for each other.
//!
//! Devices of `telemetry` alone are put in the list of names (`registry`). A table that a mapping fills is
//! made here with its key, which finds the devices of one as well.

mod batch;
mod ensure;
mod look;
mod need;
mod rest;
mod rows;
mod statements;
mod tables;
mod value;

pub(super) use batch::Batch;
pub(super) use rows::TableRows;
pub(super) use tables::MappedTables;
