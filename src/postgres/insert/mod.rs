//! Writing a batch, once or as often as it takes.
//!
//! A batch is a transaction: the names of devices that the list may lack go with its rows, and without them
//! where the list refuses them. What the statements look like says `columns` for readings of the built-in
//! shape, and `mapped` for the others.

use std::time::Duration;

use chrono::DateTime;
use columns::Columns;

use super::database::Database;
use super::failure::{Failure, within};
use super::mapped::{Batch, TableRows};
use super::partitions::Help;
use super::registry;
use super::session::{Scope, Session};
use super::written::Written;
use crate::base::time::Clock as _;
use crate::flusher::sink::{Refusal, Sink, SinkError, Stored};
use crate::telemetry::mapping::BUILT_IN_TABLE;
use crate::telemetry::{Reading, Record};

mod columns;

pub use columns::insert_statement;

/// So that PostgreSQL gives up first, and says why.
const GRACE: Duration = Duration::from_secs(2);

impl Sink for Database {
    fn patience(&self) -> Duration {
        self.patience
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        self.prepare_schema().await
    }

    async fn ping(&self) -> Result<(), SinkError> {
        Self::ping(self).await
    }

    fn accept(&self) {
        let had_another = self.lineage.accept();
        self.registry.forget();
        if had_another {
            self.writes.forget_idle();
            self.queries.forget_idle();
        }
    }

    fn remember(&self) {
        self.lineage.remember(self.clock.monotonic());
    }

    /// One statement: all rows are committed, or none. Where duplicates are expected it passes over
    /// them. Else it takes the rows for new, which is faster; if one is not, nothing is written, and
    /// the careful statement follows.
    ///
    /// Rows go in by time and device, so two batches in flight take the locks of the unique key in the
    /// same order and cannot deadlock; and the index on the time grows at its end alone, with full pages. Cancellation-safe in the sense that a batch whose future
    /// was dropped may or may not have been written, and can be sent again.
    async fn insert(&self, rows: &[&Record], limit: Duration) -> Result<Stored, SinkError> {
        if rows.is_empty() {
            return Ok(Stored::default());
        }
        let built_in = || rows.iter().map(|row| row.built_in()).collect::<Option<Vec<&Reading>>>();
        let stored = match if self.mapped.is_partial() { None } else { built_in() } {
            Some(rows) => self.insert_built_in(&rows, limit).await,
            None => self.insert_mapped(rows, limit).await,
        };
        let stored = stored?;
        if stored.swallowed.is_empty() {
            self.lineage.confirmed(rows);
        }
        Ok(stored)
    }
}

/// What is written at once.
enum Work<'b, 'r> {
    BuiltIn(&'b Columns<'r>),
    Tables(&'b Batch<'r>),
}

impl<'r> Work<'_, 'r> {
    /// Of rows of `telemetry`, in the order of time and device.
    fn device_ids(&self) -> &[&'r str] {
        match self {
            Self::BuiltIn(columns) => columns.device_ids(),
            Self::Tables(batch) => batch.device_ids(),
        }
    }

    /// When rows of `telemetry` were measured, since the Unix epoch.
    fn micros(&self) -> Vec<i64> {
        let timestamps = match self {
            Self::BuiltIn(columns) => columns.timestamps(),
            Self::Tables(batch) => batch.timestamps(),
        };
        timestamps.iter().map(DateTime::timestamp_micros).collect()
    }

    /// What its statements share.
    fn scope(&self) -> Scope {
        match self {
            Self::BuiltIn(_) => Scope::Statement,
            Self::Tables(batch) => batch.scope(),
        }
    }
}

impl Database {
    async fn insert_built_in(&self, rows: &[&Reading], limit: Duration) -> Result<Stored, Failure> {
        let batch = Columns::of(rows);
        let written = self.write_with_partitions(&Work::BuiltIn(&batch), limit).await;
        let Written { inserted, swallowed, .. } =
            written.inspect_err(|_| self.duplicates.expect())?;
        let swallowed = batch.indices(&swallowed, rows);
        let passed_over = (rows.len() as u64).saturating_sub(inserted);
        let duplicates = passed_over.saturating_sub(swallowed.len() as u64);
        Ok(Stored { inserted, duplicates, merged: 0, swallowed })
    }

