//! What `migrations/` says of the table, for whoever has to name a part of it.

/// The columns that a reading fills.
pub(super) const COLUMNS: [&str; 5] = ["device_id", "ts", "temperature", "humidity", "battery"];

/// As PostgreSQL names the constraint.
pub(super) const PRIMARY_KEY: &str = "telemetry_pkey";
