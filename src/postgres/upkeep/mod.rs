//! What the table needs beside rows, done in the background, so that no row waits for it.
//!
//! A migration that was put off ([`super::schema`]) is tried again, the names of devices are
//! gathered from rows that were there before their list was ([`backfill`]), partitions are made ahead
//! ([`super::partitions`]), and the indexes of closed ones built anew ([`closed`]). Names and indexes take as long
//! as they take, and hold up nothing else. All of it can be broken off at any time and goes on where it was.

use std::time::Duration;

use super::database::Database;
use super::schema::Migrated;
use crate::base::time::Clock as _;

mod backfill;
mod closed;

use backfill::Backfill;

/// Until the next look, unless something happens before.
const PAUSE: Duration = Duration::from_secs(5);
/// Closed partitions are looked for so often, once all are done.
const CLOSED_EVERY: Duration = Duration::from_secs(60 * 60);
/// Partitions are looked after so often,
const PARTITIONS_EVERY: Duration = Duration::from_secs(60 * 60);
/// or that soon where it failed.
const PARTITIONS_AGAIN: Duration = Duration::from_secs(60);

impl Database {
    /// Does it, without end. An outage is the flusher's to report: what fails here is tried again.
    pub(crate) async fn upkeep(self) {
        let (table, names, closed) = (self.clone(), self.clone(), self);
        tokio::join!(
            table.look_after_table(),
            names.look_after_names(),
            closed.look_after_closed()
        );
    }

    async fn look_after_table(self) {
        let mut partitions_at = self.clock.monotonic();
        loop {
            tokio::select! {
                () = self.tasks.woken() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
            if !self.tasks.is_prepared() {
                continue;
            }
            self.catch_up().await;
            if self.clock.monotonic() >= partitions_at {
                let now = self.clock.monotonic();
                partitions_at = now + self.look_after_partitions().await;
            }
        }
    }

    async fn look_after_names(self) {
        let mut backfill = Backfill::default();
        loop {
            tokio::time::sleep(PAUSE).await;
            if self.tasks.is_prepared() {
                backfill.run(&self).await;
            }
        }
    }

    async fn look_after_closed(self) {
        if !self.reindexes_closed {
            return;
        }
        loop {
            tokio::time::sleep(PAUSE).await;
            if self.tasks.is_prepared() {
                match self.reindex_closed().await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(failure) => tracing::warn!(
                        %failure,
                        "the indexes of a closed partition could not be built anew: it is tried again in an hour"
                    ),
                }
                tokio::time::sleep(CLOSED_EVERY).await;
            }
        }
    }

    /// How long they need no looking after.
    async fn look_after_partitions(&self) -> Duration {
        match self.make_partitions_ahead().await {
            Ok(()) => PARTITIONS_EVERY,
            Err(failure) => {
                self.partitions.complain(&failure.to_string());
                PARTITIONS_AGAIN
            }
        }
    }

    /// Tries a migration again that was put off.
    async fn catch_up(&self) {
        if !self.tasks.is_behind() {
            return;
        }
        match self.migrate().await {
            Ok(Migrated::Wholly) => {
                self.tasks.set_prepared(true);
                tracing::info!("the migration of the table telemetry that was put off is applied");
            }
            // It was said.
            Ok(Migrated::SetAside) => self.tasks.set_prepared(true),
            Ok(Migrated::PutOff) => {}
            Err(failure) => tracing::debug!(%failure, "the migration that was put off failed"),
        }
    }
}
