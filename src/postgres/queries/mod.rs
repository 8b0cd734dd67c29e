//! What the HTTP side asks.
//!
//! No answer may depend on the planner's guesses, because a guess that is wrong once in a while
//! is a slow answer once in a while. So each statement asks for an order that one index alone
//! provides, with a limit, on a session whose settings rule out what is not an index: that index
//! is then the plan, whatever the statistics say. And each is bounded in time, see `window`, so that of a
//! table that is partitioned it touches no more than it has to.
//!
//! - All devices: `ts desc, device_id desc`, from the index on `ts`; readings of one microsecond are
//!   sorted by device on the way, by its bytes.
//! - One device: `ts desc`, from the unique index, partition after partition until there is enough. The
//!   index on `ts` has that order as well, and for a device that is common, but silent of late, the
//!   planner would walk it past everything newer, because the rows lie in it side by side. So the
//!   settings say that a page costs next to nothing, and a comparison on the way down an index: then it
//!   costs less to find just those rows, unless the statistics know of no other device at all.
//!   A device's `ts` is unique, so this is the order of `ts desc, device_id desc` too.
//! - One row: by `device_id`, as an order, from the unique index. Where each time is thought to be there
//!   once, the index on `ts` would do as well, and a moment of many devices be read through for each of them.
//!
//! What PostgreSQL's distributed relatives refuse is not here: no join of the table but with values that
//! are sent along, and no recursion. Where they refuse that join too, the same is asked without, see [`super::spread`].

mod columns;
mod cursor;
mod devices;
mod fault;
mod in_table;
mod latest;
mod names;
mod relation;
mod row;
mod tables;
mod telemetry;
mod total;
mod walk;
mod window;

pub(crate) use cursor::{Cursor, InvalidCursor};
pub(crate) use devices::{DeviceFilter, DevicePage};
pub(crate) use in_table::LogKey;
pub(crate) use relation::Relation;
pub(crate) use row::{StoredReading, StoredValues};
pub(super) use tables::Tables;
pub(crate) use telemetry::{Position, TelemetryFilter, TelemetrySlice};
pub(crate) use total::{TOTAL_EXACT_UP_TO, Total};
pub(crate) use walk::{Ahead, Walk};
