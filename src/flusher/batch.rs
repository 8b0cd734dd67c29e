//! One batch on its way into the table.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::Parts;
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::dead_letters::NewDeadLetter;
use crate::postgres::Failure;
use crate::telemetry::Reading;
use crate::telemetry::rejection::Stage;
use crate::wal::{Batch, Offset};

/// What the flusher asks of the database.
pub(super) enum Work {
    /// To be ready for rows.
    Schema,
    /// To answer.
    Ping,
    /// To store these.
    Batch(Box<Records>),
}

/// A range of offsets, and what is left of it to be stored.
pub(super) struct Records {
    pub(super) from: Offset,
    pub(super) to: Offset,
    read: Option<Batch>,
    /// Indices into `read`, the next range last. What is stored or dead-lettered is no longer
    /// here, so that a batch that fails half-way is counted once when it is sent again.
    left: Vec<Range<usize>>,
}

impl Work {
    pub(super) fn batch(from: Offset, to: Offset) -> Self {
        Self::Batch(Box::new(Records { from, to, read: None, left: Vec::new() }))
    }
}

/// How it went.
pub(super) enum Outcome {
    /// Everything is in the table or in the dead-letter store.
    Done,
    /// Not now.
    Failed(Failure),
}

/// Work that was done, or tried.
pub(super) struct Ended {
    /// With what is left of it.
    pub(super) work: Work,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// Does `work`.
pub(super) async fn send(parts: Parts, mut work: Work) -> Ended {
    let started = Instant::now();
    let result = match &mut work {
        Work::Schema => parts.database.prepare_schema().await,
        Work::Ping => parts.database.ping().await,
        Work::Batch(records) => records.send(&parts).await,
    };
    let outcome = match result {
        Ok(()) => Outcome::Done,
        Err(failure) => Outcome::Failed(failure),
    };
    Ended { work, outcome, took: started.elapsed() }
}

impl Records {
    async fn send(&mut self, parts: &Parts) -> Result<(), Failure> {
        let batch = match self.read.take() {
            Some(batch) => batch,
            None => self.read(parts).await?,
        };
        let result = self.store(parts, &batch).await;
        self.read = Some(batch);
        result
    }

    async fn read(&mut self, parts: &Parts) -> Result<Batch, Failure> {
        let (log, from, to) = (parts.log.clone(), self.from, self.to);
        let batch = match log.read_tail(from, to) {
            Some(batch) => batch,
            None => blocking(move || log.read(from, to)).await?,
        };
        self.left = std::iter::once(0..batch.len()).collect();
        #[expect(clippy::cast_possible_wrap, reason = "a batch has at most 100,000 rows")]
        parts.metrics.batch_size.set(batch.len() as i64);
        Ok(batch)
    }

    /// Stores what is left, halving a range with a value that PostgreSQL refuses.
    async fn store(&mut self, parts: &Parts, batch: &Batch) -> Result<(), Failure> {
        let readings: Vec<&Reading> = batch.records().map(|(_, reading)| reading).collect();
        while let Some(range) = self.left.last().cloned() {
            let started = Instant::now();
            match parts.database.insert(&readings[range.clone()]).await {
                Ok(stored) => {
                    parts.metrics.ingest_latency.observe(started.elapsed().as_secs_f64());
                    parts.metrics.db_inserts.inc_by(stored.inserted);
                    parts.metrics.duplicates.inc_by(stored.duplicates);
                }
                Err(Failure::Data { reason, sqlstate }) if range.len() == 1 => {
                    refuse(parts, readings[range.start], &reason, sqlstate.as_deref()).await?;
                }
                Err(Failure::Data { .. }) => {
                    self.left.pop();
                    let middle = range.start + range.len() / 2;
                    self.left.extend([middle..range.end, range.start..middle]);
                    continue;
                }
                Err(unavailable) => return Err(unavailable),
            }
            self.left.pop();
        }
        observe_latency(&parts.metrics, batch);
        Ok(())
    }
}

/// Receipt to commit, once a record.
fn observe_latency(metrics: &Metrics, batch: &Batch) {
    let now = Timestamp::now();
    let latency = metrics.end_to_end_latency.local();
    for (received_at, records) in batch.received_at() {
        let seconds = now.seconds_since(received_at).max(0.0);
        (0..records).for_each(|_| latency.observe(seconds));
    }
    latency.flush();
}

/// Moves a row that PostgreSQL refuses to the dead-letter store.
async fn refuse(
    parts: &Parts,
    reading: &Reading,
    reason: &str,
    sqlstate: Option<&str>,
) -> Result<(), Failure> {
    let reason = match sqlstate {
        Some(code) => format!("PostgreSQL refused the row ({code}): {reason}"),
        None => format!("PostgreSQL cannot hold the row: {reason}"),
    };
    let payload = as_payload(reading);
    let dead_letters = parts.dead_letters.clone();
    blocking(move || {
        dead_letters.append(&[NewDeadLetter {
            received_at: Timestamp::now(),
            // The log does not keep topics.
            topic: "",
            stage: Stage::Database,
            reason,
            payload: payload.as_bytes(),
        }])
    })
    .await
}

/// The reading as it could have been published.
fn as_payload(reading: &Reading) -> String {
    serde_json::json!(reading).to_string()
}

/// Runs work that blocks on the disk; if that fails, the batch is tried again later.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let local = |reason: String| Failure::Unavailable { reason, sqlstate: None };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| local(error.to_string())),
        Err(error) => Err(local(error.to_string())),
    }
}