    /// Rows of several tables, or shapes; one statement a table, or two.
    async fn insert_mapped(&self, rows: &[&Record], limit: Duration) -> Result<Stored, Failure> {
        let tables = TableRows::of(rows);
        let known = self.known_for(&tables).await?;
        let batch = Batch::new(tables, known).map_err(Failure::Refused)?;
        let written = match self.write_with_partitions(&Work::Tables(&batch), limit).await {
            Ok(written) => written,
            Err(Failure::Refused(refusal)) => {
                batch.expect_duplicates();
                let is_tables = refusal.is_tables || batch.was_refused_by_table();
                return Err(Failure::Refused(Refusal { is_tables, ..refusal }));
            }
            Err(failure) => {
                self.mapped.forget();
                return Err(failure.while_filling());
            }
        };
        if batch.was_stored_without(&written.swallowed) {
            // What was stored beside them is found there when it is sent again.
            batch.expect_duplicates();
            return Err(Failure::Refused(Refusal { is_tables: true, ..Refusal::swallowed() }));
        }
        let swallowed = batch.origins(&written.swallowed);
        let merged = written.merged + batch.merged(&written.swallowed);
        let stored = written.inserted + merged + swallowed.len() as u64;
        let duplicates = (rows.len() as u64).saturating_sub(stored);
        Ok(Stored { inserted: written.inserted, duplicates, merged, swallowed })
    }

    /// Once more if all that was missing is a partition.
    async fn write_with_partitions(
        &self,
        work: &Work<'_, '_>,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let mut written = self.write_durably(work, limit).await;
        if lacks_partition(&written) {
            let help = self.make_partitions_for(&work.micros()).await;
            if help != Help::None {
                written = self.write_durably(work, limit).await;
            }
            if help == Help::Found && lacks_partition(&written) {
                // Of another level, or another table's.
                self.partitions.set_aside(self.clock.monotonic());
            }
        }
        written
    }

    async fn write_durably(
        &self,
        work: &Work<'_, '_>,
        limit: Duration,
    ) -> Result<Written, Failure> {
        // Bounded in itself, by the time for connecting.
        let mut lease = self.writes.lease().await?;
        let session = lease.session();
        let patience = limit + session.allowance(GRACE);
        let outcome = within(patience, async {
            self.look(session).await.map_err(Failure::while_looking)?;
            let names = self.names_to_insert(work.device_ids());
            let mut outcome = self.write_with_names(work, &names, session, limit).await;
            match &outcome {
                Ok(_) => self.registry.learn(&names),
                Err(Unwritten::Names(failure)) => {
                    let failure = failure.clone();
                    session.abandon().await?;
                    outcome = self.write_with_names(work, &[], session, limit).await;
                    if outcome.is_ok() {
                        self.registry.set_aside(&failure, self.clock.monotonic());
                        self.tasks.set_lacks_names();
                    }
                }
                Err(Unwritten::Rows(_)) => {}
            }
            // A refusal leaves the connection in order, and the halves of the batch follow.
            if matches!(outcome, Err(Unwritten::Rows(Failure::Refused(_)))) {
                session.abandon().await?;
            }
            session.set_scope(Scope::Statement);
            outcome.map_err(|(Unwritten::Rows(failure) | Unwritten::Names(failure))| failure)
        })
        .await;
        if !matches!(outcome, Ok(_) | Err(Failure::Refused(_))) {
            // It may be another server that answers next, or an older state of this one.
            self.registry.forget();
        }
        match &outcome {
            // The database that was found is asked anew before it gets rows by this way.
            Err(Failure::WentBack { .. }) => lease.keep_as_new(),
            // What a rule has done away with PostgreSQL goes on doing away with where it was prepared,
            // also when the rule is gone.
            Ok(written) if !written.swallowed.is_empty() => {}
            Ok(_) | Err(Failure::Refused(_)) => lease.keep(),
            Err(_) => {}
        }
        outcome
    }

