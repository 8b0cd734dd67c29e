//! The database, as both halves of the service see it: what it has, and how it is begun.

use std::path::Path;
use std::time::Duration;

use super::connections::Connections;
use super::duplicates::Duplicates;
use super::durability::Durability;
use super::failure::{Failure, within};
use super::limits::QUERY_TIMEOUT;
use super::lineage::Lineage;
use super::mapped::MappedTables;
use super::partitions::Partitions;
use super::queries::Tables;
use super::registry::Registry;
use super::retention::Retention;
use super::server::Server;
use super::session::{QUERY_SETTINGS, Setting};
use super::settings::Settings;
use super::tasks::Tasks;
use crate::base::time::{Clock as _, SystemClock};
use crate::telemetry::Record;
use crate::telemetry::mapping::Mappings;

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
const QUERY_CONNECTIONS: usize = 4;
/// A batch that meets a connection which was cut is sent again, a query is not.
const TRUSTED_FOR_WRITES: Duration = Duration::from_secs(1);

/// See the module. Cloning is cheap and shares connections.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(super) writes: Connections,
    pub(super) queries: Connections,
    /// What is remembered of the database is told by it how old it is.
    pub(super) clock: SystemClock,
    pub(super) duplicates: Duplicates,
    /// What a statement with a batch may take.
    pub(super) patience: Duration,
    pub(super) durability: Durability,
    pub(super) registry: Registry,
    pub(super) partitions: Partitions,
    pub(super) retention: Retention,
    pub(super) reindexes_closed: bool,
    pub(super) tasks: Tasks,
    pub(super) tables: Tables,
    pub(super) lineage: Lineage,
    pub(super) mapped: MappedTables,
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
        let mut lease = within(QUERY_TIMEOUT, self.writes.lease()).await?;
        let session = lease.session();
        let patience = session.allowance(QUERY_TIMEOUT);
        let answer = within(patience, async {
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
