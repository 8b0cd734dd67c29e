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
//! waited on for ever. Every call is therefore bounded, here ([`QUERY_TIMEOUT`], …) or by its caller.
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

use std::path::Path;
use std::time::Duration;

use connections::Connections;
use duplicates::Duplicates;
use durability::Durability;
use lineage::Lineage;
use mapped::MappedTables;
use partitions::Partitions;
use queries::Tables;
use registry::Registry;
use retention::Retention;
use server::Server;
use session::Setting;
use tasks::Tasks;

use crate::base::time::{Clock as _, SystemClock};
use crate::telemetry::Record;
use crate::telemetry::mapping::Mappings;

mod connection_string;
mod connections;
mod duplicates;
mod durability;
mod examine;
mod failure;
mod insert;
mod instant;
mod keys;
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

pub(crate) use examine::{Examination, Rights};
pub(crate) use failure::Failure;
pub use insert::insert_statement;
pub(crate) use queries::{
    Ahead, Cursor, DeviceFilter, DevicePage, InvalidCursor, LogKey, Position, Relation,
    StoredReading, StoredValues, TOTAL_EXACT_UP_TO, TelemetryFilter, TelemetrySlice, Total, Walk,
};
pub(crate) use reindex::index_plan;
pub(crate) use retention::{Due, RetentionReport, TableKind};
pub(crate) use settings::{SETTINGS, Settings};
pub(crate) use shape::{Kind, Shape};

/// Longest wait for the answer to a query, connecting included. The contract's 3 s, less the
/// time to say so.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_millis(2_800);

/// What PostgreSQL is told of that, so that it gives up first and says why.
const QUERY_LIMIT: Duration = Duration::from_millis(2_600);
/// The log is trimmed on the word of a commit, so a commit must mean the disk, also where the server
/// was told otherwise for speed.
const WRITE_SETTINGS: &[Setting] = &[
    ("jit", "'off'"),
    (
        "synchronous_commit",
        "case current_setting('synchronous_commit') when 'off' then 'on' \
         else current_setting('synchronous_commit') end",
    ),
];
/// One plan for each query, the one that `queries` writes it for, also before the table has
/// statistics; made for the parameters at hand, without compiling it and without workers, either of
/// which takes longer than the query. What is left to choose from is judged by the rows that are looked at.
const QUERY_SETTINGS: &[Setting] = &[
    ("enable_seqscan", "'off'"),
    ("enable_bitmapscan", "'off'"),
    ("enable_sort", "'off'"),
    ("plan_cache_mode", "'force_custom_plan'"),
    ("jit", "'off'"),
    ("max_parallel_workers_per_gather", "'0'"),
    ("seq_page_cost", "'0.00001'"),
    ("random_page_cost", "'0.00001'"),
    ("cpu_operator_cost", "'0.0000001'"),
];
const QUERY_CONNECTIONS: usize = 4;
/// A batch that meets a connection which was cut is sent again, a query is not.
const TRUSTED_FOR_WRITES: Duration = Duration::from_secs(1);

/// The database as both halves of the service see it. Cloning is cheap and shares connections.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writes: Connections,
    queries: Connections,
    /// What is remembered of the database is told by it how old it is.
    clock: SystemClock,
    duplicates: Duplicates,
    /// What a statement with a batch may take.
    patience: Duration,
    durability: Durability,
    registry: Registry,
    partitions: Partitions,
    retention: Retention,
    reindexes_closed: bool,
    tasks: Tasks,
    tables: Tables,
    lineage: Lineage,
    mapped: MappedTables,
}

impl Database {
    /// Connects to nothing: that happens at the first use, and again whenever it is needed.
    /// `flush_connections` is how many batches may be written at once; which database has what was confirmed
    /// is remembered in `dir`, if there is one.
    ///
    /// # Errors
    /// If the driver cannot read the connection string, which its own check rules out.
    pub(crate) fn new(
        settings: &Settings,
        flush_connections: usize,
        dir: Option<&Path>,
    ) -> Result<Self, Failure> {
        let server = Server::new(settings)?;
        // Whoever gives a connection more time has a reason to give it to a batch as well.
        let patience = settings.connect_timeout * 2;
        // One more than there are batches, for `ping`.
        let places = flush_connections + 1;
        let writes = Connections::new(server.clone(), places, WRITE_SETTINGS, TRUSTED_FOR_WRITES);
        let queries = Connections::new(server, QUERY_CONNECTIONS, QUERY_SETTINGS, Duration::ZERO);
        let clock = SystemClock::default();
        Ok(Self {
            writes,
            queries,
            clock,
            duplicates: Duplicates::default(),
            durability: Durability::default(),
            registry: Registry::default(),
            partitions: Partitions::new(settings.partition_days, settings.partition_ahead_days),
            retention: Retention::new(settings.retention_days, clock.wall()),
            reindexes_closed: settings.reindex_closed,
            tasks: Tasks::default(),
            tables: Tables::default(),
            lineage: Lineage::new(dir, flush_connections),
            mapped: MappedTables::default(),
            patience,
        })
    }

    /// The same, which makes tables for what `mappings` fill, too.
    #[must_use]
    pub(crate) fn with_mappings(self, mappings: &Mappings) -> Self {
        Self { mapped: MappedTables::of(mappings), ..self }
    }

    /// Reads the login and the files of TLS again, from where `settings` say now. If any has changed, batches
    /// and queries that begin from now on use new connections. Returns what has. Blocks on the disk.
    ///
    /// # Errors
    /// A sentence; then all stays as it was.
    pub(crate) fn reload(&self, settings: &Settings) -> Result<Vec<&'static str>, String> {
        let (changes, login) = self.writes.server().reload(settings)?;
        self.writes.retire_before(login);
        self.queries.retire_before(login);
        Ok(changes)
    }

    /// These rows are the last that an earlier process was told are stored. Whether they are is looked at if
    /// the server was started again since.
    pub(crate) fn expect<'r>(&self, rows: impl Iterator<Item = &'r Record>) {
        self.lineage.expect(rows);
    }

    /// What keeps the database from keeping what it confirms, a sentence each, as it was found last.
    #[must_use]
    pub(crate) fn findings(&self) -> Vec<&'static str> {
        self.durability.findings()
    }

    /// Whether the database answers the flusher, found out without touching the table.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] if it does not within [`QUERY_TIMEOUT`], or a few round trips.
    pub(crate) async fn ping(&self) -> Result<(), Failure> {
        // A connection that takes longer to open is there for the next time.
        let mut lease = failure::within(QUERY_TIMEOUT, self.writes.lease()).await?;
        let session = lease.session();
        let patience = session.allowance(QUERY_TIMEOUT);
        let answer = failure::within(patience, async {
            if !self.look(session).await? {
                session.ping().await?;
            }
            Ok(())
        });
        let answer = answer.await;
        match answer {
            Ok(()) => lease.keep(),
            Err(Failure::WentBack { .. }) => lease.keep_as_new(),
            Err(_) => {}
        }
        answer
    }
}
