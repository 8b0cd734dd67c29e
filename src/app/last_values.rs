//! Finds the last value of each device again after a start: in the log, and, once the database answers, in its
//! tables. So devices can be shown in an outage, also those that have been silent since.
//!
//! It takes its time: whoever ingests or flushes needs the processor more.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::{AppState, Tables};
use crate::postgres::{
    Database, DeviceFilter, Failure, Position, Relation, StoredReading, StoredValues,
    TelemetryFilter,
};
use crate::recent::Recent;
use crate::status::health::Health;
use crate::wal::log::LastValues;

/// Steps back in the log between two pauses.
const STEPS: usize = 16;
/// Devices that are asked for at once, and how many in all: as many as are kept.
const DEVICES: u32 = 1_000;
const MOST_DEVICES: u32 = 200_000;
/// Between two looks whether the database answers, or has the table by now.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What it works with.
pub(super) struct LastValuesAgain {
    recent: Arc<Recent>,
    database: Database,
    health: Arc<Health>,
    tables: Arc<Tables>,
}

impl LastValuesAgain {
    pub(super) fn of(state: &AppState) -> Self {
        Self {
            recent: Arc::clone(&state.recent),
            database: state.database.clone(),
            health: Arc::clone(&state.health),
            tables: Arc::clone(&state.tables),
        }
    }

    /// Looks at everything once. Then it is done, which is no reason to end.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let log = async {
            self.read_log().await;
            self.recent.note_found(None);
        };
        tokio::join!(log, self.read_tables());
        std::future::pending().await
    }

    async fn read_log(&self) {
        loop {
            let recent = Arc::clone(&self.recent);
            let started = Instant::now();
            let steps = move || {
                for _ in 0..STEPS {
                    if !recent.look_back()? {
                        return Ok::<_, crate::wal::WalError>(false);
                    }
                }
                Ok(true)
            };
            match tokio::task::spawn_blocking(steps).await {
                Ok(Ok(true)) => tokio::time::sleep(started.elapsed()).await,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the log could not be read back for the last values of devices: they come with the next readings");
                    return;
                }
            }
        }
    }

    async fn read_tables(&self) {
        let mut left = self.tables.relations();
        loop {
            if self.health.is_database_up() {
                let mut failed = Vec::new();
                for relation in left {
                    let read = self.read_table(&relation).await;
                    // In a table that is not there yet nothing is to be found.
                    if read.as_ref().err().is_none_or(Failure::is_missing_table) {
                        self.recent.note_found(Some(relation.name()));
                    }
                    if let Err(failure) = read {
                        tracing::debug!(table = relation.name(), %failure, "the last values of devices could not be read: trying again");
                        failed.push(relation);
                    }
                }
                left = failed;
            }
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn read_table(&self, relation: &Relation) -> Result<(), Failure> {
        let flushed = self.recent.flushed();
        let (filter, newest) = (TelemetryFilter::default(), Position::Offset(0));
        let newest = self.database.telemetry(relation, &filter, &newest, 1, &[]).await?;
        match newest.readings.first() {
            None => self.recent.note_newest(relation.name(), None, flushed),
            Some(StoredReading { timestamp: Some(at), .. }) => {
                self.recent.note_newest(relation.name(), Some(*at), flushed);
            }
            Some(_) => {}
        }
        let filter = DeviceFilter::default();
        for offset in (0..MOST_DEVICES).step_by(DEVICES as usize) {
            let started = Instant::now();
            let page = self.database.devices(relation, &filter, offset, DEVICES).await?;
            let is_last = page.passed < DEVICES;
            for reading in page.latest {
                self.keep(relation, reading);
            }
            if is_last {
                break;
            }
            tokio::time::sleep(started.elapsed() * 4).await;
        }
        Ok(())
    }

    fn keep(&self, relation: &Relation, reading: StoredReading) {
        let StoredReading { device_id, timestamp: Some(timestamp), values, .. } = reading else {
            return;
        };
        let values = match values {
            StoredValues::Fields(values) => LastValues::Fields(values),
            StoredValues::Row(text) => LastValues::Row(text.into()),
        };
        self.recent.keep_stored(relation.name(), &device_id, timestamp, values);
    }
}