    /// The names of its devices that the list may lack.
    fn names_to_insert<'r>(&self, device_ids: &[&'r str]) -> Vec<&'r str> {
        let now = self.clock.monotonic();
        let names = self.registry.unknown(device_ids, now);
        if !names.is_empty() && self.registry.is_set_aside(now) {
            self.tasks.set_lacks_names();
            return Vec::new();
        }
        names
    }

    /// Commits what it writes. Leaves it to the caller to take back what it does not.
    async fn write_with_names(
        &self,
        work: &Work<'_, '_>,
        names: &[&str],
        session: &mut Session,
        limit: Duration,
    ) -> Result<Written, Unwritten> {
        let scope = if names.is_empty() { work.scope() } else { Scope::Transaction };
        session.set_scope(scope);
        session.begin(limit).await.map_err(Unwritten::Rows)?;
        let written = match work {
            Work::BuiltIn(columns) => self.write(columns, session, limit).await,
            Work::Tables(batch) => batch.write(session, limit).await,
        };
        let written = written.map_err(Unwritten::Rows)?;
        if names.is_empty() {
            session.end().await.map_err(Unwritten::Rows)?;
        } else {
            registry::insert_and_commit(session, names).await.map_err(|failure| match failure {
                // Nothing is known of either.
                Failure::Unavailable { sqlstate: None, .. } => Unwritten::Rows(failure),
                failure => Unwritten::Names(failure),
            })?;
        }
        Ok(written)
    }

    async fn write(
        &self,
        batch: &Columns<'_>,
        session: &mut Session,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let all = batch.device_ids().len() as u64;
        let key = self.durability.key().filter(|_| !self.duplicates.are_expected());
        if let Some(key) = key {
            match batch.insert_new(key, session).await {
                Err(failure) if failure.is_unique_violation() => {
                    session.abandon().await?;
                    session.begin(limit).await?;
                }
                // All are swallowed, or the key is gone.
                Ok(0) => self.durability.ask_soon(),
                Ok(inserted) if inserted < all => {
                    return self.look_for_rest(batch, inserted, session, limit).await;
                }
                outcome => return outcome.map(Written::all),
            }
        }
        let inserted = batch.insert_missing(session).await?;
        self.duplicates.note(all - inserted);
        if inserted < all {
            return self.look_for_rest(batch, inserted, session, limit).await;
        }
        Ok(Written::all(inserted))
    }

    /// Some rows were passed over, and no error said so: those that are not in the table were swallowed by a
    /// trigger, a rule or a policy.
    async fn look_for_rest(
        &self,
        batch: &Columns<'_>,
        mut inserted: u64,
        session: &mut Session,
        limit: Duration,
    ) -> Result<Written, Failure> {
        let spread = self.tables.spread(BUILT_IN_TABLE);
        let was_known = spread.is_known();
        let mut swallowed = batch.keys().missing(session, BUILT_IN_TABLE, was_known).await;
        if spread.learn_from(was_known, &swallowed) {
            if session.has_transaction() {
                // The rows are taken back with the question.
                session.abandon().await?;
                session.begin(limit).await?;
                inserted = batch.insert_missing(session).await?;
            }
            swallowed = batch.keys().missing(session, BUILT_IN_TABLE, true).await;
        }
        let swallowed = swallowed.map_err(Failure::while_looking)?;
        Ok(Written { inserted, swallowed, ..Written::default() })
    }
}

fn lacks_partition(written: &Result<Written, Failure>) -> bool {
    matches!(written, Err(Failure::Refused(refusal)) if refusal.lacks_partition())
}

/// What was not written.
enum Unwritten {
    Rows(Failure),
    /// The rows were, and were taken back with the names, or for another reason: without, they go in or tell.
    Names(Failure),
}
