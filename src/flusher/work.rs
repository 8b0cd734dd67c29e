//! What takes time: reading rows and sending them, writing letters. Each piece of work is a task.

#![expect(clippy::disallowed_methods, reason = "a shell: it asks for the time")]

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::{Accepted, BatchId, Event, Lettered};
use super::sink::{FlushError, Refusal, Sink};
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::dead_letters::{DeadLetterError, DeadLetters, NewDeadLetter};
use crate::telemetry::Record;
use crate::telemetry::rejection::Stage;
use crate::wal::{Batch, Log, Offset, WalError};

/// What came of it.
pub(super) struct Done {
    pub(super) event: Event,
    /// The rows of a batch, if they were read for it.
    pub(super) read: Option<(BatchId, Arc<Batch>)>,
}

impl From<Event> for Done {
    fn from(event: Event) -> Self {
        Self { event, read: None }
    }
}

/// The rows of a batch: at hand, or to be read.
pub(super) struct Rows {
    pub(super) batch: BatchId,
    pub(super) all: Range<Offset>,
    pub(super) at_hand: Option<Arc<Batch>>,
}

impl Rows {
    async fn get(self, log: &Log, metrics: &Metrics) -> Result<Arc<Batch>, WalError> {
        if let Some(batch) = self.at_hand {
            return Ok(batch);
        }
        let Range { start, end } = self.all;
        let batch = if let Some(batch) = log.read_tail(start, end) {
            batch
        } else {
            let log = log.clone();
            blocking(move || log.read(start, end)).await?
        };
        #[expect(clippy::cast_possible_wrap, reason = "a batch has at most 100,000 rows")]
        metrics.batch_size.set(batch.len() as i64);
        Ok(Arc::new(batch))
    }
}

/// Inserts those of `rows` that lie in `part`.
pub(super) async fn insert<S: Sink>(
    (log, sink, metrics): (Log, S, Metrics),
    rows: Rows,
    part: Range<Offset>,
    limit: Duration,
) -> Done {
    let started = Instant::now();
    let id = rows.batch;
    let batch = match rows.get(&log, &metrics).await {
        Ok(batch) => batch,
        Err(error) => return Event::Failed(error.into()).into(),
    };
    let outcome = {
        let inside = |(offset, _): &(Offset, &Record)| part.contains(offset);
        let readings: Vec<&Record> = batch.records().filter(inside).map(|(_, row)| row).collect();
        let sent = Instant::now();
        match sink.insert(&readings, limit).await {
            Ok(stored) => {
                metrics.ingest_latency.observe(sent.elapsed().as_secs_f64());
                metrics.db_inserts.inc_by(stored.inserted);
                metrics.duplicates.inc_by(stored.duplicates);
                metrics.merged.inc_by(stored.merged);
                let swallowed = if stored.swallowed.is_empty() {
                    Vec::new()
                } else {
                    let offsets: Vec<Offset> =
                        batch.records().filter(inside).map(|(offset, _)| offset).collect();
                    let mut swallowed: Vec<Offset> =
                        stored.swallowed.iter().map(|index| offsets[*index]).collect();
                    swallowed.sort_unstable();
                    swallowed
                };
                let (inserted, duplicates) = (stored.inserted, stored.duplicates + stored.merged);
                Ok(Accepted { inserted, duplicates, swallowed })
            }
            Err(error) => Err(error),
        }
    };
    let event = Event::Inserted { batch: id, outcome, took: started.elapsed() };
    Done { event, read: Some((id, batch)) }
}

/// Makes what was flushed pending again, and only then has the sink take rows.
pub(super) async fn rewind<S: Sink + 'static>(log: Log, sink: S) -> Done {
    let rewound = blocking(move || log.rewind().inspect(|_| sink.accept())).await;
    rewound.map_or_else(|error| Event::Failed(error.into()), Event::Rewound).into()
}

/// Moves rows that PostgreSQL refuses to the dead-letter store.
pub(super) async fn letter(
    (log, dead_letters, metrics): (Log, Arc<DeadLetters>, Metrics),
    rows: Rows,
    refused: Vec<(Offset, Refusal)>,
) -> Done {
    let id = rows.batch;
    let batch = match rows.get(&log, &metrics).await {
        Ok(batch) => batch,
        Err(error) => return Event::Failed(error.into()).into(),
    };
    let read = Some((id, Arc::clone(&batch)));
    let written = blocking(move || write_letters(&dead_letters, &batch, refused)).await;
    let outcome = match written {
        Ok(()) => Lettered::Stored,
        Err(error) if error.is_disk_full() || error.is_full() => {
            Lettered::NoRoom(error.to_string())
        }
        Err(error) => return Event::Failed(FlushError::DeadLetters(error)).into(),
    };
    Done { event: Event::Lettered { batch: id, outcome }, read }
}

fn write_letters(
    dead_letters: &DeadLetters,
    batch: &Batch,
    refused: Vec<(Offset, Refusal)>,
) -> Result<(), DeadLetterError> {
    let refused: HashMap<Offset, Refusal> = refused.into_iter().collect();
    let of_refused = |(offset, reading)| Some((as_payload(reading), refused.get(&offset)?));
    let payloads: Vec<(String, &Refusal)> = batch.records().filter_map(of_refused).collect();
    let received_at = Timestamp::now();
    let letters: Vec<NewDeadLetter<'_>> = payloads
        .iter()
        .map(|(payload, refusal)| NewDeadLetter {
            received_at,
            // The log does not keep topics.
            topic: "",
            stage: Stage::Database,
            reason: format!("PostgreSQL refused the row: {refusal}"),
            payload: payload.as_bytes(),
            is_unmatched: false,
        })
        .collect();
    dead_letters.append(&letters)
}

/// The reading as it could have been published; a row of a mapping says which table it is for.
fn as_payload(reading: &Record) -> String {
    serde_json::json!(reading).to_string()
}

/// Receipt to commit, once a record.
pub(super) fn observe_latency(log: &Log, metrics: &Metrics, batch: &Batch) {
    let latency = metrics.end_to_end_latency.local();
    for (seconds, records) in log.ages(batch) {
        (0..records).for_each(|_| latency.observe(seconds));
    }
    latency.flush();
}

/// Runs work that blocks on the disk.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => panicked(error),
    }
}

/// Goes on with the panic of another task; nothing here is ever aborted.
pub(super) fn panicked(error: tokio::task::JoinError) -> ! {
    std::panic::resume_unwind(error.into_panic())
}
