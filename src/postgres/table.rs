//! What `migrations/` says of the table, for whoever has to name a part of it.

use crate::telemetry::fields::{COUNT, FIELDS};
use crate::telemetry::mapping::{DEVICES_TABLE, OLDER_PARTITION};

/// The columns that a reading fills.
pub(super) const COLUMNS: [&str; 2 + COUNT] = {
    let mut columns = ["device_id"; 2 + COUNT];
    columns[1] = "ts";
    let mut at = 0;
    while at < COUNT {
        columns[2 + at] = FIELDS[at].name;
        at += 1;
    }
    columns
};

/// As PostgreSQL names the constraint.
pub(super) const PRIMARY_KEY: &str = "telemetry_pkey";

/// The index on `ts`.
pub(super) const TS_INDEX: &str = "telemetry_ts_idx";

/// The index on the time of arrival.
pub(super) const ARRIVAL_INDEX: &str = "telemetry_created_at_idx";

/// The names of the devices.
pub(super) const DEVICES: &str = DEVICES_TABLE;

/// The partition of what is older than all others.
pub(super) const OLDER: &str = OLDER_PARTITION;

/// The check that `ingestor schema partition` adds, for as long as it works: no row lies behind the boundary.
pub(super) const PARTITION_BOUND: &str = "telemetry_partition_bound";

/// Where the service notes which migrations it has applied.
pub(super) const MIGRATIONS_TABLE: &str = "_iot_ingestor_migrations";

/// The same as a list in SQL.
pub(super) fn columns() -> String {
    COLUMNS.join(", ")
}

/// A name that cannot be taken for anything else.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
