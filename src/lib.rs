//! Telemetry from MQTT to PostgreSQL through a local write-ahead log, without losing an
//! acknowledged reading.
//!
//! ```text
//! MQTT ──► source ──► intake ─────────────► WAL ──► flusher ──► PostgreSQL
//!          (poll)     decode, validate,      │       batches,
//!            ▲        append, commit         │       backoff
//!            └──────── PUBACK ◄──────────────┘
//!                                     http: telemetry, devices, status, page, metrics
//! ```
//!
//! The log is the seam. Left of it nothing knows PostgreSQL, right of it nothing knows MQTT;
//! either half may be down for days while the other works.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | message | one MQTT publish |
//! | reading | one measurement; a message holds one or an array of them |
//! | record | a reading in the log; its number there is its *offset* |
//! | commit | make records durable (fdatasync) |
//! | ack | the MQTT PUBACK (for QoS 2 the PUBREC), and nothing else |
//! | flush | move records from the log to PostgreSQL |
//! | trim | delete flushed records from the log |
//! | dead letter | what was turned away, kept with the reason |
//!
//! # Invariant
//!
//! Per record, always in this order: received → committed → acked → flushed → trimmed.
//!
//! # Threads
//!
//! Of the service, by name. Whatever else it does at once is a task on the runtime: the flusher, HTTP, and
//! what is started in `app::start`.
//!
//! | thread | runs | joined by |
//! |---|---|---|
//! | the first one | [`app::run`], from the start to the end of the stop | – |
//! | `runtime`, two | tasks | nobody: what hangs beyond the grace is not waited for |
//! | `runtime`, more as needed | what blocks on the disk, handed over by a task | the task, if it still waits |
//! | `intake` | [`intake`]: decodes, validates, appends, commits, acks; the log's only writer | `intake-end` |
//! | `mqtt source` | [`mqtt::Source`], on a runtime of its own | `mqtt source-end` |
//! | `tokio-rt-worker` | a lookup of the broker's name, for the source's runtime | nobody: it may hang |
//! | `intake-end`, `mqtt source-end` | wait for the end of these two, and tell `app::supervisor` | nobody: they end with that |
//! | `wal-watch` | wakes whoever waits in sled for a write that has failed | the newest generation, when it is let go of |
//! | `log flusher`, `sled-io-…` | sled's own, of the newest generation | sled; the latter end when idle |
//! | `log output` | writes what is logged to standard error | nobody: a write may hang; the end waits a quarter of a second |
//!
//! The supervisor owns all that is named in `app::start`: what ends unasked brings the process down in order.

// The path, in its order.
pub mod mqtt;

pub mod intake;
pub mod telemetry;

pub mod wal;

pub mod flusher;
pub mod postgres;

// Beside it.
pub mod app;
pub mod base;
pub mod cli;
pub mod dead_letters;
pub(crate) mod http;
pub(crate) mod recent;
pub mod simulator;
pub(crate) mod status;
