//! `RETENTION_DAYS`: readings whose time is older are removed, from `telemetry` and from the tables that the
//! mappings of the configuration fill. Unset, nothing ever is.
//!
//! By kind of table: TimescaleDB's own `drop_chunks`, whole partitions of ours, else small deletes with
//! pauses between them. "Older" is by the database's clock, so that several ingestors mean the same. What
//! looks like a mistake holds it up (`plan`). What came in within the last hour stays until the next time,
//! however old it says it is, unless TimescaleDB drops it, or the table has no `created_at`. It goes on
//! where it was broken off.

mod look;
mod plan;
mod remove;
mod report;
mod run;
mod state;

pub(crate) use report::{Due, RetentionReport, TableKind};
pub(super) use state::Retention;
