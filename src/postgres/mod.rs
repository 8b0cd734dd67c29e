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
//! waited on for ever. Every call is therefore bounded here ([`INSERT_TIMEOUT`],
//! [`QUERY_TIMEOUT`], …). And since PostgreSQL does not notice a client that has given up on a
//! statement until it has an answer to send, every session has a `statement_timeout` a little
//! below that: what waits for a lock behind a dead client does not pile up.
//!
//! # Connections
//!
//! A connection is used again only after a statement that left it in a known state. After
//! anything else, a dropped future included, it is closed and a new one opened. See
//! `connections`, which also says why this is not sqlx's own pool.
//!
//! # PgBouncer
//!
//! In session mode it needs nothing. In transaction mode, add `statement-cache-capacity=0` to
//! the connection string: statements are then not prepared by name, and no settings are made
//! that would outlive the transaction and reach other clients. Set `statement_timeout` on the
//! role instead, and prepare the schema once over a direct connection, because the migration
//! lock belongs to a session.

use std::time::Duration;

use connections::Connections;
use insert::Duplicates;

mod connection_string;
mod connections;
mod failure;
mod insert;
mod queries;
mod schema;
mod settings;
mod table;

pub use connection_string::ConnectionString;
pub use failure::Failure;
pub use insert::Inserted;
pub use queries::{
    Cursor, DeviceFilter, DevicePage, Position, TOTAL_EXACT_UP_TO, TelemetryFilter, TelemetryPage,
    Total,
};
pub use schema::MIGRATE_TIMEOUT;
pub use settings::Settings;

/// Longest wait for one batch to be written, connecting included.
pub const INSERT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the answer to a query, connecting included. The contract's 3 s, less the
/// time to say so.
pub const QUERY_TIMEOUT: Duration = Duration::from_millis(2_800);

/// Beside the time: the log is trimmed on the word of a commit, so a commit must mean the disk, also
/// where the server was told otherwise for speed.
const WRITE_SETTINGS: &str = "
    set statement_timeout = '28s';
    set jit = off;
    select set_config('synchronous_commit', 'on', false)
    where current_setting('synchronous_commit') = 'off'";
const SCHEMA_SETTINGS: &str = "set statement_timeout = '290s'";
/// Beside the time: one plan for each query, the one that `queries` writes it for, also before
/// the table has statistics; made for the parameters at hand, without compiling it and without
/// workers, either of which takes longer than the query.
const QUERY_SETTINGS: &str = "
    set statement_timeout = '2600ms';
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_sort = off;
    set plan_cache_mode = force_custom_plan;
    set jit = off;
    set max_parallel_workers_per_gather = 0";
const QUERY_CONNECTIONS: usize = 4;

/// The database as both halves of the service see it. Cloning is cheap and shares connections.
#[derive(Clone, Debug)]
pub struct Database {
    writes: Connections,
    queries: Connections,
    duplicates: Duplicates,
}

impl Database {
    /// Connects to nothing: that happens at the first use, and again whenever it is needed.
    /// `flush_connections` is how many [`Self::insert`]s may run at once.
    ///
    /// # Errors
    /// If the driver cannot read the connection string, which its own check rules out.
    pub fn new(settings: &Settings, flush_connections: usize) -> Result<Self, Failure> {
        let server = connections::Server::new(&settings.url)?;
        // One more than there are batches, for `ping`.
        let places = flush_connections + 1;
        let writes = Connections::new(server.clone(), places, WRITE_SETTINGS);
        let queries = Connections::new(server, QUERY_CONNECTIONS, QUERY_SETTINGS);
        Ok(Self { writes, queries, duplicates: Duplicates::default() })
    }

    /// Whether the database answers the flusher, found out without touching the table.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] if it does not within [`QUERY_TIMEOUT`].
    pub async fn ping(&self) -> Result<(), Failure> {
        failure::within(QUERY_TIMEOUT, async {
            // A lease is always of a connection that has just answered.
            self.writes.lease().await?.keep();
            Ok(())
        })
        .await
    }
}
