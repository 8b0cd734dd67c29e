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
