//! What the table needs beside rows, done in the background, so that no row waits for it.
//!
//! A migration that was put off ([`super::schema`]) is tried again, and the names of devices are
//! gathered from rows that were there before their list was ([`backfill`]). All of it can be broken off
//! at any time and goes on where it was.

use std::time::Duration;

use super::Database;

mod backfill;

use backfill::Backfill;

/// Until the next look, unless something happens before.
const PAUSE: Duration = Duration::from_secs(5);

impl Database {
    /// Does it, without end. An outage is the flusher's to report: what fails here is tried again.
    pub async fn upkeep(self) {
        let mut backfill = Backfill::default();
        loop {
            tokio::select! {
                () = self.tasks.woken() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
            if !self.tasks.is_prepared() {
                continue;
            }
            self.catch_up().await;
            backfill.run(&self).await;
        }
    }

    /// Tries a migration again that was put off.
    async fn catch_up(&self) {
        if !self.tasks.is_behind() {
            return;
        }
        match self.migrate().await {
            Ok(true) => {
                self.tasks.set_prepared(true);
                tracing::info!("the migration of the table telemetry that was put off is applied");
            }
            Ok(false) => {}
            Err(failure) => tracing::debug!(%failure, "the migration that was put off failed"),
        }
    }
}
