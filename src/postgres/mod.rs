//! PostgreSQL: the only sqlx files.
//!
//! A [`Database`] writes batches for the flusher and answers the queries of the HTTP side, over
//! connections of their own, so that neither can starve the other. Nothing here is tried twice:
//! a call ends, within its time, in a result or in a [`Failure`] that says what its caller does
//! about it.
//!
//! # Time
//!
//! The driver sets no TCP keep-alive, so a connection that is open on this side only would be
//! waited on for ever. Every call is therefore bounded, here ([`limits`]) or by its caller.
//! And since PostgreSQL does not notice a client that has given up on a statement until it has an
//! answer to send, every statement has a `statement_timeout` a little below that: what waits for a
//! lock behind a dead client does not pile up.
//!
//! # Connections
//!
//! A connection is used again only after a statement that left it in a known state. After
//! anything else, a dropped future included, it is closed and a new one opened. See
//! `connections`, which also says why this is not sqlx's own pool.
//!
//! # PgBouncer
//!
//! It needs nothing, in session and in transaction mode: see `session`.

mod connection_string;
mod connections;
mod database;
mod duplicates;
mod durability;
mod examine;
mod failure;
mod hypertable;
mod insert;
mod instant;
mod keys;
mod limits;
mod lineage;
mod locks;
mod look;
mod mapped;
mod partitions;
mod queries;
mod registry;
mod reindex;
mod reshape;
mod retention;
mod reuse;
mod schema;
mod server;
mod session;
mod settings;
mod shape;
mod spread;
mod table;
mod tasks;
mod upkeep;
mod written;

pub(crate) use database::Database;
pub(crate) use examine::{Examination, Rights};
pub(crate) use failure::Failure;
pub use insert::insert_statement;
pub(crate) use limits::QUERY_TIMEOUT;
pub(crate) use queries::{
    Ahead, Cursor, DeviceFilter, DevicePage, InvalidCursor, LogKey, Position, Relation,
    StoredReading, StoredValues, TOTAL_EXACT_UP_TO, TelemetryFilter, TelemetrySlice, Total, Walk,
};
pub(crate) use reindex::index_plan;
pub(crate) use retention::{Due, RetentionReport, TableKind};
pub(crate) use settings::{SETTINGS, Settings};
pub(crate) use shape::{Kind, Shape};
